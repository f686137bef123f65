"""Teams that were named to pay for jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0045"
down_revision = "0044"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("team", sa.String(128), nullable=True))
