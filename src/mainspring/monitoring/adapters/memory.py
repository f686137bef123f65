"""Sketches in memory, for Mainspring's tests and for users' tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from mainspring.core.time import DAY, HOUR
from mainspring.monitoring.hours import FLEET, HourSketch, added
from mainspring.monitoring.ports import Doubt
from mainspring.stats.sketches import Sketch
from mainspring.stats.summaries import Summary


class MemorySketches:
    """`SketchStore` of this process."""

    def __init__(self) -> None:
        self._keys: set[str] = set()
        self._written: list[tuple[int, HourSketch]] = []  # with the position of the write
        self._position = 0
        self._folded_before, self._fold_us = 0, HOUR
        self._doubts: dict[str, Doubt] = {}
        self._recounted: set[tuple[str, int]] = set()

    def add(self, key: str, sketches: Sequence[HourSketch]) -> None:
        if key not in self._keys:
            self._keys.add(key)
            self._write(sketches)

    def hours(self, endpoint: str, since: int, until: int, *, segment: str | None = "") -> list[HourSketch]:
        every = (
            replace(each, hour=self._start(each.hour), segment="" if each.segment == FLEET else each.segment)
            for _, each in self._written
            if each.endpoint == endpoint and since <= self._start(each.hour) < until
        )
        found = [each for each in every if segment in (None, each.segment)]
        return sorted((replace(each, summaries=()) for each in added(found)), key=lambda each: each.key)

    def segments(self, endpoint: str, since: int, until: int) -> list[str]:
        return sorted({each.segment for each in self.hours(endpoint, since, until, segment=None)} - {""})

    def column(self, endpoint: str, column: str, since: int, until: int) -> dict[tuple[str, str], Sketch]:
        found: dict[tuple[str, str], Sketch] = {}
        for each in self.hours(endpoint, since, until):
            if column in each.sketch.columns:
                key, of_column = (each.version, each.digest), each.sketch.select([column])
                found[key] = found[key] + of_column if key in found else of_column
        return found

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
            if each.endpoint == endpoint and (after is None or position > after):
                found[self._start(each.hour)] += each.rows if each.segment in ("", FLEET) else 0
        return self._position, {hour: found[hour] for hour in sorted(found)}

    def started(self) -> bool:
        return bool(self._position or self._doubts)

    def doubt(self, doubt: Doubt) -> None:
        if doubt.key not in self._keys:
            self._keys.add(doubt.key)
            self._doubts[doubt.key] = doubt

    def without_segments(self, endpoint: str, feature: str) -> list[tuple[int, str]]:
        here = [each for _, each in self._written if each.endpoint == endpoint and not each.reason]
        found = {(each.hour, each.digest) for each in here if not each.segment}
        return sorted(found - {(each.hour, each.digest) for each in here if each.segment.startswith(f"{feature}=")})

    def doubts(self) -> list[Doubt]:
        return [self._doubts[key] for key in sorted(self._doubts)]

    def recount(
        self, key: str, since: int, until: int, sketches: Sequence[HourSketch], *, endpoint: str = "", feature: str = ""
    ) -> None:
        def replaced(each: HourSketch) -> bool:
            ours = not feature or (each.endpoint == endpoint and each.segment.startswith(f"{feature}="))
            return ours and since <= each.hour < until and not each.segment.startswith(FLEET)

        self._written = [(at, each) for at, each in self._written if not replaced(each)]
        self._recounted.add((key, since))
        self._write(sketches)

    def recounted(self, key: str, since: int) -> bool:
        return (key, since) in self._recounted

    def forget(self, keys: Sequence[str]) -> None:
        self._doubts = {key: doubt for key, doubt in self._doubts.items() if key not in keys}

    def tidy(
        self,
        *,
        replaced_before: int,  # noqa: ARG002
        entries: int,  # noqa: ARG002
        made_before: int | None = None,
        folded_before: int = 0,
        fold_us: int = DAY,
    ) -> None:
        self._written = [(at, each) for at, each in self._written if made_before is None or each.hour >= made_before]
        self._folded_before, self._fold_us = folded_before // fold_us * fold_us, fold_us

    def _start(self, hour: int) -> int:
        return hour // self._fold_us * self._fold_us if hour < self._folded_before else hour

    def _write(self, sketches: Sequence[HourSketch]) -> None:
        self._position += 1
        self._written += [(self._position, each) for each in sketches]
