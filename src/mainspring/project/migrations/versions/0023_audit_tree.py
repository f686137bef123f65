"""The audit log as a Merkle tree: events get their places in it, in their order, without gaps."""

import sqlalchemy as sa
from alembic import op

from mainspring.core.ids import new_id
from mainspring.security.audit_leaves import event_leaf
from mainspring.security.merkle import extend

revision = "0023"
down_revision = "0022"

_AT_ONCE = 10_000
_HEIGHTS = (8, 16, 24)
_OF_EVENTS = ("at", "actor", "action", "resource", "detail")


def upgrade() -> None:
    op.rename_table("audit_events", "audit_events_before")
    events = op.create_table(
        "audit_events",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("salt", sa.LargeBinary(length=32), nullable=True),
        sa.Column("commitment", sa.LargeBinary(length=32), nullable=True),
        sa.Column("leaf", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )
    tree = op.create_table(
        "audit_tree",
        sa.Column("only", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("origin", sa.String(length=128), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("frontier", sa.LargeBinary(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("only"),
    )
    subtrees = op.create_table(
        "audit_subtrees",
        sa.Column("height", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("height", "position"),
    )
    before = sa.table("audit_events_before", sa.column("seq"), *map(sa.column, _OF_EVENTS))
    page = sa.select(before).order_by(before.c.seq).limit(_AT_ONCE)
    connection, size, frontier = op.get_bind(), 0, list[bytes]()
    found = connection.execute(page).all()
    while found:
        rows = [
            {"seq": number, **dict(zip(_OF_EVENTS, each[1:], strict=True)),
             "leaf": event_leaf(number, each.at, each.actor, each.action, each.resource, each.detail, None)}
            for number, each in enumerate(found, size)
        ]  # fmt: skip
        connection.execute(events.insert(), rows)
        frontier, completed = extend(frontier, size, [row["leaf"] for row in rows])
        for height in _HEIGHTS:
            for position, root in enumerate(completed[height] if height < len(completed) else (), size >> height):
                connection.execute(subtrees.insert().values(height=height, position=position, hash=root))
        size += len(rows)
        found = connection.execute(page.where(before.c.seq > found[-1].seq)).all()
    if size:  # the first process with the key to append signs the head
        row = {"only": 0, "origin": f"mainspring/{new_id()}", "size": size, "frontier": b"".join(frontier), "note": ""}
        connection.execute(tree.insert().values(row))
    op.drop_table("audit_events_before")
