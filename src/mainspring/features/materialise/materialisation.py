"""One materialisation of one view: update its states, or rebuild them beside the live ones.

A rebuild writes states to a separate slot until they are complete. Then, under a lock against other updates of the live
states, they catch up with the changes made meanwhile, and replace the live states atomically.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import msgspec

from mainspring.core.errors import Conflict
from mainspring.core.locks import Locks
from mainspring.core.time import Clock
from mainspring.data import duck
from mainspring.data.model import TableScan
from mainspring.features.layout import Layout
from mainspring.features.materialise.continuing import MOST_ROWS, Continuation
from mainspring.features.materialise.provenance import Ledger, read_ledger
from mainspring.features.materialise.rebuild import Built, Rebuild
from mainspring.features.model import EntityState, Mark, MaterialiseReport
from mainspring.features.ports import OnlineStore
from mainspring.features.state.blobs import SETTLING
from mainspring.features.tilelog.lakes import TileTables
from mainspring.features.tilelog.landed import content_digest, key_columns
from mainspring.features.tilelog.rows import BEHIND, tiles_table
from mainspring.features.tilelog.slices import Settling, Slice

Progress = Callable[[int, int, int], None]  # entities done, total entities, rows

BUILDING = "~"  # suffix of a slot's name: the slot of its next states
# A mark further ahead of the clock than this was made by a wrong clock, or by a replay.
CLOCK_BACK = BEHIND
LARGE_STATE = 1_000_000  # bytes
_LONG_UNSETTLED = 4 * SETTLING
_WAIT_S = 600.0
_TRIES = 3


class Changes(NamedTuple):
    """Rows that may change states: those that began or ceased to count at `since` or later, and those that landed with
    a `_seq` over `newest`.
    """

    since: int
    newest: int


@dataclass
class Materialisation:
    """Inputs and progress of one run. See `features.materialise.materialiser.Materialiser`.

    Args:
        open_rows: Returns the rows of the view's source, which are read on their first refresh.
        opened: True if this process has read them before.
        through: The instant to materialise through, UTC epoch microseconds; `None`: now, whenever that is.
    """

    lake: TileTables
    store: OnlineStore
    locks: Locks
    layout: Layout
    open_rows: Callable[[], Slice]
    opened: bool
    at_once: int
    clock: Clock
    through: int | None
    horizon: int
    progress: Progress | None
    gradually: bool = False
    entities: int = 0
    counted: int = 0  # rows
    largest: int = 0  # bytes
    started: float = field(default_factory=time.monotonic)
    settled: int = 0  # instant through which the states had settled before
    now: int = field(init=False)
    wanted: int = field(init=False)

    def __post_init__(self) -> None:
        self._look()

    def _look(self) -> None:
        """Read the clock. Call it again after a wait for a lock; otherwise the other run's mark lies in the future."""
        self.now = self.clock.now()
        self.wanted = self.now if self.through is None else self.through

    @contextmanager
    def _served_alone(self) -> Iterator[None]:
        """Lock out other updates of the live states."""
        with self._hold("states"):
            self._look()
            yield

    @cached_property
    def rows(self) -> Slice:
        return self.open_rows()

    @property
    def con(self) -> Any:
        return self.rows.con

    @property
    def slot(self) -> str:
        return self.layout.slot

    @property
    def shadow(self) -> str:
        return self.slot + BUILDING

    def _hold(self, what: str) -> AbstractContextManager[None]:
        return self.locks.hold(f"{what}.{tiles_table(self.slot)}", wait_s=_WAIT_S)

    def bring(self) -> MaterialiseReport:
        """Update the live states incrementally; if that is impossible, rebuild them."""
        with self._served_alone():
            mark = None if self.opened else self._pass_time()
            if mark is not None:
                return self._report(mark)
            mark = self._increment(self.slot)
        if mark is None:
            return self.build()
        self.rows.trim(self.settled - SETTLING)
        return self._report(mark)

    def build(self, *, anyway: bool = False) -> MaterialiseReport:
        """Rebuild the states and swap them in, unless another process just has; `anyway` rebuilds in any case."""
        with self._hold("build"):
            if not anyway:
                with self._served_alone():
                    mark = self._increment(self.slot)
                if mark is not None:
                    return self._report(mark)
            for _ in range(_TRIES):
                if self.store.mark(self.shadow) is None:
                    self._look()
                    self._fill()
                filled = self.entities, self.counted
                with self._served_alone():
                    mark = self._catch_up()
                    self.entities, self.counted = filled
                    if mark is not None:
                        self.store.swap(self.slot, self.shadow)
                        return self._report(mark)
                self.store.clear(self.shadow)  # left by an earlier build from a lake that was replaced
        raise Conflict(f"The data of {self.layout.view.source.name} was replaced during the read.", retryable=True)

    def _pass_time(self) -> Mark | None:
        """Advance the mark without reading rows, over a time in which no row landed, and none began or ceased to count.

        Returns:
            `None`, with nothing done, if one did or this cannot be known without the rows.
        """
        mark, ledger = self._served(), read_ledger(self.store, self.slot)
        if mark is None or ledger is None or (ledger.newest, ledger.rows) != (mark.newest, mark.landed):
            return None
        new = self._moved(mark)
        if new.until >= ledger.changes or not self._holds(ledger):
            return None
        if new != mark:
            self.store.advance(self.slot, new)
        return new

    def _moved(self, mark: Mark, *others: Mark) -> Mark:
        """Return the mark with the rows of `mark`, advanced to the wanted instant but not behind `others`."""
        marks = mark, *others
        position = max(min(self.wanted, self.now), *(other.position for other in marks))
        until = max(max(position, self.wanted) + self.horizon, *(other.until for other in marks))
        return replace(mark, position=position, until=until)

    def _ledger(self, scan: TableScan, position: int, until: int) -> Ledger:
        """Return the ledger of states made from the refreshed rows."""
        rows, content = self.rows, self.rows.content
        return Ledger(
            rows.newest, content.rows, content.digest, position, until, source=self._source(scan.version),
            changes=rows.changes_after(until), tiles=rows.whole_log,
        )  # fmt: skip

    def _holds(self, ledger: Ledger) -> bool:
        """Return whether the source still matches a ledger; its rows are not read."""
        return ledger.source != b"" and ledger.source == self._source()

    def _source(self, version: int | None = None) -> bytes:
        """Return the digest of the source's newest version; empty if that is not `version`, or unknown to the lake."""
        known = self.lake.describe(self.layout.view.source.name)
        if known is None or version not in (None, known.version):
            return b""
        return content_digest(self.layout, known)

    def compact(self) -> bool:
        """Rewrite the log of tiles if it has stale pieces; return whether it had."""
        table = tiles_table(self.slot)
        mark = self.store.mark(self.slot)
        if mark is None or self._ahead(mark) or self.lake.version(table) is None:
            return False
        ledger = read_ledger(self.store, self.slot)
        if not self.opened and ledger is not None and ledger.tiles == self.lake.version(table) and self._holds(ledger):
            return False
        scan = self.lake.scan(self.layout.view.source.name)
        self.rows.refresh(scan, since=_settled(mark, ledger).position - SETTLING, heard=mark.newest)
        if not self.rows.compact():
            return False
        self.lake.vacuum(table, [])
        return True

    def _catch_up(self) -> Mark | None:
        """Advance new states to the live ones' mark; `None` if they were built from a lake that was replaced since."""
        progress, self.progress = self.progress, None
        try:
            return self._increment(self.shadow, self._served())
        finally:
            self.progress = progress

    def _served(self) -> Mark | None:
        """Return the mark of the live states, which new states must reach."""
        mark = self.store.mark(self.slot)
        return None if mark is None or self._ahead(mark) else mark

    def _ahead(self, mark: Mark) -> bool:
        return mark.position - self.now > CLOCK_BACK

    def _increment(self, target: str, floor: Mark | None = None) -> Mark | None:
        """Update the states of a slot; return `None`, with nothing done, if they must be rebuilt."""
        scan = self.lake.scan(self.layout.view.source.name)
        mark = self.store.mark(target)
        if mark is None or self._ahead(mark):
            return None
        ledger = read_ledger(self.store, target)
        since = _settled(mark, ledger)
        self.settled = since.position
        self.rows.refresh(scan, since=since.position - SETTLING, heard=mark.newest)
        before = self.rows.content_up_to(mark.newest, scan)
        if before.rows != mark.landed:
            return None  # the lake was restored, or an interrupted ingestion was completed
        if ledger is not None and ledger.newest == mark.newest and ledger.digest != before.digest:
            return None  # other rows have replaced the ones that were read
        moved = self._moved(*([mark] if floor is None else [mark, floor]))
        new = self._ledger(scan, moved.position, moved.until)
        if mark == new.mark:
            return mark
        known = ledger is not None and new == msgspec.structs.replace(ledger, position=new.position, until=new.until)
        # Rows settle in their tiles once in a while: between, a stream's batch costs as much as it has entities.
        unsettled = new.position - since.position
        settling = ledger is None or self.rows.versions or unsettled >= SETTLING
        some = self.gradually and ledger is not None and not self.rows.versions and target == self.slot
        some = some and settling and unsettled < _LONG_UNSETTLED
        if settling and not some:
            changes, settled, held = Changes(since.position - SETTLING, mark.newest), new.position, None
        else:
            changes, settled, held = Changes(mark.until + 1, mark.newest), since.position, mark
        self._write(target, new, changes, settled, record=not known, settling=some, held=held)
        self.store.advance(target, new.mark)
        return new.mark

    def _fill(self) -> None:
        """Build the state of every entity beside the live ones, or resume that."""
        scan = self.lake.scan(self.layout.view.source.name)
        ledger = read_ledger(self.store, self.shadow)
        after = 0
        if ledger is not None and not self._ahead(ledger.mark):
            self._refresh_ordered(scan, ledger.position, ledger.newest)
            if self.rows.content_up_to(ledger.newest, scan) == ledger.content:
                after = self._place(ledger.done)
        if not after:
            self.store.clear(self.shadow)
            position = min(self.wanted, self.now)
            until = max(position, self.wanted) + self.horizon
            self._refresh_ordered(scan, position, None)
            ledger = self._ledger(scan, position, until)
        assert ledger is not None
        self._write(self.shadow, ledger, None, ledger.position, record=True, after=after)
        self.store.advance(self.shadow, ledger.mark)

    def _refresh_ordered(self, scan: TableScan, position: int, heard: int | None) -> None:
        """Refresh the slice with entities numbered in the order of their keys, so that a build can resume."""
        if not self.rows.ordered:
            self.rows.forget()
        self.rows.refresh(scan, since=position - SETTLING, heard=heard)
        if not self.rows.ordered:
            self.rows.forget()
            self.rows.refresh(scan, since=position - SETTLING, heard=heard)

    def _place(self, key: bytes) -> int:
        """Return the number of the entity with this key; 0 if there is none."""
        if not key:
            return 0
        same = " AND ".join(f"{name} = ?" for name in key_columns(self.layout))
        query = f"SELECT kid FROM {self.rows.entities} WHERE {same}"
        found = self.con.execute(query, msgspec.msgpack.decode(key)).fetchall()
        return int(found[0][0]) if found else 0

    def _write(
        self,
        target: str,
        ledger: Ledger,
        changes: Changes | None,
        settled: int,
        *,
        record: bool,
        after: int = 0,
        settling: bool = False,
        held: Mark | None = None,
    ) -> None:
        """Write the states of the entities with a number over `after` that changed, or of all; then the ledger, with
        the position up to which all have settled.

        Args:
            settling: Whether to settle some more entities than those that changed.
            held: The mark of the stored states, if they may be continued.
        """
        changed, total = self._changed(changes, ledger.until, after)
        self._tell(0, total, 0)
        batch: list[tuple[bytes, EntityState]] = []
        done = counted = 0

        def add(built: Built) -> None:
            nonlocal batch, done, counted
            if len(batch) == self.at_once:
                if changes is None:
                    batch.append(ledger.row(batch[-1][0]))
                self.store.write(target, batch)
                batch = []
                self._tell(done, total, counted)
            batch.append((built.key, EntityState(ledger.position, built.payload, ledger.rows)))
            done += 1
            counted += built.rows
            self.largest = max(self.largest, len(built.payload))

        left = total
        if held is not None and total and self._are_few(changed) and not self.rows.versions:
            continuation = Continuation(self.con, self.layout, self.rows, self.store, target, held)
            for built in continuation.states(changed, ledger.position, ledger.until, self.at_once):
                add(built)
            left = len(continuation.left[0])
            made = "SELECT unnest(?::BIGINT[]) AS kid, unnest(?::BIGINT[]) AS rows"
            self.con.execute(f"CREATE OR REPLACE TABLE {changed} AS {made}", continuation.left)
        now: Settling | None = None
        if settling:
            more, now = self.rows.settle_some(changed, settled, ledger.position, ledger.until)
            total, left = total + more, left + more
            settled = settled if len(now.left) else now.position
        if left:
            states = Rebuild(self.con, self.layout, self.rows, ledger.position - SETTLING, ledger.until)
            for built in states.states(changed, whole=left <= self.at_once):
                add(built)
        if record or done:
            batch.append(msgspec.structs.replace(ledger, position=settled).row())
        if batch:
            self.store.write(target, batch)
        self.rows.settling = now
        self.entities += done
        self.counted += counted
        if total:
            self._tell(done, total, counted)

    def _are_few(self, changed: str) -> bool:
        """Return whether the new rows of the entities in table `changed` may all be held in memory."""
        return bool(duck.one_row(self.con, f"SELECT sum(rows) <= {MOST_ROWS} FROM {changed}")[0])

    def _changed(self, changes: Changes | None, until: int, after: int) -> tuple[str, int]:
        """Create a table (kid, rows) of the entities whose state may differ from the stored one; return its name and
        size.
        """
        name, rows = f"changed_{self.rows.number}", self.rows
        if changes is None:
            found = (
                f"SELECT kid, counted - coalesce(later, 0) AS rows FROM {rows.entities} LEFT JOIN ("
                f"SELECT kid, count(*) AS later FROM {rows.raw} WHERE v > {until} GROUP BY kid) USING (kid) "
                f"WHERE since <= {until} AND kid > {after}"
            )
        else:
            # One range for each part: blocks outside it are skipped, as rows came in order of both.
            earlier = min(changes.since, until + 1)
            found = (
                f"SELECT kid, count(*) AS rows FROM (SELECT kid FROM {rows.raw} WHERE v <= {until} "
                f"AND v >= {changes.since} UNION ALL SELECT kid FROM {rows.raw} WHERE v < {earlier} "
                f"AND seq > {changes.newest} UNION ALL SELECT kid FROM {rows.arrived} "
                f"WHERE seq > {changes.newest} {self._ended(changes, until)}) GROUP BY kid"
            )
        return name, int(duck.one_row(self.con, f"CREATE OR REPLACE TABLE {name} AS {found}")[0])

    def _ended(self, changes: Changes, until: int) -> str:
        """Return a part of a union: the entities of superseded rows that began or ceased to count."""
        if not self.rows.versions:
            return ""
        return (
            f"UNION ALL SELECT kid FROM {self.rows.mortals} WHERE g <= {until} AND g >= {changes.since} "
            f"OR v <= {until} AND (v >= {changes.since} OR seq > {changes.newest})"
        )

    def _tell(self, done: int, total: int, rows: int) -> None:
        if self.progress is not None:
            self.progress(done, total, rows)

    def _report(self, mark: Mark) -> MaterialiseReport:
        view = self.layout.view.name
        warnings: tuple[str, ...] = ()
        if self.largest > LARGE_STATE:
            warnings = (
                (
                    f"The largest state of {view} has {self.largest:,} bytes; each read of its entity transfers all "
                    "of them."
                ),
            )
        return MaterialiseReport(
            view, mark.position, self.entities, self.counted, time.monotonic() - self.started, self.largest, warnings
        )


def _settled(mark: Mark, ledger: Ledger | None) -> Mark:
    """Return a mark at the instant through which states had settled when they were last written."""
    return mark if ledger is None else replace(mark, position=min(mark.position, ledger.position))
