"""Users, service accounts, groups, granted roles, and the owners of API keys; keys from before have none."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.String(length=26), primary_key=True),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("email", sa.String(length=256), nullable=False),
        sa.Column("service", sa.String(length=128), unique=True),
        sa.Column("issuer", sa.String(length=512)),
        sa.Column("subject", sa.String(length=256)),
        sa.Column("provider_groups", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("disabled_at", sa.BigInteger()),
        sa.UniqueConstraint("issuer", "subject"),
    )
    op.create_table(
        "account_groups",
        sa.Column("name", sa.String(length=128), primary_key=True),
        sa.Column("provider_group", sa.String(length=512), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "account_group_members",
        sa.Column("group_name", sa.String(length=128), primary_key=True),
        sa.Column("account_id", sa.String(length=26), primary_key=True),
    )
    op.create_table(
        "role_grants",
        sa.Column("kind", sa.String(length=16), primary_key=True),
        sa.Column("who", sa.String(length=128), primary_key=True),
        sa.Column("role", sa.String(length=32), primary_key=True),
        sa.Column("resource", sa.String(length=300), primary_key=True),
        sa.Column("granted_at", sa.BigInteger(), nullable=False),
        sa.Column("granted_by", sa.String(length=256), nullable=False),
    )
    op.create_table(
        "access_changes",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("mark", sa.String(length=26), nullable=False),
    )
    op.add_column("api_keys", sa.Column("owner", sa.String(length=26), nullable=False, server_default=""))
