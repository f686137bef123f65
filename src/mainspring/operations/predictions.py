"""Logged predictions by conditions, newest first: for the command line, the console, the API and Python."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from mainspring.core.errors import Invalid, MainspringError
from mainspring.core.time import format_instant, parse_end, parse_instant
from mainspring.features.model import Status
from mainspring.ledger.model import ANY_KEY, Prediction, Selection
from mainspring.ledger.ports import Cursor

if TYPE_CHECKING:
    from mainspring.monitoring.model import LabelRows
    from mainspring.project import Project

LIMIT = 50
LABELLED, UNLABELLED = "known", "unknown"
STATUSES = tuple(status.value for status in Status)
FIELDS = ("endpoint", "version", "key", "score_from", "score_to", "label", "status", "since", "until")
_AT_ONCE = 500  # predictions whose labels are joined at once
_PAGES = 2  # that one listing by label looks through
_CURSOR = re.compile(r"(-?\d{1,18})-([0-9A-Za-z_.-]{0,128})", re.ASCII)

Label = bool | float | str | None


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """Conditions as a URL or a command line states them; an empty one holds for every prediction.

    Attributes:
        key: `name=value`, or `value` of any entity key; several are separated by commas.
        score_from: The smallest score; `score_to` is the largest.
        label: `known`, `unknown`, or a value.
        status: Status of at least one stored feature.
        since: The first instant or day, ISO 8601.
        until: The instant behind the last, or the last day.
    """

    endpoint: str = ""
    version: str = ""
    key: str = ""
    score_from: str = ""
    score_to: str = ""
    label: str = ""
    status: str = ""
    since: str = ""
    until: str = ""

    @property
    def given(self) -> dict[str, str]:
        """The conditions that are not empty."""
        return {name: text for name in FIELDS if (text := getattr(self, name))}

    def selection(self) -> Selection:
        """Return the conditions but the label's.

        Raises:
            Invalid: A number, an instant or a status is none.
        """
        if self.status and self.status.upper() not in STATUSES:
            raise Invalid(f"{self.status!r} is not the status of a feature.", fix=f"use one of {', '.join(STATUSES)}.")
        return Selection(
            endpoint=self.endpoint or None,
            version=self.version or None,
            since=parse_instant(self.since) if self.since else None,
            until=parse_end(self.until) if self.until else None,
            score_from=_number("score_from", self.score_from),
            score_to=_number("score_to", self.score_to),
            keys=dict(_pair(part) for part in self.key.split(",") if part.strip()),
            status=self.status.upper() or None,
        )


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A prediction with its label, `None` while it is not known; of several labels by name."""

    prediction: Prediction
    label: Label | dict[str, Label] = None


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """Predictions, newest first.

    Attributes:
        next: The cursor of the next page; empty behind the last.
        searched: If the page ended because very many predictions did not match: all that is newer than this instant
            was looked at, UTC epoch microseconds.
        labels: Whether labels were joined.
    """

    rows: tuple[Listed, ...]
    next: str
    searched: int | None
    labels: bool


def list_predictions(
    project: Project, conditions: Conditions, *, limit: int = LIMIT, before: str = "", labels: bool = False
) -> Listing:
    """Return the newest predictions that fulfil the conditions.

    Args:
        before: `next` of the page before.
        labels: Whether labels are joined, also without a condition on them.

    Raises:
        Invalid: A condition or the cursor is malformed.
    """
    selection, cursor = conditions.selection(), _cursor(before)
    if not conditions.label:
        page = project.predictions.newest(selection, limit, cursor)
        known = _labels(project, page.predictions) if labels else {}
        rows = tuple(Listed(prediction=each, label=known.get(each.id)) for each in page.predictions)
        return Listing(rows=rows, next=_text(page.next), searched=page.searched, labels=labels)
    found: list[Listed] = []
    searched: int | None = None
    for _ in range(_PAGES):
        page = project.predictions.newest(selection, _AT_ONCE, cursor)
        known = _labels(project, page.predictions)
        found += [
            Listed(prediction=each, label=known.get(each.id))
            for each in page.predictions
            if _has(known.get(each.id), conditions.label)
        ]
        cursor, searched = page.next, page.searched
        if len(found) > limit:
            last = found[limit - 1].prediction
            return Listing(rows=tuple(found[:limit]), next=_text(Cursor(last.at, last.id)), searched=None, labels=True)
        if cursor is None or searched is not None:
            break
    else:
        searched = cursor.at if cursor is not None else None
    return Listing(rows=tuple(found), next=_text(cursor), searched=searched, labels=True)


def document(made: Prediction) -> dict[str, Any]:
    """Return a prediction for JSON: of personal values it has only the names, and whether they can be revealed."""
    fields = {name: getattr(made, name) for name in made.__struct_fields__ if name != "sealed"}
    return {**fields, "withheld": made.withheld}


def listed_document(listed: Listed) -> dict[str, Any]:
    """Return a row for JSON. Its label is null where it is not known, or labels were not joined."""
    return {**document(listed.prediction), "label": listed.label}


def table(listing: Listing) -> tuple[list[str], list[list[Any]]]:
    """Return the head and the rows of a table of the predictions: a column for each key and output."""
    made = [each.prediction for each in listing.rows]
    keys = list(dict.fromkeys(name for each in made for name in each.keys))
    outputs = list(dict.fromkeys(name for each in made for name in each.outputs))
    labels = list(
        dict.fromkeys(name for each in listing.rows for name in (each.label if isinstance(each.label, dict) else ()))
    )
    head = ["id", "at", "endpoint", "model", "version", *(f"key:{name}" for name in keys), *outputs, "latency_ms"]
    head += [f"label:{name}" for name in labels] or (["label"] if listing.labels else [])
    rows = []
    for listed in listing.rows:
        each = listed.prediction
        row: list[Any] = [each.id, format_instant(each.at), each.endpoint, each.model, each.version]
        row += [each.keys.get(name) for name in keys]
        row += [_flat(each.outputs.get(name)) for name in outputs]
        row.append(each.latency_us / 1000)
        if labels:
            row += [listed.label.get(name) if isinstance(listed.label, dict) else None for name in labels]
        elif listing.labels:
            row.append(listed.label)
        rows.append(row)
    return head, rows


def _flat(value: Any) -> Any:
    return msgspec.json.encode(value).decode() if isinstance(value, list) else value


def _number(name: str, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise Invalid(f"{name} is {text!r}, which is not a number.", fix=f"write {name}=0.5.")
    return value


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.strip().partition("=")
    return (name.strip(), value.strip()) if equals else (ANY_KEY, name)


def _cursor(text: str) -> Cursor | None:
    if not text:
        return None
    found = _CURSOR.fullmatch(text)
    if found is None:
        raise Invalid(f"{text!r} is not a place in the list.", fix="give `next` of the page before.")
    return Cursor(int(found[1]), found[2])


def _text(cursor: Cursor | None) -> str:
    return "" if cursor is None else f"{cursor.at}-{cursor.id}"


def _has(label: Label | dict[str, Label], wanted: str) -> bool:
    if wanted in (LABELLED, UNLABELLED):
        return (label is not None) == (wanted == LABELLED)
    values: Sequence[Label] = [*label.values()] if isinstance(label, dict) else [label]
    return any(_label_text(each) == wanted.lower() for each in values if each is not None)


def _label_text(label: Label) -> str:
    if isinstance(label, bool):
        return "true" if label else "false"
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    return str(label).lower()


def _labels(project: Project, predictions: Sequence[Prediction]) -> Mapping[str, Any]:
    """Return id -> label of those predictions whose label is known."""
    by_endpoint: dict[str, list[Prediction]] = {}
    for each in predictions:
        by_endpoint.setdefault(each.endpoint, []).append(each)
    # Endpoints whose predictions have the same label share one join: most of its cost does not depend on the rows.
    joins: dict[tuple[str, str], tuple[LabelRows, list[Prediction]]] = {}
    for endpoint, made in by_endpoint.items():
        with suppress(MainspringError):  # an endpoint that is no longer declared has no labels
            if (labels := project.label_rows(endpoint)) is not None:
                keys = [single.keys for single in labels.each]
                joins.setdefault((labels.state, str(keys)), (labels, []))[1].extend(made)
    found: dict[str, Any] = {}
    for labels, made in joins.values():
        with suppress(MainspringError):
            found |= _labels_of(labels, made, project.clock.now())
    return found


def _labels_of(labels: LabelRows, predictions: Sequence[Prediction], now: int) -> Mapping[str, Any]:
    import pyarrow as pa

    from mainspring.core.schema import DType
    from mainspring.ledger.columns import to_batch
    from mainspring.monitoring.joins import join_labels

    # Keys that identify a person stay sealed, so such predictions have no label here.
    joined = join_labels(pa.Table.from_batches([to_batch(predictions)]), labels, now)
    kinds = {each.label.column: each.label.source.columns[each.label.column] for each in labels.each}

    def typed(value: Any, column: str) -> Label:
        return bool(value) if kinds[column] is DType.Boolean and value is not None else value

    first = labels.label.column
    return {
        str(row["id"]): {name: typed(value, name) for name, value in row["label"].items()}
        if isinstance(row["label"], dict)
        else typed(row["label"], first)
        for row in joined.to_pylist()
    }
