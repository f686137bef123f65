"""Erasures of subjects with their receipts, and legal holds."""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"


def upgrade() -> None:
    op.create_table(
        "erasures",
        sa.Column("id", sa.String(length=26), primary_key=True),
        sa.Column("entity", sa.String(length=128), nullable=False),
        sa.Column("subjects", sa.LargeBinary(), nullable=False),
        sa.Column("began_at", sa.BigInteger(), nullable=False),
        sa.Column("done_at", sa.BigInteger(), nullable=True),
        sa.Column("receipt", sa.Text(), nullable=False),
    )
    op.create_table(
        "legal_holds",
        sa.Column("subject", sa.LargeBinary(length=32), primary_key=True),
        sa.Column("entity", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("held_at", sa.BigInteger(), nullable=False),
        sa.Column("held_by", sa.Text(), nullable=False),
    )
