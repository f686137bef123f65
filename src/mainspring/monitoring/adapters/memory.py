"""Sketches in memory, for Mainspring's tests and for users' tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from mainspring.monitoring.hours import HourSketch, added
from mainspring.monitoring.ports import Doubt
from mainspring.stats.summaries import Summary


class MemorySketches:
    """`SketchStore` of this process."""

    def __init__(self) -> None:
        self._keys: set[str] = set()
        self._written: list[tuple[int, HourSketch]] = []  # with the position of the write
        self._position = 0
        self._doubts: dict[str, Doubt] = {}
        self._recounted: set[tuple[str, int]] = set()

    def add(self, key: str, sketches: Sequence[HourSketch]) -> None:
        if key not in self._keys:
            self._keys.add(key)
            self._write(sketches)

    def hours(self, endpoint: str, since: int, until: int, *, segment: str | None = "") -> list[HourSketch]:
        found = [
            each
            for _, each in self._written
            if each.endpoint == endpoint and since <= each.hour < until and segment in (None, each.segment)
        ]
        return sorted((replace(each, summaries=()) for each in added(found)), key=lambda each: each.key)

    def segments(self, endpoint: str, since: int, until: int) -> list[str]:
        return sorted({each.segment for each in self.hours(endpoint, since, until, segment=None)} - {""})

    def summaries(self, endpoint: str, column: str, since: int, until: int) -> dict[tuple[str, str], Summary]:
        found: dict[tuple[str, str], Summary] = {}
        for _, each in self._written:
            if each.endpoint == endpoint and since <= each.hour < until and each.summaries:
                of_column = dict(zip(each.sketch.columns, each.summaries, strict=True)).get(column)
                if of_column is not None:
                    key = each.version, each.digest
                    found[key] = found[key] + of_column if key in found else of_column
        return found

    def changed(self, endpoint: str, after: int | None = None) -> tuple[int, dict[int, int]]:
        found: Counter[int] = Counter()
        for position, each in self._written:
            if each.endpoint == endpoint and not each.segment and (after is None or position > after):
                found[each.hour] += each.rows
        return self._position, {hour: found[hour] for hour in sorted(found)}

    def started(self) -> bool:
        return bool(self._position or self._doubts)

    def doubt(self, key: str, since: int | None, until: int | None) -> None:
        if key not in self._keys:
            self._keys.add(key)
            self._doubts[key] = Doubt(key, since, until)

    def doubts(self) -> list[Doubt]:
        return [self._doubts[key] for key in sorted(self._doubts)]

    def recount(self, key: str, since: int, until: int, sketches: Sequence[HourSketch]) -> None:
        self._written = [(at, each) for at, each in self._written if not since <= each.hour < until]
        self._recounted.add((key, since))
        self._write(sketches)

    def recounted(self, key: str, since: int) -> bool:
        return (key, since) in self._recounted

    def forget(self, keys: Sequence[str]) -> None:
        self._doubts = {key: doubt for key, doubt in self._doubts.items() if key not in keys}

    def tidy(self, *, replaced_before: int, entries: int) -> None:
        pass

    def _write(self, sketches: Sequence[HourSketch]) -> None:
        self._position += 1
        self._written += [(self._position, each) for each in sketches]
