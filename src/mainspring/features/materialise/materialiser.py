"""Materialisation: update an online store from the lake.

The state of an entity answers as a pure function of the lake's version and of the instant: it is recomputed from tiles
and rows, or its newest rows are appended to it (features.materialise.continuing) where that is the same. So a run that
died at any step can be repeated, and a late row, by any amount, is found by the order of arrival and inserted into the
past.

If no row landed, and none began or ceased to count, a process that has not read the source yet advances only the
instant: reads stay exact, and the next run that reads rows moves settled rows into tiles.

A view is rebuilt beside the live states and swapped in: at first, on request, when the lake differs from what the
states were made from, and when the clock was ahead.
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
    """Updates an online store from the lake. Loaded data is kept for the next run; one run at a time.

    Args:
        lake: Lake with the sources' tables, which also stores their tiles. Or a function that returns the version of a
            source's table to read; then tiles stay in this process.
        store: Online store that receives the states.
        clock: Source of the current time; rows that are not visible yet are never settled.
        locks: Locks that serialise materialisations of one view, across processes.
        memory_limit: Memory that DuckDB may use before it spills to disk.
        entities_at_once: Number of states in this process's memory at once, and per write.
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
        self,
        view: FeatureView,
        *,
        through: int | None = None,
        horizon: int = 0,
        progress: Progress | None = None,
        gradually: bool = False,
    ) -> MaterialiseReport:
        """Materialise the rows visible through an instant, and as pending the rows that become visible soon after it.

        Only entities with rows that landed or became visible since the last run are computed. Reads are exact from a
        minute before `through` up to `through + horizon`, and later while no new row becomes visible.

        Args:
            through: UTC epoch microseconds, by default now. An instant after now extends the horizon instead.
            horizon: Microseconds.
            progress: Called with (entities done, total entities, rows).
            gradually: Whether entities settle over several runs, none of which then takes long.

        Raises:
            Unavailable: The store did not respond; run it again.
            NotFound: The source has no table yet.
            Conflict: Another process took too long to build the view's states.
        """
        with self._lock, duck.duck_errors(view.source.name):
            return self._materialisation(view, through, horizon, progress, gradually=gradually).bring()

    def rebuild(
        self, view: FeatureView, *, through: int | None = None, horizon: int = 0, progress: Progress | None = None
    ) -> MaterialiseReport:
        """Compute the state of every entity again, beside the live ones, and replace them atomically.

        Others may materialise the view meanwhile: their rows are in the new states too. A killed rebuild resumes when
            it is run again. Arguments and errors are those of `run`.
        """
        with self._lock, duck.duck_errors(view.source.name):
            return self._materialisation(view, through, horizon, progress).build(anyway=True)

    def compact(self, view: FeatureView) -> bool:
        """Rewrite a view's log of tiles if it has stale pieces; return whether it had.

        Valid pieces are merged, and stale ones are dropped. A view that was never materialised is left alone.
        """
        with self._lock, duck.duck_errors(view.source.name):
            return self._materialisation(view, None, 0, None).compact()

    def position(self, view: FeatureView) -> int | None:
        """Return the instant through which a view is materialised, `None` if never."""
        return self._store.position(slot(view))

    def close(self) -> None:
        """Release the memory; the next run loads again."""
        with self._lock:
            self._slices.clear()
            if self._con is not None:
                self._con.close()
                self._con = None

    def _materialisation(
        self,
        view: FeatureView,
        through: int | None,
        horizon: int,
        progress: Progress | None,
        *,
        gradually: bool = False,
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
            gradually=gradually,
        )

    def _slice(self, layout: Layout) -> Slice:
        if self._con is None:
            self._con = duck.connect(memory_limit=self._memory_limit)
        entry = self._slices.get(layout.slot)
        if entry is not None and entry[0].view.source.columns != layout.view.source.columns:
            self._slices.pop(layout.slot)[1].drop()  # a column became wider, but the slice has the narrower type
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
