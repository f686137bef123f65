"""Materialisation: bring an online store up to date with the lake.

What the store then holds of an entity is a pure function of the lake's version and of the instant: states are computed
again from the rows, never patched. So a run that died at any step is simply run again, and a row that arrives late, by
any amount, is found by its place in the order of arrival and takes its place in the past.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from mainspring.core.time import Clock
from mainspring.data import duck
from mainspring.data.model import TableScan
from mainspring.features.layout import Layout, slot
from mainspring.features.model import EntityState, FeatureView, Mark, MaterialiseReport
from mainspring.features.ports import OnlineStore
from mainspring.features.rebuild import rebuild
from mainspring.features.slices import Slice
from mainspring.features.state import SETTLING, State, encode

_SLICES_KEPT = 32


class Materialiser:
    """Fills an online store from the lake. Keeps what it loaded for the next run; one run at a time.

    Args:
        scan: Gives the version of a source's table to read, by the source's name.
        store: Where the states go.
        clock: What time it is: nothing that is not knowable yet is settled.
        memory_limit: What DuckDB may use before it spills to disk.
        entities_at_once: How many entities' states are in this process's memory together, and in one write.
    """

    def __init__(
        self,
        scan: Callable[[str], TableScan],
        store: OnlineStore,
        clock: Clock,
        *,
        memory_limit: str = "2GB",
        entities_at_once: int = 5_000,
    ) -> None:
        self._scan = scan
        self._store = store
        self._clock = clock
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
        progress: Callable[[int, int], None] | None = None,
    ) -> MaterialiseReport:
        """Materialise what is visible through an instant, and as pending what becomes visible in the time after it.

        Only entities with rows that landed, or became visible, since the last run are computed. Reads are exact from
        `through` less a minute up to `through + horizon`, and later for as long as nothing new becomes visible.

        Args:
            through: UTC epoch microseconds, now by default. A later instant than now is as far a horizon.
            horizon: Microseconds.
            progress: Called with how many entities are done, of how many.

        Raises:
            Unavailable: The store did not answer; run it again.
            NotFound: The source has no table yet.
        """
        with self._lock, duck.duck_errors(view.source.name):
            layout, rows = self._slice(view)
            rows.refresh(self._scan(view.source.name))
            now = self._clock.now()
            wanted = now if through is None else through
            mark = self._store.mark(layout.slot)
            before = 0 if mark is None else rows.landed_by(mark.newest)
            if mark is not None and before < mark.landed:
                # The lake went back to an earlier version: what came after it must not be served.
                self._store.clear(layout.slot)
                mark = None
            position = min(wanted, now) if mark is None else max(min(wanted, now), mark.position)
            until = max(position, wanted) + horizon
            if mark is not None:
                until = max(until, mark.until)  # what is pending stays so
            new = Mark(position, rows.landed, rows.newest, until)
            # The rest of an ingestion that was cut short lands with older numbers: then any entity may have changed.
            known = mark if mark is not None and before == mark.landed else None
            changed, count = self._changed(rows, known, until)
            if progress is not None:
                progress(0, changed)
            for start in range(0, changed, self._at_once):
                states = self._chunk(layout, rows, start, position - SETTLING, until)
                self._store.write(
                    layout.slot, [(key, EntityState(position, encode(state), rows.landed)) for key, state in states]
                )
                if progress is not None:
                    progress(min(start + self._at_once, changed), changed)
            self._store.advance(layout.slot, new)
            return MaterialiseReport(view.name, position, changed, count)

    def position(self, view: FeatureView) -> int | None:
        """Return the instant through which a view is materialised, `None` where never."""
        return self._store.position(slot(view))

    def forget(self, view: FeatureView) -> None:
        """Clear what is stored of the view. The next run computes every entity again; until then all are missing."""
        with self._lock:
            self._store.clear(Layout(view).slot)

    def close(self) -> None:
        """Give back the memory; the next run loads again."""
        with self._lock:
            self._slices.clear()
            if self._con is not None:
                self._con.close()
                self._con = None

    def _slice(self, view: FeatureView) -> tuple[Layout, Slice]:
        if self._con is None:
            self._con = duck.connect(memory_limit=self._memory_limit)
        layout = Layout(view)
        held = self._slices.get(layout.slot)
        if held is None:
            self._made += 1
            held = self._slices[layout.slot] = (layout, Slice(self._con, layout, self._made))
            if len(self._slices) > _SLICES_KEPT:
                _, (_, oldest) = self._slices.popitem(last=False)
                oldest.drop()
        self._slices.move_to_end(layout.slot)
        return held

    def _chunk(
        self, layout: Layout, rows: Slice, start: int, settled: int, until: int
    ) -> Iterator[tuple[bytes, State]]:
        self._con.execute(
            "CREATE OR REPLACE TEMP VIEW chunk AS SELECT kid FROM changed "
            f"WHERE place > {start} AND place <= {start + self._at_once}"
        )
        return rebuild(self._con, layout, rows, settled, until)

    def _changed(self, rows: Slice, mark: Mark | None, until: int) -> tuple[int, int]:
        """Make table `changed` (place, kid) of the entities whose state may differ from what is stored."""
        since = "" if mark is None else f"AND (v >= {mark.position - SETTLING} OR seq > {mark.newest})"
        self._con.execute(
            "CREATE OR REPLACE TEMP TABLE changed AS SELECT row_number() OVER (ORDER BY kid) AS place, kid, rows "
            f"FROM (SELECT kid, count(*) AS rows FROM {rows.rows} WHERE v <= {until} {since} GROUP BY kid)"
        )
        found = self._con.execute("SELECT count(*), coalesce(sum(rows), 0) FROM changed").fetchone()
        return int(found[0]), int(found[1])
