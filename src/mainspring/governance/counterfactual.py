"""Counterfactuals: the fewest changes of mutable inputs with which the model would have answered otherwise.

The search tries values that occur in held-out rows of the bundle: first each single change, then changes added to the
closest ones (a beam). Every result was answered by the model. Beyond one change the search is not exhaustive, so
finding nothing is no proof.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from math import isnan
from typing import Any

import msgspec
import numpy as np

from mainspring.core.errors import Invalid
from mainspring.serving.explanation import Array
from mainspring.training.mutable import ANY, INCREASE

_VALUES = 24  # of one column
_BEAM = 48
_FOUND = 5
_AT_ONCE = 1024
_TARGET = re.compile(r"(?:(?P<output>.+?)\s*)?(?P<sign><=|>=|<|>)\s*(?P<bound>[-+0-9.eE]+)")

Answer = Callable[[Mapping[str, Sequence[Any]], int], Array]  # -> the answers, shape (rows, outputs)


class Target(msgspec.Struct, frozen=True):
    """A wanted answer: an output on one side of a bound."""

    output: str
    sign: str  # <, <=, >, >=
    bound: float

    def met(self, values: Array) -> Array:
        """Return whether each answer is as wanted."""
        compare = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}[self.sign]
        return np.asarray(compare(values, self.bound))

    def missing(self, values: Array) -> Array:
        """Return how far each answer is from the wanted side, 0 or less if it is there."""
        return values - self.bound if self.sign[0] == "<" else self.bound - values

    def __str__(self) -> str:
        return f"{self.output} {self.sign} {self.bound:g}"


class Counterfactual(msgspec.Struct, frozen=True, kw_only=True):
    """One set of changes, and the model's answer with them.

    Args:
        changes: Column -> the other value.
        distance: Sum over the changes of the share of held-out rows between the old and the new value; 1 for a text.
    """

    changes: dict[str, Any]
    answer: float
    distance: float


class Counterfactuals(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a search. `found` has the fewest changes first, and is empty if none were found.

    Args:
        tried: Number of answers that the model was asked for.
    """

    target: Target
    mutable: dict[str, str]
    most: int
    found: list[Counterfactual]
    tried: int
    met: bool  # the answer is as wanted without changes


def read_target(text: str, outputs: Sequence[str]) -> Target:
    """Return the target in `text`: `probability < 0.3`, or `< 0.3` of the only output.

    Raises:
        Invalid: It has another form, or names another output.
    """
    match = _TARGET.fullmatch(text.strip())
    output = (match["output"] or (outputs[0] if len(outputs) == 1 else "")) if match else ""
    try:
        bound = float(match["bound"]) if match else float("nan")
    except ValueError:
        bound = float("nan")
    if match is None or output not in outputs or isnan(bound):
        raise Invalid(
            f"{text[:80]!r} is not a wanted answer.",
            fix=f'write an output and a bound, such as "{outputs[0]} < 0.3"; the outputs are {", ".join(outputs)}.',
        )
    return Target(output, match["sign"], bound)


def search(
    row: Mapping[str, Any],
    seen: Mapping[str, Sequence[Any]],
    mutable: Mapping[str, str],
    answer: Answer,
    target: Target,
    outputs: Sequence[str],
    most: int = 3,
) -> Counterfactuals:
    """Return up to five sets of at most `most` changes with which the answer meets the target.

    Args:
        row: The inputs as they were.
        seen: Held-out rows, whose values are tried.
        mutable: Column -> any, increase or decrease.
    """
    place = outputs.index(target.output)
    choices = {name: _choices(row[name], seen[name], direction) for name, direction in mutable.items()}
    tried = 1
    start = answer({name: [value] for name, value in row.items()}, 1)[:, place]
    found: list[Counterfactual] = []
    if target.met(start)[0]:
        return Counterfactuals(target=target, mutable=dict(mutable), most=most, found=[], tried=tried, met=True)
    beam: list[dict[str, Any]] = [{}]
    for _ in range(most):
        candidates = list(_extended(beam, choices))
        if not candidates:
            break
        values = np.concatenate(
            [
                answer(_columns(row, candidates[at : at + _AT_ONCE]), len(candidates[at : at + _AT_ONCE]))[:, place]
                for at in range(0, len(candidates), _AT_ONCE)
            ]
        )
        tried += len(candidates)
        distances = [_distance(row, changes, seen) for changes in candidates]
        met = np.flatnonzero(target.met(values)).tolist()
        for at in sorted(met, key=lambda at: distances[at]):
            if not any(set(each.changes) == set(candidates[at]) for each in found):
                found.append(Counterfactual(changes=candidates[at], answer=float(values[at]), distance=distances[at]))
        if found:
            break
        beam = [candidates[at] for at in np.argsort(target.missing(values), kind="stable")[:_BEAM].tolist()]
    return Counterfactuals(
        target=target, mutable=dict(mutable), most=most, found=found[:_FOUND], tried=tried, met=False
    )


def _choices(old: Any, seen: Sequence[Any], direction: str) -> list[Any]:
    """Return other values that occur, up to 24: quantiles of numbers, the commonest texts."""
    known = [value for value in seen if not _null(value) and value != old]
    if direction != ANY:
        if _null(old):
            return []
        known = [value for value in known if (value > old) == (direction == INCREASE)]
    distinct = sorted(set(known))
    if len(distinct) <= _VALUES:
        return distinct
    if isinstance(distinct[0], str):
        return sorted(distinct, key=lambda value: (-known.count(value), value))[:_VALUES]
    return sorted({distinct[round(place)] for place in np.linspace(0, len(distinct) - 1, _VALUES)})


def _extended(beam: Sequence[Mapping[str, Any]], choices: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return every set of changes that adds one to a set of the beam, each once."""
    made: dict[tuple[tuple[str, Any], ...], dict[str, Any]] = {}
    for changes in beam:
        for name, values in choices.items():
            if name not in changes:
                for value in values:
                    new = {**changes, name: value}
                    made.setdefault(tuple(sorted(new.items(), key=lambda item: item[0])), new)
    return list(made.values())


def _columns(row: Mapping[str, Any], candidates: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: [changes.get(name, value) for changes in candidates] for name, value in row.items()}


def _distance(row: Mapping[str, Any], changes: Mapping[str, Any], seen: Mapping[str, Sequence[Any]]) -> float:
    return sum(_between(row[name], value, seen[name]) for name, value in changes.items())


def _between(old: Any, new: Any, seen: Sequence[Any]) -> float:
    if isinstance(new, str) or _null(old):
        return 1.0
    low, high = min(old, new), max(old, new)
    known = [value for value in seen if not _null(value)]
    return len([value for value in known if low <= value <= high]) / max(1, len(known))


def _null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and isnan(value))
