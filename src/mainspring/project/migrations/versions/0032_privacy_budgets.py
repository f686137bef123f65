"""Spent privacy budgets of sources."""

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"


def upgrade() -> None:
    op.create_table(
        "privacy_budgets",
        sa.Column("source", sa.String(length=128), primary_key=True),
        sa.Column("spent", sa.BigInteger(), nullable=False),
    )
