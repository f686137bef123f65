"""Add usage of machines."""

import sqlalchemy as sa
from alembic import op

revision = "0040"
down_revision = "0039"


def upgrade() -> None:
    op.create_table(
        "usage_subjects",
        sa.Column("digest", sa.String(32), primary_key=True),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("id", sa.String(160), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("key", sa.String(128), nullable=False),
        sa.Column("teams", sa.Text(), nullable=False),
        sa.Column("inside", sa.Boolean(), nullable=False),
    )
    op.create_table(
        "usage_amounts",
        sa.Column("machine", sa.String(64), primary_key=True),
        sa.Column("start", sa.BigInteger(), primary_key=True),
        sa.Column("span", sa.BigInteger(), primary_key=True),
        sa.Column("subject", sa.String(32), primary_key=True),
        sa.Column("measure", sa.String(32), primary_key=True),
        sa.Column("amount", sa.BigInteger(), nullable=False),
    )
    op.create_index("usage_amounts_by_start", "usage_amounts", ["start"])
    op.create_table(
        "usage_sources",
        sa.Column("source", sa.String(128), primary_key=True),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("newest", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.LargeBinary(), nullable=False),
    )
