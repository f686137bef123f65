"""Monitor windows and checkpoints of each lake for themselves; those from before are of the first that writes."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_KEYS = {"monitor_windows": ("endpoint", "start", "end"), "monitor_checkpoints": ("endpoint", "window_us")}


def upgrade() -> None:
    for table, keys in _KEYS.items():
        # A new table: SQLite cannot give another primary key to one that is there.
        op.rename_table(table, f"{table}_before")
        made = op.create_table(
            table,
            sa.Column("lake", sa.String(length=64), nullable=False),
            *(sa.Column(key, sa.String(128) if key == "endpoint" else sa.BigInteger(), nullable=False) for key in keys),
            sa.Column("document", sa.LargeBinary(), nullable=False),
            sa.PrimaryKeyConstraint("lake", *keys, name=f"{table}_by_lake"),
        )
        before = sa.table(f"{table}_before", *(sa.column(name) for name in (*keys, "document")))
        op.execute(
            made.insert().from_select(
                ["lake", *keys, "document"],
                sa.select(sa.literal(""), *(before.c[name] for name in (*keys, "document"))),
            )
        )
        op.drop_table(f"{table}_before")
