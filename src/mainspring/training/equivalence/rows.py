"""Rows on which a bundle is compared with its estimator: ordinary ones, and probes where they most likely differ.

Ordinary rows are held out, supplemented by recombined ones where there are too few. Probes have nulls, unseen
categories and values at split thresholds.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mainspring.core.schema import DType
from mainspring.registry.model import Input
from mainspring.training.flavours import Artefact, flavour_of
from mainspring.training.frames import Array

if TYPE_CHECKING:
    import pandas as pd

ROWS = 10_000
MOST_ROWS = 40_000
HELD_OUT, MADE = "held out", "made of held-out values"
NEAR_THRESHOLD = "near the threshold"
UNSEEN = "never seen \N{SNOWMAN}"
_MOST_THRESHOLDS = 4000
_QUANTILES = 33


@dataclass(frozen=True, slots=True)
class ProofRows:
    """Rows on which one model is compared with its estimator.

    Args:
        plain: Ordinary rows, at least `ROWS`; `kinds` has the kind of each.
        probes: Rows where the two most likely differ; `words` describes each.
    """

    plain: pd.DataFrame
    kinds: list[str]
    probes: pd.DataFrame
    words: list[str]


def proof_rows(
    estimator: Any,
    artefact: Artefact,
    held_out: pd.DataFrame,
    inputs: Collection[Input],
    *,
    wide: Collection[str] = (),
    seed: int = 0,
) -> ProofRows:
    """Return the rows on which to compare a model with its estimator.

    Args:
        held_out: Rows that the estimator was not fitted on; fewer than 10,000 are supplemented by recombined rows.
        wide: Columns that the model takes as float64.
    """
    rng = np.random.default_rng(seed)
    if artefact.native:  # a native model takes each column in its own type
        wide = [each.name for each in inputs if held_out[each.name].dtype == np.float64]
    probes, words = probe_rows(estimator, held_out, inputs, wide, rng)
    return ProofRows(*plain_rows(held_out, rng), probes, words)


def plain_rows(held_out: pd.DataFrame, rng: np.random.Generator) -> tuple[pd.DataFrame, list[str]]:
    """Return at least `ROWS` rows, and the kind of each: `HELD_OUT` or `MADE`.

    A made row takes each column's value from a random held-out row: the combination is new, every value is real.
    Repeating held-out rows instead would prove nothing more.

    Args:
        held_out: At least one row; of more than 40,000, some at even steps.
    """
    import pandas as pd

    count = len(held_out)
    sampled = at_even_steps(held_out, MOST_ROWS)
    missing = max(0, ROWS - count)
    if not missing:
        return sampled, [HELD_OUT] * len(sampled)
    drawn = {name: held_out[name].to_numpy()[rng.integers(0, count, missing)] for name in held_out.columns}
    recombined = pd.DataFrame({name: pd.Series(values, dtype=held_out[name].dtype) for name, values in drawn.items()})
    return pd.concat([sampled, recombined], ignore_index=True), [HELD_OUT] * len(sampled) + [MADE] * missing


def at_even_steps(frame: pd.DataFrame, most: int) -> pd.DataFrame:
    """Return the rows, numbered from 0; of more than `most`, that many at even steps."""
    count = len(frame)
    chosen = frame if count <= most else frame.iloc[np.linspace(0, count - 1, most).astype(np.int64)]
    return chosen.reset_index(drop=True)


def probe_rows(
    estimator: Any, held_out: pd.DataFrame, inputs: Collection[Input], wide: Collection[str], rng: np.random.Generator
) -> tuple[pd.DataFrame, list[str]]:
    """Return probe rows with the estimator's columns, and a description of what each row probes.

    Most are held-out rows with one column changed: to null, to a category unseen in training, or to a value at, just
    below or just above one of the estimator's split thresholds (without trees: at quantiles of the column).

    Args:
        wide: Columns that the bundle takes as float64; their neighbouring values are float64, all others' float32.
    """
    import pandas as pd

    changes: list[tuple[str, Any, str]] = []
    for column in inputs:
        nothing = None if column.dtype == DType.String else np.nan
        changes += [(column.name, nothing, f"{column.name} null")] * 8
        if column.dtype == DType.String:
            changes += [(column.name, UNSEEN, f"{column.name} unseen")] * 8
    thresholds = [
        (name, value) for name, values in _thresholds(estimator, held_out, inputs).items() for value in values
    ]
    if len(thresholds) > _MOST_THRESHOLDS:
        thresholds = [thresholds[at] for at in rng.choice(len(thresholds), _MOST_THRESHOLDS, replace=False)]
    for name, value in thresholds:
        for neighbour in _neighbours(value, np.float64 if name in wide else np.float32):
            changes.append((name, neighbour, f"{name} {NEAR_THRESHOLD} {value:.9g}"))
    base = held_out.iloc[rng.integers(0, len(held_out), len(changes))].reset_index(drop=True)
    columns = {name: base[name].to_numpy(copy=True) for name in held_out.columns}
    for row, (name, value, _) in enumerate(changes):
        columns[name][row] = value
    null = {column.name: None if column.dtype == DType.String else np.nan for column in inputs}
    unseen = {
        column.name: UNSEEN if column.dtype == DType.String else held_out[column.name].iloc[0] for column in inputs
    }
    frame = pd.DataFrame(
        {
            name: pd.Series([*columns[name], null[name], unseen[name]], dtype=held_out[name].dtype)
            for name in held_out.columns
        }
    )
    return frame, [description for _, _, description in changes] + ["every column null", "every category unseen"]


def _neighbours(value: float, kind: Any) -> list[float]:
    with np.errstate(over="ignore"):
        centre = kind(value)
        around = [centre, np.nextafter(centre, kind(-np.inf)), np.nextafter(centre, kind(np.inf))]
    return [float(number) for number in around if np.isfinite(number)]


def _thresholds(estimator: Any, held_out: pd.DataFrame, inputs: Collection[Input]) -> dict[str, Array]:
    numeric = [column.name for column in inputs if column.dtype != DType.String]
    splits = flavour_of(estimator).thresholds(estimator, held_out, numeric)
    return {name: splits[name] if name in splits else _quantiles(held_out[name].to_numpy()) for name in numeric}


def _quantiles(values: Array) -> Array:
    known = values[np.isfinite(values)]
    return np.unique(np.quantile(known, np.linspace(0, 1, _QUANTILES))) if len(known) else np.zeros(1)
