"""Add the batches that were pulled from a warehouse."""

import sqlalchemy as sa
from alembic import op

revision = "0044"
down_revision = "0043"


def upgrade() -> None:
    op.create_table(
        "pulled_batches",
        sa.Column("lake", sa.String(64), primary_key=True),
        sa.Column("source", sa.String(128), primary_key=True),
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("table", sa.Text, nullable=False),
        sa.Column("arrival", sa.Text, nullable=False),
        sa.Column("instants", sa.Boolean, nullable=False),
        sa.Column("columns", sa.Text, nullable=False),
        sa.Column("since", sa.BigInteger),
        sa.Column("until", sa.BigInteger, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("known_from", sa.BigInteger, nullable=False),
        sa.Column("kept", sa.BigInteger, nullable=False),
        sa.Column("digests", sa.LargeBinary, nullable=False),
    )
