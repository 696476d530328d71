"""Accounts, keys, prices, ledger, generation log, conversations.

The tables are written out here rather than taken from tables.py: this step must go on making the
schema of its day when tables.py has moved on.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_ID = sa.String(64)


def _integer(name: str, *, nullable: bool = False, zero: bool = False) -> "sa.Column[int]":
    default = sa.text("0") if zero else None
    return sa.Column(name, sa.BigInteger, nullable=nullable, server_default=default)


def _reference(
    name: str, target: str, *, nullable: bool = False, kind: object = _ID
) -> "sa.Column[str]":
    return sa.Column(name, kind, sa.ForeignKey(target), nullable=nullable)  # type: ignore[arg-type]


def upgrade() -> None:
    """Everything, in the order that references need."""
    _create_operations()
    _create_accounts()
    _create_generations()
    _create_ledger()
    _create_conversations()
    _create_runs()


def _create_operations() -> None:
    op.create_table(
        "settings",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.create_table(
        "instances",
        sa.Column("id", _ID, primary_key=True),
        _integer("started_ms"),
        _integer("beat_ms"),
    )
    op.create_table(
        "spent_challenges", sa.Column("id", _ID, primary_key=True), _integer("expires_ms")
    )
    op.create_index("ix_spent_challenges_expires_ms", "spent_challenges", ["expires_ms"])
    op.create_table(
        "prices",
        sa.Column("id", _ROW_ID, primary_key=True, autoincrement=True),
        sa.Column("model", sa.String(200), nullable=False),
        _integer("effective_ms"),
        _integer("cache_hit_nano"),
        _integer("input_nano"),
        _integer("output_nano"),
        _integer("reasoning_nano"),
        sa.UniqueConstraint("model", "effective_ms"),
    )


def _create_accounts() -> None:
    op.create_table(
        "users",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("name", sa.String(254), nullable=False),
        sa.Column("password_hash", sa.String(200)),
        sa.Column("role", sa.String(16), nullable=False),
        _integer("locked_ms", nullable=True),
        _integer("created_ms"),
        _integer("balance_nano", zero=True),
        sa.UniqueConstraint("name"),
        sa.CheckConstraint("balance_nano >= 0", name="balance"),
    )
    op.create_table(
        "sessions",
        sa.Column("token_hash", sa.String(64), primary_key=True),
        _reference("user_id", "users.id"),
        sa.Column("label", sa.String(200), nullable=False),
        _integer("created_ms"),
        _integer("expires_ms"),
        _integer("revoked_ms", nullable=True),
    )
    op.create_index("ix_sessions_user_id", "sessions", ["user_id"])
    op.create_index("ix_sessions_expires_ms", "sessions", ["expires_ms"])
    op.create_table(
        "api_keys",
        sa.Column("id", _ID, primary_key=True),
        _reference("user_id", "users.id"),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("key_hash", sa.String(64), nullable=False),
        sa.Column("hint", sa.String(8), nullable=False),
        sa.Column("models", sa.Text),
        _integer("cap_nano", nullable=True),
        _integer("spent_nano", zero=True),
        _integer("created_ms"),
        _integer("expires_ms", nullable=True),
        _integer("revoked_ms", nullable=True),
        sa.UniqueConstraint("key_hash"),
        sa.CheckConstraint("spent_nano >= 0", name="spent"),
    )
    op.create_index("ix_api_keys_user_id", "api_keys", ["user_id"])


def _create_generations() -> None:
    op.create_table(
        "generations",
        sa.Column("id", _ID, primary_key=True),
        _reference("user_id", "users.id"),
        _reference("key_id", "api_keys.id", nullable=True),
        sa.Column("model", sa.String(200), nullable=False),
        _reference("price_id", "prices.id", nullable=True, kind=_ROW_ID),
        sa.Column("instance_id", _ID, nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("outcome", sa.String(32)),
        _integer("reserved_nano"),
        _integer("prompt_tokens"),
        _integer("max_output_tokens"),
        _integer("cache_hit_tokens", zero=True),
        _integer("input_tokens", zero=True),
        _integer("output_tokens", zero=True),
        _integer("reasoning_tokens", zero=True),
        _integer("created_ms"),
        _integer("logged_ms", nullable=True),
        _integer("expires_ms"),
        _integer("closed_ms", nullable=True),
        sa.Column("day", sa.String(10)),
        sa.CheckConstraint("state in ('open', 'settled')", name="state"),
    )
    op.create_index("ix_generations_user_id_day", "generations", ["user_id", "day"])
    _create_index_where("ix_generations_open", "generations", "state = 'open'")


def _create_ledger() -> None:
    op.create_table(
        "ledger",
        sa.Column("id", _ROW_ID, primary_key=True, autoincrement=True),
        _reference("user_id", "users.id"),
        _reference("key_id", "api_keys.id", nullable=True),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        _integer("amount_nano"),
        _integer("created_ms"),
        sa.Column("note", sa.String(200), nullable=False, server_default=sa.text("''")),
        sa.CheckConstraint(
            "kind in ('topup', 'reserve', 'settle', 'release', 'adjust')", name="kind"
        ),
        sa.UniqueConstraint("request_id", "kind"),
    )
    op.create_index("ix_ledger_user_id", "ledger", ["user_id"])
    if op.get_bind().dialect.name == "sqlite":
        for action in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER ledger_no_{action.lower()} BEFORE {action} ON ledger "
                "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION refuse_ledger_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$"
    )
    op.execute(
        "CREATE TRIGGER ledger_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_ledger_change()"
    )


def _create_conversations() -> None:
    op.create_table(
        "conversations",
        sa.Column("id", _ID, primary_key=True),
        _reference("user_id", "users.id"),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("num_messages", sa.Integer, nullable=False, server_default=sa.text("0")),
        _integer("created_ms"),
        _integer("updated_ms"),
    )
    op.create_index(
        "ix_conversations_user_id_updated_ms", "conversations", ["user_id", "updated_ms"]
    )
    op.create_table(
        "messages",
        sa.Column("id", _ID, primary_key=True),
        _reference("conversation_id", "conversations.id"),
        sa.Column("number", sa.Integer, nullable=False),
        _reference("parent_id", "messages.id", nullable=True),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        _integer("created_ms"),
        sa.UniqueConstraint("conversation_id", "number"),
    )


def _create_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", _ID, primary_key=True),
        _reference("user_id", "users.id"),
        _reference("conversation_id", "conversations.id"),
        _reference("message_id", "messages.id"),
        sa.Column("request_id", _ID),
        sa.Column("instance_id", _ID, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("stop_requested", sa.Integer, nullable=False, server_default=sa.text("0")),
        _integer("last_sequence", zero=True),
        _integer("created_ms"),
        _integer("updated_ms"),
        sa.UniqueConstraint("message_id"),
    )
    op.create_index("ix_runs_conversation_id", "runs", ["conversation_id"])
    _create_index_where("ix_runs_running", "runs", "state = 'running'")
    op.create_table(
        "run_events",
        sa.Column("run_id", _ID, sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("data", sa.Text, nullable=False),
    )


def _create_index_where(name: str, table: str, condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, ["instance_id"], sqlite_where=where, postgresql_where=where)
