"""Heads received from other installations, and how far the own audit log is anchored."""

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"


def upgrade() -> None:
    op.create_table(
        "received_heads",
        sa.Column("public", sa.LargeBinary(length=32), primary_key=True),
        sa.Column("number", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("received_by", sa.Text(), nullable=False),
        sa.Column("refused", sa.Text(), nullable=False),
    )
    op.create_table(
        "anchor_states",
        sa.Column("place", sa.String(length=512), primary_key=True),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
    )
