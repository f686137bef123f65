"""Brute force of a stream endpoint: one message after another, windows by filters over everything that was there.

It shares no code with the processor: JSON and times by the standard library, states never stored.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from typing import Any

MINUTE_US = 60_000_000


@dataclass
class Told:
    """Result of the oracle: outputs by event id in order, reasons of dead letters by offset, and counts."""

    outputs: list[dict[str, Any]] = field(default_factory=list)
    dead: dict[int, str] = field(default_factory=dict)
    late: int = 0
    duplicates: int = 0
    states: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Spec:
    """The endpoint in plain values; times in minutes.

    Attributes:
        score: Fields of an event -> output of the model.
        fold: (state, event) -> state, after each processed event.
    """

    name: str = "checks"
    lateness: int = 5
    ahead: int = 5
    late: str = "process"
    count_minutes: int = 10
    sum_minutes: int = 30
    gap: int = 4
    longest: int = 60
    ttl_minutes: int = 120
    unique_minutes: int = 30
    score: Callable[[Mapping[str, Any]], float] = lambda fields: (fields["amount"] or 0.0) * 2.0
    fold: Callable[[Any, Mapping[str, Any]], Any] = lambda state, event: state
    first: Any = None


def brute(messages: Sequence[Any], spec: Spec) -> Told:
    """Return what an endpoint must make of one partition's messages."""
    told, newest = Told(), None
    history: list[tuple[int, str, dict[str, Any]]] = []  # of processed events
    began: dict[str, int] = {}  # key -> index in the history where its state began anew
    last: dict[str, int] = {}
    longest = max(spec.count_minutes, spec.sum_minutes, spec.longest)
    kept = max(spec.ttl_minutes, max(longest, spec.unique_minutes) + spec.lateness)
    for message in messages:
        try:
            fields = json.loads(message.value)
            if not isinstance(fields, dict):
                raise ValueError("no object")
            at = _instant(fields["at"])
            if not isinstance(fields.get("card"), str):
                raise ValueError("card")
            if not isinstance(fields.get("amount"), int | float | None) or isinstance(fields.get("amount"), bool):
                raise ValueError("amount")
            if not isinstance(fields.get("id"), int | None) or isinstance(fields.get("id"), bool):
                raise ValueError("id")
        except (ValueError, KeyError, TypeError) as error:
            told.dead[message.offset] = str(error)
            continue
        if at > message.at + spec.ahead * MINUTE_US:
            told.dead[message.offset] = "ahead"
            continue
        watermark = None if newest is None else newest - spec.lateness * MINUTE_US
        newest = at if newest is None else max(newest, at)
        late = watermark is not None and at < watermark
        told.late += late
        if late and spec.late != "process":
            if spec.late == "dead":
                told.dead[message.offset] = "behind"
            continue
        key = fields["card"]
        if watermark is not None and key in last and last[key] < watermark - kept * MINUTE_US:
            began[key] = len(history)
            del last[key]
            told.states.pop(key, None)
        own = [(when, each) for when, of, each in history[began.get(key, 0) :] if of == key]
        known_since = None if watermark is None else watermark - spec.unique_minutes * MINUTE_US
        if fields.get("id") is not None and any(
            each.get("id") == fields["id"] and (known_since is None or when >= known_since) for when, each in own
        ):
            told.duplicates += 1
            continue
        floor = None if watermark is None else watermark - longest * MINUTE_US
        windows = _windows([(when, each) for when, each in own if floor is None or when >= floor], at, spec)
        history.append((at, key, fields))
        last[key] = max(at, last.get(key, at))
        score = spec.score(fields)
        event = {**fields, **windows, "score": score, "t": at}
        told.states[key] = spec.fold(told.states.get(key, spec.first), event)
        told.outputs.append(
            {"event_id": f"{spec.name}-{message.partition}-{message.offset}", "score": score, **windows}
            | {"state": told.states[key]}
        )
    return told


def _windows(own: Sequence[tuple[int, Mapping[str, Any]]], at: int, spec: Spec) -> dict[str, Any]:
    def within(minutes: int) -> list[Mapping[str, Any]]:
        return [each for when, each in own if at - minutes * MINUTE_US <= when < at]

    amounts = [each["amount"] for each in within(spec.sum_minutes) if each.get("amount") is not None]
    session, edge = [], at
    for when in sorted((when for when, _ in own if when < at), reverse=True):
        if edge - when > spec.gap * MINUTE_US or when < at - spec.longest * MINUTE_US:
            break
        session.append(when)
        edge = when
    return {
        "recent": len(within(spec.count_minutes)),
        "spent": float(sum(map(Fraction, amounts))) if amounts else None,
        "shops": len({each["shop"] for each in within(spec.sum_minutes) if each.get("shop") is not None}),
        "visit_count": len(session),
        "visit_s": (at - min(session)) / 1_000_000 if session else None,
    }


def _instant(text: Any) -> int:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("naive")
    since = moment - datetime.fromisoformat("1970-01-01T00:00:00+00:00")
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
