"""The channels contract, surprise and joint over an endpoint's sketches, judged once for each hour that is complete."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mainspring.core.time import DAY, HOUR, MINUTE
from mainspring.cost.budgets.judging import Standing
from mainspring.monitoring.channels.judging import Judgement, Watched, judge
from mainspring.monitoring.declaring import ALARMS_PER_WEEK
from mainspring.monitoring.hours import HourSketch
from mainspring.monitoring.incidents.model import Judged
from mainspring.monitoring.incidents.silences import Traffic
from mainspring.monitoring.ports import SketchStore
from mainspring.monitoring.served import served
from mainspring.monitoring.signals import CONTRACT, JOINT, SURPRISE, Signal
from mainspring.operations.answer_monitoring import KeptAnswers
from mainspring.operations.attributions import KeptAttributions
from mainspring.operations.collection_monitoring import KeptCollection
from mainspring.operations.separating import KeptSeparations
from mainspring.project import Project

_GRACE_US = 2 * MINUTE  # after an hour, until its predictions are in the store
_HISTORY_US, _SEGMENTS_US = 400 * DAY, 120 * DAY
_HOURLY_US = 16 * DAY  # in which hours are kept as such, as the contract is judged by hour
_JUDGED_US = 8 * DAY  # windows that are judged again in each turn: predictions may be late, and the monitor away
_DAYS_AT_ONCE = 5

Version = tuple[str, str]  # with its digest
Heard = tuple[Sequence[tuple[int, int]], Sequence[Signal]]  # confirmed incidents, dismissed signals
NO_VERDICTS: Heard = ((), ())


@dataclass(slots=True)
class Kept:
    """Sketches of an endpoint, kept between passes: by version, by the start of the hour or day, and by segment."""

    position: int = -1
    until: int = 0
    is_judged: bool = False
    rows: dict[int, int] = field(default_factory=dict)  # hour -> predictions, of the last days
    sketches: dict[Version, dict[tuple[int, str], HourSketch]] = field(default_factory=dict)
    traffic: dict[str, dict[int, tuple[int, float]]] = field(default_factory=dict)  # see Watched
    heard: Heard = NO_VERDICTS
    judged: list[Judged] = field(default_factory=list)
    callers: tuple[int, list[Judged]] | None = None  # of the window that ends then
    budgets: tuple[int, list[Standing]] | None = None  # of the installation, and the turn that they are of
    attributions: KeptAttributions = field(default_factory=KeptAttributions)
    separations: KeptSeparations = field(default_factory=KeptSeparations)
    answers: KeptAnswers = field(default_factory=KeptAnswers)
    collection: KeptCollection = field(default_factory=KeptCollection)


def judged(project: Project, endpoint: str, kept: Kept, *, now: int, verdicts: Heard = NO_VERDICTS) -> list[Judged]:
    """Return the judgement of an endpoint's complete hours and days of the last eight days.

    Args:
        kept: Of the same endpoint, updated; an empty one is filled from the store.
        now: By the domain's clock.
        verdicts: Times of confirmed incidents, and signals that people called false or expected.
    """
    refresh(project, endpoint, kept, now)
    if not kept.is_judged or kept.heard != verdicts:
        kept.judged = _judgements(project, endpoint, kept, verdicts)
        kept.is_judged, kept.heard = True, verdicts
    return kept.judged


def traffic(project: Project, endpoint: str, kept: Kept, *, now: int) -> list[Traffic]:
    """Return the numbers of predictions in the complete hours of the last 16 days, from the first with any."""
    refresh(project, endpoint, kept, now)
    if not kept.rows:
        return []
    return [Traffic(hour, hour + HOUR, kept.rows.get(hour, 0)) for hour in range(min(kept.rows), kept.until, HOUR)]


def refresh(project: Project, endpoint: str, kept: Kept, now: int) -> None:
    """Bring sketches that are kept up to the last complete hour."""
    until = (now - _GRACE_US) // HOUR * HOUR
    position, changed = project.sketches.changed(endpoint, kept.position if kept.until else None)
    late = [hour for hour in changed if hour < min(until, kept.until)] if kept.until else changed
    if kept.until == until and not late:
        kept.position = position
        return
    days = {hour // DAY for hour in late if until - _HISTORY_US <= hour < until}
    if kept.until:
        days |= {*range(kept.until // DAY, (until - 1) // DAY + 1)}
    for first, last in _runs(sorted(days)):
        _load(project.sketches, endpoint, kept, first * DAY, min((last + 1) * DAY, until), until)
    kept.position, kept.until, kept.is_judged = position, until, False
    _forget(kept, until)


def _runs(days: list[int]) -> list[tuple[int, int]]:
    """Return runs of adjacent days, at most `_DAYS_AT_ONCE` long."""
    found: list[tuple[int, int]] = []
    for day in days:
        if found and day == found[-1][1] + 1 and day - found[-1][0] < _DAYS_AT_ONCE:
            found[-1] = found[-1][0], day
        else:
            found.append((day, day))
    return found


def _load(store: SketchStore, endpoint: str, kept: Kept, since: int, until: int, now: int) -> None:
    """Replace the sketches of whole days by those of the store."""
    for known in kept.sketches.values():
        for key in [each for each in known if since <= each[0] < until]:
            del known[key]
    for hour in [each for each in kept.rows if since <= each < until]:
        del kept.rows[hour]
    for counted in kept.traffic.values():
        for day in [each for each in counted if since <= each < until]:
            del counted[day]
    for each in store.hours(endpoint, since, until, segment=None):
        if not each.segment and each.hour >= now - _HOURLY_US:
            hour = each.hour // HOUR * HOUR
            kept.rows[hour] = kept.rows.get(hour, 0) + each.rows
        counted, day = kept.traffic.setdefault(each.segment, {}), each.hour // DAY * DAY
        rows, stands_for = counted.get(day, (0, 0.0))
        counted[day] = rows + int(each.sketch.counts[:, :1].max(initial=0)), stands_for + each.rows / each.share
        if each.sketch.columns or each.pairs is not None:
            known = kept.sketches.setdefault((each.version, each.digest), {})
            _add(known, each, _step(each.hour, each.segment, now))


def _step(hour: int, segment: str, now: int) -> int:
    return HOUR if not segment and hour >= (now - _HOURLY_US) // DAY * DAY else DAY


def _add(known: dict[tuple[int, str], HourSketch], sketch: HourSketch, step: int) -> None:
    key = sketch.hour // step * step, sketch.segment
    known[key] = sketch if key not in known else known[key] + sketch


def _forget(kept: Kept, until: int) -> None:
    """Add up hours that are old, and drop what is too old."""
    kept.rows = {hour: rows for hour, rows in kept.rows.items() if hour >= until - _HOURLY_US}
    kept.traffic = {
        segment: {day: rows for day, rows in counted.items() if day >= until - _HISTORY_US}
        for segment, counted in kept.traffic.items()
    }
    for version, known in list(kept.sketches.items()):
        made: dict[tuple[int, str], HourSketch] = {}
        for (start, segment), sketch in known.items():
            if start >= until - (_SEGMENTS_US if segment else _HISTORY_US):
                _add(made, sketch, _step(start, segment, until))
        if made:
            kept.sketches[version] = made
        else:
            del kept.sketches[version]


def _judgements(project: Project, endpoint: str, kept: Kept, verdicts: Heard) -> list[Judged]:
    until, since = kept.until, kept.until - _JUDGED_US
    monitor = project.definitions.monitors.get(endpoint)
    budget = ALARMS_PER_WEEK if monitor is None else monitor.alarms_per_week
    live = {version: known for version, known in kept.sketches.items() if any(start >= since for start, _ in known)}
    found: list[Judgement] = []
    for (version, digest), known in live.items():
        bundle = served(project.bundles.load(digest))
        if bundle.reference is None:
            continue
        watched = Watched(
            endpoint=endpoint,
            reference=bundle.reference,
            outputs=[bundle.score],
            version=version,
            alarms_per_week=budget,
            incidents=verdicts[0],
            dismissed=verdicts[1],
            traffic=kept.traffic,
        )
        hours = sorted((_at(sketch, start) for (start, _), sketch in known.items()), key=lambda each: each.hour)
        found.append(judge(watched, hours, since=since, until=until))
    hours_judged = tuple(sorted({each for one in found for each in one.hours}))
    days_judged = tuple(sorted({each for one in found for each in one.days}))
    return [
        Judged(
            endpoint,
            channel,
            hours_judged if channel == CONTRACT else days_judged,
            tuple(_once(each for one in found for each in one.signals if each.channel == channel)),
        )
        for channel in (CONTRACT, SURPRISE, JOINT)
    ]


def _once(signals: Iterable[Signal]) -> Iterable[Signal]:
    """Return the signals, with the worst of those that versions say alike, such as of the number of rows."""
    found: dict[tuple[object, ...], Signal] = {}
    for each in signals:
        key = each.statistic, each.column, each.segment, each.version, each.start, each.end
        if key not in found or each.severity > found[key].severity:
            found[key] = each
    return found.values()


def _at(sketch: HourSketch, start: int) -> HourSketch:
    """Return a sketch under the start of its hour or day."""
    if sketch.hour == start:
        return sketch
    return HourSketch(
        sketch.endpoint, sketch.version, sketch.digest, start, sketch.segment, sketch.sketch, sketch.pairs,
        sketch.share, sketch.reason, sketch.rows, sketch.latencies,
    )  # fmt: skip
