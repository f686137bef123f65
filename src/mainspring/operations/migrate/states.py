"""Copy of the states of online features from one store to another, each read again."""

from __future__ import annotations

from hashlib import sha256

from mainspring.core.errors import Corrupt
from mainspring.features.model import EntityState
from mainspring.features.ports import OnlineStore
from mainspring.operations.migrate.content import Content, Step, one_by_one

LEFT = "left to `mainspring materialize`: its keys are too long to migrate"


def move_states(source: OnlineStore, target: OnlineStore, step: Step) -> list[Content]:
    """Copy every view's states and mark, and return the target's content for the same keys.

    A store keeps the newest state of a key, so states of an earlier copy do no harm. A view with shortened keys in the
        source is not copied, and has `LEFT` instead of a digest: it must be materialised again.

    Raises:
        Conflict: The target has other views.
        Corrupt: A state read again differs from the one written.
    """
    views = one_by_one(source.views(), target.views(), place="The online store", setting="online", step=step)
    return [_move_view(source, target, view) for view in views]


def _move_view(source: OnlineStore, target: OnlineStore, view: str) -> Content:
    if _shortened(source, view):
        target.clear(view)
        return Content(view, 0, LEFT)
    for rows in source.entities(view):
        target.write(view, rows)
    mark = source.mark(view)
    if mark is not None:
        target.advance(view, mark)
    count, total = 0, 0
    for rows in source.entities(view):
        read = target.read([(view, key) for key, _ in rows])
        for (key, state), given in zip(rows, read, strict=True):
            if given != state:
                raise Corrupt(
                    f"The target online store has a different state for a key of {view}.",
                    fix="if another application has used it, empty it; then run the command again.",
                )
            total += _digest(key, state)
        count += len(rows)
    there = sum(len(rows) for rows in target.entities(view))
    if there != count or target.mark(view) != mark:
        raise Corrupt(
            f"The target online store has {there} states of {view}, the source {count}.",
            fix="if another application has used it, empty it; then run the command again.",
        )
    return Content(view, count, f"{total % 2**128:032x}")


def _shortened(store: OnlineStore, view: str) -> bool:
    longest = store.longest_key
    return longest is not None and any(len(key) > longest for rows in store.entities(view) for key, _ in rows)


def _digest(key: bytes, state: EntityState) -> int:
    said = b"%d %d %d " % (len(key), state.position, state.landed) + key + state.payload
    return int.from_bytes(sha256(said).digest()[:16], "big")
