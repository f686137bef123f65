"""Add the machines of trainings."""

import sqlalchemy as sa
from alembic import op

revision = "0039"
down_revision = "0038"


def upgrade() -> None:
    op.create_table(
        "training_machines",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("address", sa.String(300), nullable=False),
        sa.Column("certificate", sa.Text(), nullable=False),
    )
    op.create_index("ix_training_machines_model", "training_machines", ["model"])
