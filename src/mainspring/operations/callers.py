"""Callers of an endpoint by what they asked for, from the prediction log: how much, and how unlike the others."""

from __future__ import annotations

from collections import defaultdict
from heapq import heappush, heapreplace
from typing import NamedTuple

import msgspec

from mainspring.core.errors import NotFound
from mainspring.core.time import DAY, parse_duration
from mainspring.ledger.key_sample import key_hash
from mainspring.ledger.model import Prediction, Selection, Value
from mainspring.monitoring.incidents.model import Judged
from mainspring.monitoring.signals import CALLERS, Signal
from mainspring.operations.endpoint_health import endpoints
from mainspring.operations.quotas import names_of
from mainspring.project import Project
from mainspring.stats.extraction import MOST_CALLERS, UNLIKE, Likeness, Queries, likeness

WINDOW_US = DAY
_MOST_ROWS = 1_000  # of a caller: of these the distinct ones are compared
_HALF = 0.5
RESTRICTED = {"labels": "labels alone", "refuse": "no answers"}  # in words


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Queries of one key or workload.

    Attributes:
        who: Name of the key or account; its id if it is gone.
        rows: Logged predictions for it. `share`: of all of the endpoint.
        distinct: Compared rows, without those that vary an earlier one in few features; 0 beyond the largest callers.
        distance: Mean share of other callers' rows that are nearer to their nearest neighbour than its rows to theirs:
            0.5 where they are alike, up to 1; null if too few rows or callers can be compared.
        unlike: Whether its rows are unlike all others', as those of who copies the model without natural rows are.
        restricted: What an incident restricts it to now: "labels" or "refuse"; empty if none does.
    """

    who: str
    id: str
    rows: int
    share: float
    distinct: int
    distance: float | None
    unlike: bool
    restricted: str = ""


class _Drawn(NamedTuple):
    """A prediction with its place among all of its caller: the same at each look at the same log."""

    place: int
    id: str
    prediction: Prediction


def _id(drawn: _Drawn) -> str:
    return drawn.id


def callers(project: Project, endpoint: str, since: int, until: int) -> list[Caller]:
    """Return an endpoint's callers within a time, the most unlike first, then by their rows.

    Raises:
        NotFound: There is no such endpoint.
    """
    if endpoint not in endpoints(project):
        raise NotFound(f"There is no endpoint {endpoint!r}.", fix="run `mainspring endpoints list`.")
    counted: defaultdict[str, int] = defaultdict(int)
    kept: defaultdict[str, list[_Drawn]] = defaultdict(list)
    for part in project.predictions.scan(Selection(endpoint=endpoint, since=since, until=until)):
        for each in part:
            counted[each.principal] += 1
            drawn, of = _Drawn(-key_hash(each.id), each.id, each), kept[each.principal]
            if len(of) < _MOST_ROWS:
                heappush(of, drawn)
            elif drawn > of[0]:
                heapreplace(of, drawn)
    # Twice as many as are judged: some have too few distinct rows.
    largest = sorted(counted, key=lambda who: (-counted[who], who))[: 2 * MOST_CALLERS]
    asked = {who: _queries([each.prediction for each in sorted(kept[who], key=_id)]) for who in largest}
    compared, names, rows = likeness(asked), names_of(project), sum(counted.values())
    found = {who: compared.get(who, Likeness(0)) for who in counted}
    restricted = restricted_callers(project, endpoint)
    listed = [
        Caller(
            who=names.get(id, id), id=id, rows=number, share=round(number / rows, 4), distinct=found[id].distinct,
            distance=found[id].distance, unlike=found[id].unlike, restricted=restricted.get(id, ""),
        )
        for id, number in counted.items()
    ]  # fmt: skip
    return sorted(listed, key=lambda each: (not each.unlike, -each.rows, each.id))


def restricted_callers(project: Project, endpoint: str) -> dict[str, str]:
    """Return what callers get whom incidents restrict, by their ids, as the gateways have it."""
    route = project.routes.current().get(endpoint)
    return {} if route is None else {each.caller: each.to for each in route.restricted}


def judged(project: Project, endpoint: str, end: int) -> list[Judged]:
    """Return the judgement of the time before an instant, if the endpoint's monitor asks for it."""
    monitor = project.definitions.monitors.get(endpoint)
    if monitor is None or monitor.extraction is None:
        return []
    length = parse_duration(monitor.extraction)
    found = callers(project, endpoint, end - length, end)
    if all(each.distance is None for each in found):
        return []
    signals = tuple(
        Signal(
            channel=CALLERS, endpoint=endpoint, statistic="unlike others", column=each.who, caller=each.id,
            start=end - length, end=end, severity=each.distance / UNLIKE, value=each.distance, expected=_HALF,
            detail=f"{each.who} asked for {each.rows:,} rows; {each.distinct:,} distinct ones were compared, and are "
            "unlike those of all other callers, as those of somebody who copies the model are.",
        )
        for each in found
        if each.unlike and each.distance is not None
    )  # fmt: skip
    return [Judged(endpoint, CALLERS, ((end - length, end),), signals)]


def _queries(predictions: list[Prediction]) -> Queries:
    names = sorted({name for each in predictions for name in each.features})
    return Queries(
        {name: [each.features.get(name) for each in predictions] for name in names},
        [_class(each.outputs) for each in predictions],
    )


def _class(outputs: dict[str, Value | list[float]]) -> str:
    """Return a class that stands for an answer: the largest of several numbers, the side of 0.5 of a probability."""
    if len(outputs) == 1 and isinstance(only := next(iter(outputs.values())), list):
        outputs = {str(place): value for place, value in enumerate(only)}
    numbers = {name: float(value) for name, value in outputs.items() if isinstance(value, (int, float))}
    if len(numbers) > 1:
        return max(numbers, key=lambda name: numbers[name])
    return str(next(iter(numbers.values()), 0.0) >= _HALF)
