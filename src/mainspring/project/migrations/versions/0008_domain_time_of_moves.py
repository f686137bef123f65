"""The instant of each alias move by the project's clock; null for moves from before."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("alias_moves", sa.Column("domain_at", sa.BigInteger(), nullable=True))
