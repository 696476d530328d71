"""When a key was last used; what the end of a run said, beyond the day that its events are kept."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Two columns that may be empty."""
    op.add_column("api_keys", sa.Column("last_used_ms", sa.BigInteger))
    op.add_column("runs", sa.Column("reason", sa.Text))
