"""Grouping of signals by their probable cause, through the lineage of columns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import msgspec

from mainspring.monitoring.channels.statistics import ROWS
from mainspring.monitoring.incidents.model import Cause
from mainspring.monitoring.signals import AUDIT, BUDGET, CALLERS, FLEET, HARM, JOINT, SERVICE, SILENCE, STREAM, Signal
from mainspring.stats.segmenting import AND

PREDICTIONS, LABELS, MONITOR = "predictions", "labels", "monitor"  # statistics of the channel of silence
_LONGEST_NAME = 200
_MOST_SEGMENTS = 3  # that are told one by one
_FEWEST = 2  # columns that make a common cause
_SHARE = 0.5  # of the columns that an endpoint reads from it
_EVERY_ENDPOINT = Cause(kind="traffic", name="of every endpoint", key="traffic:")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a column comes from: its group of features, and the source; request features have no source."""

    group: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class Lineage:
    """Origins of the columns of each endpoint, and the sources of its labels.

    A column that is not in it, such as the score, is its own cause.
    """

    columns: Mapping[str, Mapping[str, Origin]] = field(default_factory=dict)  # endpoint -> column -> origin
    labels: Mapping[str, str] = field(default_factory=dict)  # endpoint -> source of its label


@dataclass(frozen=True, slots=True)
class Group:
    """Signals with one cause."""

    cause: Cause
    signals: tuple[Signal, ...]


def grouped(signals: Sequence[Signal], lineage: Lineage) -> list[Group]:
    """Return the signals by cause, the most severe cause first.

    At least two columns, and half of those that the endpoints read from a source or a view, are the fault of that
    source or view. A single column stays the column. Signals of segments alone are of the segment. A moved score, and
    moved correlations, are attributed to the columns that moved with it on the same endpoint.
    """
    alarms = [each for each in signals if each.severity >= 1.0]
    causes: dict[str, Cause] = {}
    members: defaultdict[str, list[Signal]] = defaultdict(list)

    def add(cause: Cause, signal: Signal) -> None:
        causes[cause.key] = cause
        members[cause.key].append(signal)

    consequences: list[Signal] = []
    columns: list[Signal] = []
    whole = {(each.endpoint, each.column) for each in alarms if each.column and not each.segment}
    for each in alarms:
        if each.channel in (SILENCE, HARM, SERVICE, STREAM, FLEET, AUDIT, CALLERS, BUDGET) or (
            each.statistic == ROWS and not each.segment
        ):
            add(_general(each, lineage), each)
        elif each.segment and (each.endpoint, each.column) not in whole:
            add(_segment(each), each)
        elif each.column in lineage.columns.get(each.endpoint, {}):
            columns.append(each)
        else:
            consequences.append(each)
    for signal, cause in _of_columns(columns, lineage):
        add(cause, signal)
    for each in consequences:
        add(_consequence(each, causes, members), each)
    _join_silences(causes, members, lineage)
    _join_segments(causes, members)
    groups = [Group(causes[key], tuple(found)) for key, found in members.items() if found]
    return sorted(groups, key=lambda group: (-max(each.severity for each in group.signals), group.cause.key))


def _general(signal: Signal, lineage: Lineage) -> Cause:
    if signal.channel == HARM:
        whole = _own("quality", signal.endpoint)
        if not signal.segment:
            return whole
        return msgspec.structs.replace(_own("quality", signal.endpoint, signal.segment), within=(whole.key,))
    if signal.channel == STREAM and not signal.endpoint:
        return _source(signal.column)
    if signal.channel in (SERVICE, STREAM):
        return _own("service", signal.endpoint)
    if signal.channel == FLEET:
        return Cause(kind="package", name=signal.column, key=f"package:{signal.column}")
    if signal.channel == CALLERS:
        named = _own("caller", signal.endpoint, signal.column)  # as others may be, so the id tells them apart
        return msgspec.structs.replace(named, key=_own("caller", signal.endpoint, signal.caller).key)
    if signal.channel == BUDGET:
        return Cause(kind=BUDGET, name=signal.column, key=f"{BUDGET}:{signal.column}")
    if signal.channel == AUDIT:
        return _own("audit log", "", signal.column)
    if signal.statistic == LABELS:
        source = lineage.labels.get(signal.endpoint, "")
        return Cause(kind="labels", name=source, key=f"labels:{source}") if source else _own("labels", signal.endpoint)
    if signal.statistic == MONITOR:
        return _own("monitor", signal.endpoint, signal.column)
    return msgspec.structs.replace(_own("traffic", signal.endpoint), within=(_EVERY_ENDPOINT.key,))


def _source(name: str) -> Cause:
    return Cause(kind="source", name=name, key=f"source:{name}")


def _own(kind: str, endpoint: str, name: str = "") -> Cause:
    """Return a cause that only one endpoint has."""
    shown = f"{name} of {endpoint}" if name and endpoint else name or endpoint
    # A segment's name has values of the traffic: long ones, and characters that a database refuses.
    short = name if len(name) <= _LONGEST_NAME and name.isprintable() else sha256(name.encode()).hexdigest()
    return Cause(kind=kind, name=shown, key=f"{kind}:{endpoint}:{short}")


def _of_columns(signals: Iterable[Signal], lineage: Lineage) -> list[tuple[Signal, Cause]]:
    signals = list(signals)
    endpoints = {each.endpoint for each in signals}
    fired: defaultdict[str, set[str]] = defaultdict(set)  # key of a source or group -> its columns with a signal
    for each in signals:
        for cause in _ancestors(each, lineage):
            fired[cause.key].add(each.column)
    read: defaultdict[str, set[str]] = defaultdict(set)  # the same -> its columns that the endpoints read
    for endpoint in endpoints:
        for column, origin in lineage.columns[endpoint].items():
            for cause in _above(endpoint, origin):
                read[cause.key].add(column)
    found = []
    for each in signals:
        above = _ancestors(each, lineage)
        chosen = next((cause for cause in above if _is_common(fired[cause.key], read[cause.key])), None)
        found.append((each, chosen or _column(each, lineage, above)))
    return found


def _is_common(fired: set[str], read: set[str]) -> bool:
    return len(fired) >= _FEWEST and len(fired) >= _SHARE * len(read)


def _ancestors(signal: Signal, lineage: Lineage) -> tuple[Cause, ...]:
    return _above(signal.endpoint, lineage.columns[signal.endpoint][signal.column])


def _above(endpoint: str, origin: Origin) -> tuple[Cause, ...]:
    """Return the causes above a column, the widest first."""
    if not origin.source:  # values that the callers of this endpoint send
        return (_own("request", endpoint, origin.group),)
    source = _source(origin.source)
    view = Cause(kind="view", name=origin.group, key=f"view:{origin.group}", within=(source.key,))
    return source, view


def _column(signal: Signal, lineage: Lineage, above: Sequence[Cause]) -> Cause:
    within = tuple(cause.key for cause in above)
    if lineage.columns[signal.endpoint][signal.column].source:
        return Cause(kind="feature", name=signal.column, key=f"feature:{signal.column}", within=within)
    key = f"feature:{signal.endpoint}:{signal.column}"
    return Cause(kind="feature", name=f"{signal.column} of {signal.endpoint}", key=key, within=within)


def _consequence(signal: Signal, causes: Mapping[str, Cause], members: Mapping[str, Sequence[Signal]]) -> Cause:
    """Return the most severe cause among the endpoint's columns, else the column or the joint view itself."""
    above = [
        (max(each.severity for each in found if each.endpoint == signal.endpoint), key)
        for key, found in members.items()
        if causes[key].kind in ("source", "view", "request", "feature")
        and any(each.endpoint == signal.endpoint for each in found)
    ]
    if above:
        return causes[max(above)[1]]
    if signal.column:
        return _own("column", signal.endpoint, signal.column)
    return _own("joint" if signal.channel == JOINT else "column", signal.endpoint, signal.statistic)


def _segment(signal: Signal) -> Cause:
    """Return a segment, within the features that it is a value of."""
    features = AND.join(part.partition("=")[0] for part in signal.segment.split(AND))
    whole = _own("segments", signal.endpoint, features)
    return msgspec.structs.replace(_own("segment", signal.endpoint, signal.segment), within=(whole.key,))


def _join_segments(causes: dict[str, Cause], members: dict[str, list[Signal]]) -> None:
    """Make several segments by the same features one cause: it is hardly each of their values."""
    by_features: defaultdict[str, list[str]] = defaultdict(list)
    for key in members:
        if causes[key].kind == "segment":
            by_features[causes[key].within[0]].append(key)
    for key, segments in by_features.items():
        if len(segments) > _MOST_SEGMENTS:
            found = [signal for segment in segments for signal in members.pop(segment)]
            name = found[0].segment.partition("=")[0]
            causes[key] = Cause(kind="segments", name=f"by {name} of {found[0].endpoint}", key=key)
            members[key] = found


def _join_silences(causes: dict[str, Cause], members: dict[str, list[Signal]], lineage: Lineage) -> None:
    """Make the silence of every endpoint one cause: not one of them, but what is before them."""
    silent = [key for key, cause in causes.items() if cause.kind == "traffic"]
    if len(silent) < _FEWEST or len(silent) < len(lineage.columns):
        return
    causes[_EVERY_ENDPOINT.key] = _EVERY_ENDPOINT
    members[_EVERY_ENDPOINT.key] = [signal for key in silent for signal in members.pop(key)]
