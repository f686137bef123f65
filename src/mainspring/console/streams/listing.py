"""View models of the list of streams and of one stream: its course over time, and its dead letters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from mainspring.console import formats
from mainspring.console.background_cache import Looking
from mainspring.console.charts import Chart, Line, Table
from mainspring.console.endpoints.service import Slot, slots_of
from mainspring.core.time import DAY, SECOND
from mainspring.data.model import DEAD_LETTERS_SUFFIX
from mainspring.monitoring.incidents.model import Incident
from mainspring.monitoring.service import streams
from mainspring.monitoring.signals import STREAM
from mainspring.operations.streams.reports import StreamReport, dead_letters, listed, shown
from mainspring.project import Project

STATES = {"running": "live", "behind": "drifted", "failing": "alert", "stopped": "late"}  # -> style of its mark
_ORDER = ("failing", "stopped", "behind", "running")
LETTERS = 20

Letters = Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class StreamRow:
    """A stream in the list. `reason` is that of its newest dead letter, None while it is not read yet."""

    stream: StreamReport
    reason: str | None


@dataclass(frozen=True, slots=True)
class StreamPage:
    """One stream. `letters` are its newest dead letters, None while they are not read yet."""

    stream: StreamReport
    incidents: tuple[Incident, ...]
    letters: Letters | None
    charts: tuple[Chart, ...]


def stream_list(project: Project, looking: Looking) -> list[StreamRow]:
    """Return all streams, those that need a person first."""
    rows = []
    for each in sorted(listed(project), key=lambda each: (_ORDER.index(each.state), each.stream)):
        found = newest_letters(project, looking, each) if each.dead_letters else []
        rows.append(StreamRow(each, None if found is None else "".join(row["reason"] for row in found[:1])))
    return rows


def stream_page(project: Project, looking: Looking, name: str) -> StreamPage:
    """Return the page of a stream, with its course over the last day.

    Raises:
        NotFound: There is no such stream.
    """
    found = shown(project, name)
    now = project.wall.now()
    subject = streams.subject(name)
    incidents = [
        each
        for each in project.incidents.open()
        if any(of.channel == STREAM and name in (of.endpoint, of.column) for of in each.symptoms)
    ]
    return StreamPage(
        found,
        tuple(incidents),
        newest_letters(project, looking, found) if found.dead_letters else [],
        _charts(slots_of(project.service.samples(now - DAY, now + 1, [subject]), subject)),
    )


def newest_letters(project: Project, looking: Looking, stream: StreamReport) -> Letters | None:
    """Return the newest dead letters, read once for each version of their table; None while that takes long."""
    key = ("dead letters", stream.stream, project.lake.version(stream.stream + DEAD_LETTERS_SUFFIX))
    return looking.at(key, lambda: dead_letters(project, stream.stream, LETTERS))[1]


def _charts(found: Sequence[Slot]) -> tuple[Chart, ...]:
    if not found:
        return ()

    def peak(name: str) -> Callable[[int], float | None]:
        return lambda n: None if (of := found[n].of) is None else of.peaks.get(name)

    def dead(n: int) -> float | None:
        now, before = peak(streams.DEAD)(n), peak(streams.DEAD)(n - 1) if n else None
        return None if now is None or before is None else max(0.0, now - before)

    def chart(
        id_: str,
        title: str,
        lines: Sequence[tuple[str, Callable[[int], float | None]]],
        write: Callable[[float], str | Markup],
        note: str,
        *,
        kind: str = "lines",
        unit: str = "number",
    ) -> Chart:
        values = [tuple(of(n) for n in range(len(found))) for _, of in lines]
        drawn = [
            Line(name, line, tone) for (name, _), line, tone in zip(lines, values, ("first", "second"), strict=False)
        ]
        rows = tuple(
            (
                formats.span(found[n].start, found[n].end),
                *(formats.missing("not observed") if line[n] is None else write(line[n] or 0.0) for line in values),
            )
            for n in reversed(range(len(found)))
        )
        starts, ends = tuple(slot.start for slot in found), tuple(slot.end for slot in found)
        table = Table(("Time", *(name for name, _ in lines)), rows)
        empty = "It was not observed in this time."
        return Chart(
            id_, title, kind, unit, starts, ends, tuple(drawn), table, note=note, empty=empty, pieces="intervals"
        )

    def seconds(value: float) -> str | Markup:
        return formats.duration(value * SECOND)

    return (
        chart("waiting", "Waiting time", [("seconds", peak(streams.LAG_S))], seconds, "of messages, seconds"),
        chart(
            "freshness", "Freshness", [("p50", peak(streams.FRESH_P50)), ("p99", peak(streams.FRESH_P99))], seconds,
            "from an event to its being readable, or to its output, seconds",
        ),
        chart(
            "lag", "Lag", [("messages", peak(streams.LAG))], lambda value: formats.whole(round(value)),
            "messages that are not processed", unit="count",
        ),
        chart(
            "rate", "Messages a second", [("messages/s", peak(streams.RATE))], lambda value: formats.number(value, 3),
            "processed, the highest of each interval",
        ),
        chart(
            "dead", "Dead letters", [("messages", dead)], lambda value: formats.whole(round(value)),
            "new in each interval", kind="bars", unit="count",
        ),
    )  # fmt: skip
