"""Users and groups of an organisation's directory."""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"


def upgrade() -> None:
    op.create_table(
        "directory_users",
        sa.Column("account_id", sa.String(length=26), primary_key=True),
        sa.Column("user_name", sa.String(length=256), nullable=False),
        sa.Column("folded", sa.String(length=1024), nullable=False, unique=True),
        sa.Column("external_id", sa.String(length=256), nullable=False),
    )
    op.create_table(
        "directory_groups",
        sa.Column("id", sa.String(length=26), primary_key=True),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("folded", sa.String(length=1024), nullable=False, unique=True),
        sa.Column("external_id", sa.String(length=256), nullable=False),
    )
    op.create_table(
        "directory_members",
        sa.Column("group_id", sa.String(length=26), primary_key=True),
        sa.Column("account_id", sa.String(length=26), primary_key=True),
    )
