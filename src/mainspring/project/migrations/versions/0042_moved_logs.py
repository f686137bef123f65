"""Add the states of prediction logs that are moved by machines without a worker."""

import sqlalchemy as sa
from alembic import op

revision = "0042"
down_revision = "0041"


def upgrade() -> None:
    op.create_table(
        "moved_logs",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("place", sa.String(256), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.Column("waiting", sa.BigInteger(), nullable=False),
        sa.Column("per_second", sa.Float(), nullable=False),
        sa.Column("ended", sa.Boolean(), nullable=False),
    )
