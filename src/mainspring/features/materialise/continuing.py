"""Continuation of stored states by the rows that came since, which is all that most batches of a stream need.

A continued state answers as one made anew from all of its entity's rows would, but no row settles in a tile: it grows
until it is made anew.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate, islice
from typing import Any

from mainspring.features.keys import encode_key
from mainspring.features.layout import Layout
from mainspring.features.materialise.rebuild import Built, Columns, batches
from mainspring.features.model import EntityState, Mark
from mainspring.features.ports import OnlineStore
from mainspring.features.state.blobs import SETTLING, Candidates, Open, Recent, distances
from mainspring.features.tilelog.landed import key_columns
from mainspring.features.tilelog.slices import Slice

MOST_ROWS = 100_000  # that are held in memory; with more, states are made anew


class Continuation:
    """Continuation of the states in one slot from its mark on.

    Attributes:
        left: Numbers of the entities whose states must be made anew, and of their rows.
    """

    def __init__(self, con: Any, layout: Layout, rows: Slice, store: OnlineStore, slot: str, mark: Mark) -> None:
        self._con = con
        self._layout = layout
        self._rows = rows
        self._store = store
        self._slot = slot
        self._mark = mark
        self.left: tuple[list[int], list[int]] = [], []

    def states(self, changed: str, until: int, at_once: int) -> Iterator[Built]:
        """Yield the continued states of entities in table `changed` (kid, rows), with their rows visible by `until`.

        Args:
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
        behind = set(late[0])
        ((kids, *columns),) = batches(self._con, self._rows_sql(until), whole=True)
        new = _NewRows(self._layout, columns)
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
                if state is not None and end > start and kid not in behind and self._is_older(state):
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

    def _is_older(self, held: EntityState) -> bool:
        """Return False for a state of a run that was killed: it may have the rows already."""
        return held.position <= self._mark.position and held.landed <= self._mark.landed


class _NewRows:
    """Rows as `Continuation._rows_sql` selects them, without kid."""

    def __init__(self, layout: Layout, columns: Columns) -> None:
        self._visible, self._events, self._seqs, self._counts, *values = columns
        self._lasts, self._measures = values[: len(layout.last_exprs)], values[len(layout.last_exprs) :]
        self._windows, self._ranked = bool(layout.windows), layout.ranked

    def added_to(self, held: EntityState, rows: range) -> bytes | None:
        """Return an entity's state with these rows, in the order of `visible`; `None` if it must be made anew."""
        state = Open.of(held.payload)
        if state is None or self._visible[rows.start] < state.since:
            return None
        if self._lasts:
            records = [row for row in rows if self._counts[row]]
            if records and not self._succeed(state.rows.lasts, records):
                return None
            if not records and not self._windows:
                return held.payload
        if self._windows and not self._append(state.rows.recent, held.position - SETTLING, rows):
            return None
        return state.encode()

    def _succeed(self, standing: Candidates, records: list[int]) -> bool:
        """Add last values; return False if the rows are not visible after all that stand."""
        visible, events = self._visible, self._events
        if not standing.visible or len(standing.values) != len(self._lasts):
            return False
        last = sum(standing.visible)
        if visible[records[0]] <= last:
            return False  # those that are visible later may not stand any more
        for row in records:
            instant = visible[row]
            standing.visible.append(instant - last)
            standing.event.append(instant - events[row])
            for column, values in zip(standing.values, self._lasts):  # noqa: B905  (it costs time)
                column.append(values[row])
            last = instant
        return True

    def _append(self, recent: Recent, floor: int, rows: range) -> bool:
        """Add single rows; return False if one may be visible so early that it belongs in a tile.

        Args:
            floor: Visible time from which no row has settled.
        """
        visible, events, distances = self._visible, self._events, recent.visible
        first, last = visible[rows.start], sum(distances)
        if recent.gone or len(recent.values) != len(self._measures):
            return False
        if first < (min(floor, distances[0]) if distances else floor):
            return False
        if first < last:
            self._insert(recent, rows)
            return True
        for row in rows:
            instant = visible[row]
            distances.append(instant - last)
            recent.event.append(instant - events[row])
            for column, values in zip(recent.values, self._measures):  # noqa: B905  (it costs time)
                column.append(values[row])
            if self._ranked:
                recent.seq.append(self._seqs[row])
            last = instant
        return True

    def _insert(self, recent: Recent, rows: range) -> None:
        """Add single rows of which some are visible before others that are there."""
        instants = list(accumulate(recent.visible))
        for row in rows:
            instant = self._visible[row]
            place = bisect_right(instants, instant)
            instants.insert(place, instant)
            recent.event.insert(place, instant - self._events[row])
            for column, values in zip(recent.values, self._measures, strict=True):
                column.insert(place, values[row])
            if self._ranked:
                recent.seq.insert(place, self._seqs[row])
        recent.visible = distances(instants)
