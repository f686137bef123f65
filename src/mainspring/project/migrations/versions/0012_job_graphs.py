"""Jobs that are parts of others and wait for each other, groups with limits, and remembered results."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    for column in (
        sa.Column("parent", sa.String(length=32), nullable=True),
        sa.Column("waiting", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("timeout_us", sa.BigInteger(), nullable=True),
        sa.Column("group", sa.String(length=128), nullable=True),
        sa.Column("group_limit", sa.Integer(), nullable=True),
        sa.Column("admitted", sa.Boolean(), nullable=False, server_default=sa.false()),
    ):
        op.add_column("jobs", column)
    op.drop_index("jobs_by_status", "jobs")
    op.create_index("jobs_by_due", "jobs", ["status", "due_at", "id"])
    op.drop_index("jobs_by_time", "jobs")
    op.create_index("jobs_by_parent", "jobs", ["parent", "enqueued_at", "id"])
    op.create_index("jobs_by_group", "jobs", ["group", "status", "due_at"])
    op.create_table(
        "job_needs",
        sa.Column("job", sa.String(length=32), nullable=False),
        sa.Column("need", sa.String(length=32), nullable=False),
        sa.Column("done", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job", "need"),
    )
    op.create_index("job_needs_by_need", "job_needs", ["need"])
    op.create_table(
        "job_cache",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("job", sa.String(length=32), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
