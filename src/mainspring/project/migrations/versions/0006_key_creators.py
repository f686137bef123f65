"""The person who made each API key; empty for keys from before."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("created_by", sa.String(length=256), nullable=False, server_default=""))
