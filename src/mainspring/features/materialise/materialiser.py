"""Materialisation: bring an online store up to date with the lake.

What the store then holds of an entity is a pure function of the lake's version and of the instant: states are computed
again from tiles and rows, never patched. So a run that died at any step is simply run again, and a row that arrives
late, by any amount, is found by its place in the order of arrival and takes its place in the past.

Where nothing landed, began or ended to count, a process that has not read the source yet advances the instant alone:
reads stay exact, and what has settled meanwhile settles in the states with the next run that looks at the rows.

A view is built whole beside what is served, and swapped in: at first, when it is asked for, when the lake is no longer
what the states were made from, and when the clock turns out to have been ahead.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

from mainspring.core.locks import Locks, MemoryLocks
from mainspring.core.time import Clock
from mainspring.data import duck
from mainspring.data.model import TableScan
from mainspring.data.ports import LakeTables
from mainspring.features.layout import Layout, layout_of, slot
from mainspring.features.materialise.materialisation import Materialisation, Progress
from mainspring.features.model import FeatureView, MaterialiseReport
from mainspring.features.ports import OnlineStore
from mainspring.features.tilelog.lakes import BorrowedLake, TileTables
from mainspring.features.tilelog.slices import Slice

_SLICES_KEPT = 32


class Materialiser:
    """Fills an online store from the lake. Keeps what it loaded for the next run; one run at a time.

    Args:
        lake: Has the sources' tables, and gets the tiles made from them. Or a function that gives the version of a
            source's table to read: then tiles stay in this process.
        store: Online store that receives the states.
        clock: Source of the present time: rows that are not visible yet are never settled.
        locks: Locks that serialise materialisations of one view, across processes.
        memory_limit: Memory that DuckDB may use before it spills to disk.
        entities_at_once: Number of entities' states in this process's memory together, and in one write.
    """

    def __init__(
        self,
        lake: LakeTables | Callable[[str], TableScan],
        store: OnlineStore,
        clock: Clock,
        *,
        locks: Locks | None = None,
        memory_limit: str = "2GB",
        entities_at_once: int = 5_000,
    ) -> None:
        self._lake: TileTables = BorrowedLake(lake) if callable(lake) else lake
        self._store = store
        self._clock = clock
        self._locks = MemoryLocks() if locks is None else locks
        self._memory_limit = memory_limit
        self._at_once = entities_at_once
        self._con: Any = None
        self._slices: OrderedDict[str, tuple[Layout, Slice]] = OrderedDict()
        self._made = 0
        self._lock = threading.Lock()

    def run(
        self, view: FeatureView, *, through: int | None = None, horizon: int = 0, progress: Progress | None = None
    ) -> MaterialiseReport:
        """Materialise what is visible through an instant, and as pending what becomes visible in the time after it.

        Only entities with rows that landed, or became visible, since the last run are computed. Reads are exact from
        `through` less a minute up to `through + horizon`, and later for as long as nothing new becomes visible.

        Args:
            through: UTC epoch microseconds, now by default. A later instant than now is as far a horizon.
            horizon: Microseconds.
            progress: Called with how many entities are done, of how many, and from how many rows.

        Raises:
            Unavailable: The store did not answer; run it again.
            NotFound: The source has no table yet.
            Conflict: Another process built the view's states for too long.
        """
        with self._lock, duck.duck_errors(view.source.name):
            return self._materialisation(view, through, horizon, progress).bring()

    def rebuild(
        self, view: FeatureView, *, through: int | None = None, horizon: int = 0, progress: Progress | None = None
    ) -> MaterialiseReport:
        """Compute the state of every entity again, beside what is served, and put them in its place at once.

        Others may materialise the view meanwhile: what they saw is in the new states too. A rebuild that was killed
        goes on where it was when it is run again. Arguments and errors are those of `run`.
        """
        with self._lock, duck.duck_errors(view.source.name):
            return self._materialisation(view, through, horizon, progress).build(anyway=True)

    def compact(self, view: FeatureView) -> bool:
        """Rewrite a view's log of tiles if it has stale pieces; return whether it had.

        What is left is merged, and no file has the rest any more. A view that was never materialised is left alone.
        """
        with self._lock, duck.duck_errors(view.source.name):
            return self._materialisation(view, None, 0, None).compact()

    def position(self, view: FeatureView) -> int | None:
        """Return the instant through which a view is materialised, `None` where never."""
        return self._store.position(slot(view))

    def close(self) -> None:
        """Release the memory; the next run loads again."""
        with self._lock:
            self._slices.clear()
            if self._con is not None:
                self._con.close()
                self._con = None

    def _materialisation(
        self, view: FeatureView, through: int | None, horizon: int, progress: Progress | None
    ) -> Materialisation:
        layout = layout_of(view)
        return Materialisation(
            lake=self._lake,
            store=self._store,
            locks=self._locks,
            layout=layout,
            open_rows=partial(self._slice, layout),
            opened=layout.slot in self._slices,
            at_once=self._at_once,
            clock=self._clock,
            through=through,
            horizon=horizon,
            progress=progress,
        )

    def _slice(self, layout: Layout) -> Slice:
        if self._con is None:
            self._con = duck.connect(memory_limit=self._memory_limit)
        entry = self._slices.get(layout.slot)
        if entry is not None and entry[0].view.source.columns != layout.view.source.columns:
            self._slices.pop(layout.slot)[1].drop()  # a column became wider, and the slice holds the narrower one
            entry = None
        if entry is None:
            self._made += 1
            new_slice = Slice(self._con, self._lake, self._locks, layout, self._made)
            entry = self._slices[layout.slot] = (layout, new_slice)
            if len(self._slices) > _SLICES_KEPT:
                _, (_, oldest) = self._slices.popitem(last=False)
                oldest.drop()
        self._slices.move_to_end(layout.slot)
        return entry[1]
