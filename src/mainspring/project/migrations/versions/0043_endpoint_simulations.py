"""Add the last simulation of each endpoint."""

import sqlalchemy as sa
from alembic import op

revision = "0043"
down_revision = "0042"


def upgrade() -> None:
    op.create_table(
        "endpoint_simulations",
        sa.Column("endpoint", sa.String(128), primary_key=True),
        sa.Column("report", sa.Text(), nullable=False),
    )
