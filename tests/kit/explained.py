"""Bundles of every framework with rows to explain, and Shapley values by brute force."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from math import factorial
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from kit import flavours
from kit.models import sealed
from kit.waiting import wait_until
from mainspring.core.ids import PredictionIds
from mainspring.ledger.model import Asked, Selection
from mainspring.ledger.recording import Recorder
from mainspring.project import Project
from mainspring.project.executors import executors
from mainspring.registry.model import Bundle, Input
from mainspring.training.bundling import golden_file, parquet_file
from mainspring.training.conformance import CASES, Case, make_rows
from mainspring.training.flavours import convert_estimator, output_names
from mainspring.training.flavours.scoring import artefact_scores
from mainspring.training.sets.labels import LABEL

AT = 1_700_000_000_000_000


@dataclass(frozen=True)
class Explained:
    """A bundle, its estimator, and rows as the gateway has them: Python values by column, `None` for null."""

    bundle: Bundle
    estimator: Any
    frame: Any
    rows: Mapping[str, Sequence[Any]]
    count: int


@cache
def explained(kind: str, case: str, rows: int = 60) -> Explained:
    """Fit the estimator `kit.flavours.<kind>` on a case of the flavours' conformance suite, and seal it."""
    return sealed_with(getattr(flavours, kind), CASES[case], rows)


def sealed_with(fit: Any, case: Case, rows: int = 60) -> Explained:
    frame, y = make_rows(case, 800, 1)
    estimator = fit(frame, y, case.task)
    held_out, truth = make_rows(case, 150, 2)
    inputs = [Input(name, dtype) for name, dtype in case.columns.items()]
    artefact = convert_estimator(estimator, inputs, case.task)
    split = artefact.categories
    inputs = [
        msgspec.structs.replace(each, categories=split[each.name]) if each.name in split else each for each in inputs
    ]
    outputs = output_names(estimator, case.task)
    scores = artefact_scores(artefact, held_out, list(case.columns))
    files = {
        artefact.name: artefact.content,
        "golden.json": golden_file(held_out, case.columns, scores, outputs),
        "holdout.parquet": parquet_file(pa.table({**as_columns(held_out), LABEL: labels_of(truth, outputs)})),
    }
    bundle = sealed(
        artefact.flavour,
        files,
        task=case.task,
        inputs=tuple(inputs),
        outputs=outputs,
        curve=artefact.curve,
    )
    asked, _ = make_rows(case, rows, 3)
    return Explained(bundle, estimator, asked, as_columns(asked), rows)


def labels_of(truth: Any, outputs: Sequence[str]) -> list[Any]:
    return [outputs[label] for label in truth] if len(outputs) > 1 else truth.tolist()


def logged(
    project: Project, bundle: Bundle, rows: Mapping[str, Sequence[Any]], *, at: int = AT, **how: Any
) -> list[str]:
    """Save a bundle, answer rows as a gateway does, log them, and return their ids."""
    project.bundles.save(bundle)
    executor = executors(project)(bundle)
    count = len(next(iter(rows.values())))
    recorder = Recorder(
        project.prediction_log, endpoint="made", model="made", version="1", digest=bundle.digest, keys=(), **how
    )
    ids = PredictionIds().take(count)
    recorder.record(
        at=at,
        ids=ids,
        asked=[Asked("key", 9, count)],
        features=rows,
        outputs=executor.predict(rows, count),
    )
    executor.close()

    def compacted() -> bool:
        project.predictions.compact()
        return set(ids) <= set(project.predictions.sample(Selection(), 1_000_000))

    wait_until(compacted, "the log to be compacted")
    return ids


def as_columns(frame: Any) -> dict[str, list[Any]]:
    return {name: [_plain(value) for value in frame[name].tolist()] for name in frame.columns}


def _plain(value: Any) -> Any:
    return None if value is None or value != value else value


def brute_force(answer: Any, row: Mapping[str, Any], background: Mapping[str, Sequence[Any]]) -> Any:
    """Return the Shapley values of a row, shape (columns, outputs): over all coalitions of its columns.

    Args:
        answer: Takes columns and returns the model's sums, shape (rows, outputs).
    """
    names = list(row)
    rows = len(background[names[0]])

    def worth(chosen: tuple[str, ...]) -> Any:
        mixed = {name: [row[name]] * rows if name in chosen else list(background[name]) for name in names}
        return answer(mixed, rows).mean(axis=0)

    worths = {chosen: worth(chosen) for size in range(len(names) + 1) for chosen in combinations(names, size)}
    values = []
    for name in names:
        others = [each for each in names if each != name]
        total: Any = 0.0
        for size in range(len(others) + 1):
            weight = factorial(size) * factorial(len(names) - size - 1) / factorial(len(names))
            for chosen in combinations(others, size):
                joined = tuple(each for each in names if each in chosen or each == name)
                total = total + weight * (worths[joined] - worths[chosen])
        values.append(total)
    return np.array(values)
