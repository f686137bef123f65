"""Continuation of stored states by the rows that came since, which is all that most batches of a stream need.

A continued state answers as one recomputed from all of its entity's rows would, but no row settles in a tile: it grows
until it is recomputed.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgspec

from mainspring.features.keys import encode_key
from mainspring.features.layout import Layout
from mainspring.features.materialise.rebuild import Built, Columns, batches
from mainspring.features.model import EntityState, Mark
from mainspring.features.ports import OnlineStore
from mainspring.features.state.blobs import SETTLING, Grown, grown
from mainspring.features.tilelog.landed import key_columns
from mainspring.features.tilelog.slices import Slice

MOST_ROWS = 100_000  # that are held in memory; with more, states are recomputed
_encode = msgspec.msgpack.Encoder().encode


class Continuation:
    """Continuation of the states in one slot from its mark on.

    Attributes:
        left: Numbers of the entities whose states must be recomputed, and of their rows.
    """

    def __init__(self, con: Any, layout: Layout, rows: Slice, store: OnlineStore, slot: str, mark: Mark) -> None:
        self._con = con
        self._layout = layout
        self._rows = rows
        self._store = store
        self._slot = slot
        self._mark = mark
        self.left: tuple[list[int], list[int]] = [], []

    def states(self, changed: str, position: int, until: int, at_once: int) -> Iterator[Built]:
        """Yield the continued states of entities in table `changed` (kid, rows), with their rows visible by `until`.

        Args:
            position: Position of this run. A row that was visible a minute before would never settle: the runs in which
                rows settle look at later ones.
            at_once: Number of states that are read at once.
        """
        query = (
            f"SELECT kid, rows, {', '.join(key_columns(self._layout))} FROM {self._rows.entities} "
            f"JOIN {changed} USING (kid) ORDER BY kid"
        )
        (entities,) = batches(self._con, query, whole=True)
        numbered = zip(*entities, strict=True)
        (late,) = batches(
            self._con, f"SELECT kid FROM {self._rows.arrived} WHERE seq > {self._mark.newest}", whole=True
        )
        late_kids = set(late[0])
        ((kids, *columns),) = batches(self._con, self._rows_sql(until), whole=True)
        new = _NewRows(self._layout, columns, self._mark.until, position - SETTLING)
        kids.append(None)
        end = 0
        while some := list(islice(numbered, at_once)):
            keys = [encode_key(key) for _, _, *key in some]
            held = self._store.read([(self._slot, key) for key in keys])
            for (kid, count, *_), key, state in zip(some, keys, held, strict=True):
                start = end
                while kids[end] == kid:
                    end += 1
                payload = None
                if state is not None and end > start and kid not in late_kids and self._is_known(state):
                    payload = new.added_to(state, range(start, end))
                if payload is None:
                    self.left[0].append(kid)
                    self.left[1].append(count)
                else:
                    yield Built(key, payload, count)

    def _rows_sql(self, until: int) -> str:
        """SELECT the rows that landed, or became visible, since the mark: kid, v, e, seq, counts, x0, ..., m0, ..."""
        layout, mark = self._layout, self._mark
        values = [*(f"x{n}" for n in range(len(layout.last_exprs))), *(f"m{n}" for n in range(len(layout.measures)))]
        selected = f"SELECT kid, v, e, seq, counts, {', '.join(values)} FROM {self._rows.raw}"
        earlier = min(mark.until, until)
        return (
            f"FROM ({selected} WHERE v > {mark.until} AND v <= {until} "
            f"UNION ALL {selected} WHERE v <= {earlier} AND seq > {mark.newest}) ORDER BY kid, v, seq"
        )

    def _is_known(self, held: EntityState) -> bool:
        """Return False for a state that is newer than the mark, of a run that was killed: it may have the rows."""
        return held.position <= self._mark.position and held.landed <= self._mark.landed


class _NewRows:
    """Rows as `Continuation._rows_sql` selects them, without kid.

    Args:
        until: Visible time of the latest rows in stored states.
        floor: Visible time from which rows may be appended.
    """

    def __init__(self, layout: Layout, columns: Columns, until: int, floor: int) -> None:
        visible, events, seqs, counts, *values = columns
        self._windows, self._until, self._floor = bool(layout.windows), until, floor
        if not layout.lasts:
            counts = [False] * len(visible)
        ranks = [seqs] if layout.ranked else []
        self._rows = list(zip(visible, events, counts, *values, *ranks, strict=True))

    def added_to(self, held: EntityState, rows: range) -> bytes | None:
        """Return an entity's state with these rows; `None` if it must be recomputed."""
        state = Grown.of(held.payload, held.position)
        if state is None:
            return None
        floor, newest, standing, size, count, ordered, content = state
        if newest > self._until:
            return None  # of a run that was killed: it has rows that were visible later than the mark's
        least = max(floor, self._floor)
        parts = [content]
        for row in rows:
            visible, event, counts, *values = self._rows[row]
            if visible < least:
                return None  # it belongs in a tile, or before the entity was seen
            if counts:
                if visible <= standing:
                    return None  # those that are visible later may not stand any more
                standing = visible
            elif not self._windows:
                continue
            if visible < newest:
                ordered = False
            else:
                newest = visible
            parts.append(_encode((visible - floor, visible - event, counts, *values)))
        if len(parts) == 1:
            return held.payload
        return grown(floor, newest, standing, size, count + len(parts) - 1, ordered, content=parts)
