"""Priorities of jobs: the order in which due ones are claimed."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("rank", sa.BigInteger(), nullable=False, server_default="0"))
    op.execute("UPDATE jobs SET rank = due_at")
    op.drop_index("jobs_by_due", "jobs")
    op.create_index("jobs_by_rank", "jobs", ["status", "rank", "id"])
    op.drop_index("jobs_by_group", "jobs")
    op.create_index("jobs_by_group", "jobs", ["group", "status", "rank"])
