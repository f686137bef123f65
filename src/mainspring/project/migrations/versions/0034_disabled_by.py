"""Add the kind of actor that disabled an account."""

import sqlalchemy as sa
from alembic import op

revision = "0034"
down_revision = "0033"


def upgrade() -> None:
    op.add_column("accounts", sa.Column("disabled_by", sa.Text(), nullable=True))
