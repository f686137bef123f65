"""Starters of jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0032"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("started_by", sa.Text(), nullable=True))
