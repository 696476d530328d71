"""The schema. Migrations build it; a test compares the two on SQLite and PostgreSQL.

Times are integer milliseconds since the epoch, money integer nano-units, secrets only as SHA-256 or
argon2id. `ledger` is append-only (triggers refuse updates and deletes); everything about money can
be derived from it, and `users.balance_nano` is its running sum, changed in the same transactions.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

NAMES: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
metadata = MetaData(naming_convention=NAMES)

# SQLite counts rows only in a column that it calls INTEGER.
_ROW_ID = BigInteger().with_variant(Integer, "sqlite")
_ID = String(64)

settings = Table(
    "settings",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

instances = Table(
    "instances",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("started_ms", BigInteger, nullable=False),
    Column("beat_ms", BigInteger, nullable=False),
)

users = Table(
    "users",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("name", String(254), nullable=False, unique=True),
    Column("password_hash", String(200)),
    Column("role", String(16), nullable=False),
    Column("locked_ms", BigInteger),
    Column("created_ms", BigInteger, nullable=False),
    Column("balance_nano", BigInteger, nullable=False, server_default=text("0")),
    CheckConstraint("balance_nano >= 0", name="balance"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("user_id", _ID, ForeignKey("users.id"), nullable=False, index=True),
    Column("label", String(200), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False, index=True),
    Column("revoked_ms", BigInteger),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("user_id", _ID, ForeignKey("users.id"), nullable=False, index=True),
    Column("name", String(200), nullable=False),
    Column("key_hash", String(64), nullable=False, unique=True),
    Column("hint", String(8), nullable=False),
    Column("models", Text),
    Column("cap_nano", BigInteger),
    Column("spent_nano", BigInteger, nullable=False, server_default=text("0")),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger),
    Column("revoked_ms", BigInteger),
    Column("last_used_ms", BigInteger),
    CheckConstraint("spent_nano >= 0", name="spent"),
)

prices = Table(
    "prices",
    metadata,
    Column("id", _ROW_ID, primary_key=True, autoincrement=True),
    Column("model", String(200), nullable=False),
    Column("effective_ms", BigInteger, nullable=False),
    Column("cache_hit_nano", BigInteger, nullable=False),
    Column("input_nano", BigInteger, nullable=False),
    Column("output_nano", BigInteger, nullable=False),
    Column("reasoning_nano", BigInteger, nullable=False),
    UniqueConstraint("model", "effective_ms"),
)

generations = Table(
    "generations",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("user_id", _ID, ForeignKey("users.id"), nullable=False),
    Column("key_id", _ID, ForeignKey("api_keys.id")),
    Column("model", String(200), nullable=False),
    Column("price_id", _ROW_ID, ForeignKey("prices.id")),
    Column("instance_id", _ID, nullable=False),
    Column("state", String(8), nullable=False),
    Column("outcome", String(32)),
    Column("reserved_nano", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("max_output_tokens", BigInteger, nullable=False),
    Column("cache_hit_tokens", BigInteger, nullable=False, server_default=text("0")),
    Column("input_tokens", BigInteger, nullable=False, server_default=text("0")),
    Column("output_tokens", BigInteger, nullable=False, server_default=text("0")),
    Column("reasoning_tokens", BigInteger, nullable=False, server_default=text("0")),
    Column("created_ms", BigInteger, nullable=False),
    Column("logged_ms", BigInteger),
    Column("expires_ms", BigInteger, nullable=False),
    Column("closed_ms", BigInteger),
    Column("day", String(10)),
    CheckConstraint("state in ('open', 'settled')", name="state"),
    Index("ix_generations_user_id_day", "user_id", "day"),
    Index(
        "ix_generations_open",
        "instance_id",
        sqlite_where=text("state = 'open'"),
        postgresql_where=text("state = 'open'"),
    ),
)

ledger = Table(
    "ledger",
    metadata,
    Column("id", _ROW_ID, primary_key=True, autoincrement=True),
    Column("user_id", _ID, ForeignKey("users.id"), nullable=False, index=True),
    Column("key_id", _ID, ForeignKey("api_keys.id")),
    Column("request_id", String(128), nullable=False),
    Column("kind", String(8), nullable=False),
    Column("amount_nano", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("note", String(200), nullable=False, server_default=text("''")),
    CheckConstraint("kind in ('topup', 'reserve', 'settle', 'release', 'adjust')", name="kind"),
    UniqueConstraint("request_id", "kind"),
)

spent_challenges = Table(
    "spent_challenges",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("expires_ms", BigInteger, nullable=False, index=True),
)

conversations = Table(
    "conversations",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("user_id", _ID, ForeignKey("users.id"), nullable=False),
    Column("title", String(200), nullable=False),
    Column("num_messages", Integer, nullable=False, server_default=text("0")),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Index("ix_conversations_user_id_updated_ms", "user_id", "updated_ms"),
)

messages = Table(
    "messages",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("conversation_id", _ID, ForeignKey("conversations.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("parent_id", _ID, ForeignKey("messages.id")),
    Column("role", String(16), nullable=False),
    Column("content", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    UniqueConstraint("conversation_id", "number"),
)

runs = Table(
    "runs",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("user_id", _ID, ForeignKey("users.id"), nullable=False),
    Column("conversation_id", _ID, ForeignKey("conversations.id"), nullable=False, index=True),
    Column("message_id", _ID, ForeignKey("messages.id"), nullable=False, unique=True),
    Column("request_id", _ID),
    Column("instance_id", _ID, nullable=False),
    Column("state", String(16), nullable=False),
    Column("stop_requested", Integer, nullable=False, server_default=text("0")),
    Column("last_sequence", BigInteger, nullable=False, server_default=text("0")),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Column("reason", Text),
    Index(
        "ix_runs_running",
        "instance_id",
        sqlite_where=text("state = 'running'"),
        postgresql_where=text("state = 'running'"),
    ),
)

responses = Table(
    "responses",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("user_id", _ID, ForeignKey("users.id"), nullable=False),
    Column("previous_id", _ID),  # may be gone: each response is deleted by itself
    Column("input", Text, nullable=False),
    Column("output", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False, index=True),
    Index("ix_responses_user_id_created_ms", "user_id", "created_ms"),
)

run_events = Table(
    "run_events",
    metadata,
    Column("run_id", _ID, ForeignKey("runs.id"), primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(32), nullable=False),
    Column("data", Text, nullable=False),
)
