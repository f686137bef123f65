"""States of stream endpoints by partition, where machines share them."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"


def _create(name: str, key: tuple[str, ...], *columns: sa.Column[Any]) -> None:
    op.create_table(
        f"stream_endpoint_{name}",
        sa.Column("lake", sa.String(length=64), nullable=False),
        sa.Column("endpoint", sa.String(length=128), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        *columns,
        sa.PrimaryKeyConstraint("lake", "endpoint", "partition", *key),
    )


def upgrade() -> None:
    _create(
        "partitions",
        (),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("progress", sa.LargeBinary(), nullable=True),
        sa.Column("running", sa.LargeBinary(), nullable=True),
    )
    _create(
        "states",
        ("key",),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
    )
    op.create_index(
        "stream_endpoint_states_by_last", "stream_endpoint_states", ["lake", "endpoint", "partition", "last"]
    )
    _create(
        "outbox",
        ("seq",),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Integer(), nullable=False),
        sa.Column("sinks", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
    )
    _create(
        "sinks",
        ("id",),
        sa.Column("id", sa.String(length=256), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("done", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.LargeBinary(), nullable=False),
    )
    _create(
        "batches",
        ("number",),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("accepted_at", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
    )
