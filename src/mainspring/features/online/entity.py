"""The online read of a view: states and an instant in, the features' values and statuses out."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from mainspring.features.layout import Layout
from mainspring.features.model import Status
from mainspring.features.online.windows import Head, WindowReader
from mainspring.features.state.blobs import Candidates, State, damaged, decode, decode_flat
from mainspring.features.types import default_of

PRESENT, NULL, EXPIRED, MISSING = (
    status.value for status in (Status.PRESENT, Status.NULL, Status.EXPIRED, Status.MISSING)
)
Read = tuple[list[Any], list[str]]  # values and statuses, in the order of the view's features
Columns = tuple[dict[str, list[Any]], dict[str, list[str]]]  # the same of many entities, by full name


class EntityReader:
    """Reads the states of one view."""

    def __init__(self, layout: Layout) -> None:
        self._slot = layout.slot
        self._flat = not layout.windows
        self._ttl = min((last.ttl for last in layout.lasts if last.ttl is not None), default=None)
        order = {name: place for place, name in enumerate(layout.view.features)}
        self._count = len(order)
        self._names = [f"{layout.view.name}.{name}" for name in order]
        self._lasts = [(order[last.name], last) for last in layout.lasts]
        self._windows = [
            WindowReader(layout, width, order) for width in sorted({feature.window for feature in layout.windows})
        ]
        self._missing: Read = self._nothing(order, layout)

    def columns(self, payloads: Sequence[bytes | None], now: int) -> Columns:
        """Return the features of many entities at `now`. Lists may be shared: they are to be read.

        Raises:
            Corrupt: A payload is no state of this view.
        """
        if self._flat and (found := self._all_present(payloads, now)) is not None:
            return found
        reads = [self.read(None if payload is None else decode(payload, self._slot), now) for payload in payloads]
        if not reads:
            return {name: [] for name in self._names}, {name: [] for name in self._names}
        if len(reads) == 1:
            ((one, of_one),) = reads
            return self._by_name([value] for value in one), self._by_name([status] for status in of_one)
        values, statuses = zip(*reads)  # noqa: B905  (it costs time)
        return self._by_name(map(list, zip(*values))), self._by_name(map(list, zip(*statuses)))  # noqa: B905

    def _present(self, rows: int) -> dict[str, list[str]]:
        """Return PRESENT everywhere, in one list."""
        present = [PRESENT] * rows
        return dict.fromkeys(self._names, present)

    def _by_name(self, columns: Iterable[list[Any]]) -> dict[str, list[Any]]:
        return dict(zip(self._names, columns))  # noqa: B905  (it costs time)

    def _all_present(self, payloads: Sequence[bytes | None], now: int) -> Columns | None:
        """Return the columns where every state is flat, and every value in it present; else nothing."""
        try:
            if len(payloads) == 1:
                since, _, event, null, *row = decode_flat(payloads[0])  # type: ignore[arg-type]
                if (
                    since > now
                    or null
                    or len(row) != self._count
                    or (self._ttl is not None and now - event > self._ttl)
                ):
                    return None
                found = {name: [value] for name, value in zip(self._names, row)}  # noqa: B905  (it costs time)
                return found, self._present(1)
            rows = map(decode_flat, payloads)  # type: ignore[arg-type]  # null is a TypeError
            sinces, _, events, nulls, *values = zip(*rows, strict=True)
            if (
                max(sinces) > now
                or any(nulls)
                or len(values) != self._count
                or (self._ttl is not None and now - min(events) > self._ttl)
            ):
                return None
        except (TypeError, ValueError, msgspec.MsgspecError):
            return None
        return self._by_name(map(list, values)), self._present(len(payloads))

    def read(self, state: State | None, now: int) -> Read:
        """Return the features at `now`, exactly, if `now` is not before the state's position less `SETTLING`."""
        if state is None or now < state.since:
            return self._missing
        values: list[Any] = [None] * self._count
        statuses = [NULL] * self._count
        try:
            if self._lasts:
                self._read_lasts(state.lasts, now, values, statuses)
            if self._windows:
                head = Head(state.recent, now)
                for window in self._windows:
                    window.read(state, head, now, values, statuses)
        except (IndexError, TypeError, ValueError, AttributeError) as error:
            raise damaged(self._slot, f"it is another view's, or broken ({error})") from error
        return values, statuses

    def _read_lasts(self, rows: Candidates, now: int, values: list[Any], statuses: list[str]) -> None:
        row = bisect_right(rows.visible, now) - 1
        age = now - rows.event[row]
        for place, last in self._lasts:
            if last.ttl is not None and age > last.ttl:
                statuses[place] = EXPIRED
            else:
                value = rows.values[last.column][row]
                if value is not None:
                    values[place] = value
                    statuses[place] = PRESENT

    def _nothing(self, order: dict[str, int], layout: Layout) -> Read:
        values: list[Any] = [None] * len(order)
        for feature in layout.windows:
            values[order[feature.name]] = default_of(layout.view, feature.name)
        return values, [MISSING] * len(order)
