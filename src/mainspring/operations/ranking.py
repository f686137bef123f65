"""Ranking of incidents by their expected effect: the mean movement of the score that the symptoms make.

Recent predictions are answered twice by the version that made them: as they were, and with the affected columns mapped
back to the training's distribution.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from mainspring.ledger.model import Prediction, Selection
from mainspring.monitoring.incidents.model import Incident
from mainspring.monitoring.incidents.restoring import restored
from mainspring.monitoring.served import REFERENCE
from mainspring.project import Project
from mainspring.project.executors import executors
from mainspring.registry.model import Bundle
from mainspring.stats.reference import Reference

ROWS = 512  # predictions that are answered twice


def effect(project: Project, incident: Incident) -> float | None:
    """Return the mean movement of the score over recent predictions of the incident's worst endpoint.

    The movement of several classes is half of the sum of their absolute differences; else that of the first output's
    first value. `None` if no column with a reference is affected, or no prediction has all inputs.

    Raises:
        MainspringError: A bundle or the log cannot be read, or the model fails.
    """
    found = [_of_endpoint(project, incident, endpoint) for endpoint in incident.endpoints]
    return max((each for each in found if each is not None), default=None)


def _of_endpoint(project: Project, incident: Incident, endpoint: str) -> float | None:
    affected = {each.column for each in incident.symptoms if each.endpoint == endpoint and each.column}
    selection = Selection(endpoint=endpoint, since=incident.started, until=incident.last)
    if not affected or endpoint not in project.definitions.endpoints:
        return None
    ids = project.predictions.sample(selection, ROWS)
    rows = [each for part in project.predictions.scan(selection, ids) for each in part] if ids else []
    digests = Counter(each.digest for each in rows)
    if not digests:
        return None
    digest = digests.most_common(1)[0][0]
    bundle = project.bundles.load(digest)
    return _movement(project, bundle, sorted((each for each in rows if each.digest == digest), key=_id), affected)


def _id(prediction: Prediction) -> str:
    return prediction.id


def _movement(project: Project, bundle: Bundle, rows: Sequence[Prediction], affected: set[str]) -> float | None:
    content = bundle.files.get(REFERENCE)
    if content is None or bundle.manifest.tensors:
        return None
    references = msgspec.json.decode(content, type=Reference).columns
    names = [each.name for each in bundle.manifest.inputs]
    whole = [each for each in rows if all(name in each.features for name in names)]
    changed = [name for name in names if name in affected and name in references]
    if not whole or not changed:
        return None
    before: dict[str, list[Any]] = {name: [each.features[name] for each in whole] for name in names}
    after = dict(before)
    for column in bundle.manifest.inputs:
        if column.name in changed:
            values = restored(before[column.name], references[column.name])
            after[column.name] = [_typed(value, before[column.name]) for value in values]
    executor = executors(project, one_thread=True)(bundle)
    try:
        then, without = (executor.predict(inputs, len(whole)) for inputs in (before, after))
    finally:
        executor.close()
    outputs = bundle.manifest.outputs
    return _mean_distance(then, without, outputs if bundle.manifest.task == "multiclass" else outputs[:1])


def _typed(value: Any, beside: Sequence[Any]) -> Any:
    """Return a restored number in the type of the column's other values."""
    if isinstance(value, float):
        known: Any = next((each for each in beside if each is not None), 0.0)
        if isinstance(known, bool):
            return value > 0.5
        return round(value) if isinstance(known, int) else value
    return value


def _mean_distance(then: Mapping[str, Any], without: Mapping[str, Any], outputs: Sequence[str]) -> float | None:
    pairs = [(np.asarray(then[name]), np.asarray(without[name])) for name in outputs]
    if any(each.dtype.kind not in "fiub" for pair in pairs for each in pair):
        return None
    moved = [np.abs(one.astype(np.float64) - other).reshape(len(one), -1)[:, 0] for one, other in pairs]
    distance = moved[0] if len(moved) == 1 else np.sum(moved, axis=0) / 2
    finite = distance[np.isfinite(distance)]
    return float(finite.mean()) if len(finite) else None
