"""Progress of each endpoint's monitor windows."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "monitor_checkpoints",
        sa.Column("endpoint", sa.String(length=128), nullable=False),
        sa.Column("window_us", sa.BigInteger(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("endpoint", "window_us"),
    )
