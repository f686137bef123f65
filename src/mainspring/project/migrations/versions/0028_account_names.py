"""Names bound to accounts: users of machines, and the identities of accounts, which outlive them."""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    op.create_table(
        "account_names",
        sa.Column("name", sa.String(length=800), primary_key=True),
        sa.Column("account_id", sa.String(length=26), primary_key=True),
        sa.Column("bound_at", sa.BigInteger(), nullable=False),
        sa.Column("bound_by", sa.String(length=256), nullable=False),
    )
    op.execute(
        "INSERT INTO account_names (name, account_id, bound_at, bound_by) "
        "SELECT 'oidc:' || issuer || ' ' || subject, id, created_at, issuer FROM accounts WHERE issuer IS NOT NULL"
    )
