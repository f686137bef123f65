"""Explanations of a logged prediction, and of a version as a whole."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from mainspring.core.errors import Invalid, MainspringError, NotFound
from mainspring.core.schema import DType
from mainspring.governance.counterfactual import Counterfactuals, read_target, search
from mainspring.governance.importance import Columns, ModelExplanation, dependences, importances
from mainspring.governance.sampled import sampled_explanation
from mainspring.operations.models.curating import find
from mainspring.operations.prediction import model_inputs, not_by_model, reveal
from mainspring.operations.replay.answers import Models, answer
from mainspring.operations.replay.model import Verdict
from mainspring.project import Project
from mainspring.project.executors import executors
from mainspring.project.explainers import load_explainer
from mainspring.registry.bundles import HOLDOUT
from mainspring.registry.model import Bundle, Manifest, ModelVersion, several_labels
from mainspring.serving.background import answers_of, background_of, owner_of
from mainspring.serving.explanation import TOLERANCE, Array, Explanation, NotExplainable, explanations, takes_tensors
from mainspring.training.mutable import MUTABLE, check_mutable

if TYPE_CHECKING:
    import pyarrow as pa

    from mainspring.serving.ports import Executor, Explainer

CALLS, SECONDS, ROWS, CHANGES = 20_000, 30.0, 1000, 3
SEEN = 200  # held-out rows whose values counterfactuals may have


class KeptOne(msgspec.Struct, frozen=True, kw_only=True):
    """An explanation of the log beside the new one.

    Args:
        origin: requested or sampled.
        difference: Largest difference of a contribution, base or total; `None` if the new one has another method or is
            missing.
        agrees: Whether it is within the tolerance of a residual; `None` likewise.
    """

    origin: str
    explanation: Explanation
    difference: float | None = None
    agrees: bool | None = None


class ExplainedPrediction(msgspec.Struct, frozen=True, kw_only=True):
    """One prediction: what the model saw, how much each input moved the answer, and the answer again.

    Args:
        at: Instant of the prediction, UTC epoch microseconds.
        inputs: Inputs as the model saw them.
        statuses: How each stored feature was found.
        outputs: The answer as it was logged.
        verdict: The answer again.
        seconds: Duration of the explanation alone.
        counterfactuals: Changes with which the answer would have been another; `None` if none were asked for.
        kept: Explanations of it in the log.
        why: Reason for which the explanation is the kept one, and not computed again; empty for a new one.
    """

    prediction_id: str
    endpoint: str
    model: str
    version: str
    digest: str
    at: int
    inputs: dict[str, Any]
    statuses: dict[str, str]
    outputs: dict[str, Any]
    explanation: Explanation
    verdict: Verdict
    seconds: float
    counterfactuals: Counterfactuals | None = None
    kept: tuple[KeptOne, ...] = ()
    why: str = ""


def explain_prediction(
    project: Project,
    prediction_id: str,
    *,
    revealed: bool = False,
    sampled: bool = False,
    calls: int = CALLS,
    seconds: float = SECONDS,
    wanted: str = "",
    mutable: Mapping[str, str] | None = None,
    changes: int = CHANGES,
) -> ExplainedPrediction:
    """Explain a logged prediction by the bundle that made it, and compare with what the log has kept.

    Where that is not possible, the kept explanation is the result, and `why` says so.

    Args:
        revealed: Whether to decrypt values that identify a person, with an event in the audit log.
        sampled: Whether to estimate contributions to the answer, for any model of columns, instead of the exact ones.
        calls, seconds: Of a sampled explanation: the largest number of answers to ask for, and the longest duration.
        wanted: Another answer, such as `probability < 0.3`, to look for among changes of mutable inputs.
        mutable: Input -> any, increase or decrease; by default as the model declared it.
        changes: The largest number of changed inputs.

    Raises:
        NotFound: It was never logged, or its bundle is gone and no explanation was kept.
        NotInLog: The log lacks an input of the model.
        NotExplainable: The model has no exact explanation, or takes tensors.
        Invalid: `wanted` is not a target, an input cannot change so, or none is declared as mutable.
    """
    found = reveal(project, prediction_id) if revealed else project.predictions.find(prediction_id)
    models = Models(project.bundles.load, executors(project))
    before = [
        KeptOne(origin=each.origin, explanation=msgspec.json.decode(each.document, type=Explanation))
        for each in project.predictions.explanations(found.id)
    ]
    begun, why = time.perf_counter(), ""
    inputs: Mapping[str, Any] = found.features
    try:
        try:
            if found.fallback:
                raise not_by_model(found)
            bundle = models.bundle(found.digest)
            if bundle.manifest.tensors:
                raise takes_tensors(owner_of(bundle))
            inputs = model_inputs(found, bundle.manifest)
            begun = time.perf_counter()
            if sampled:
                explanation = sampled_explanation(
                    bundle,
                    models.get(found.digest)[1],
                    inputs,
                    calls,
                    enough=lambda: time.perf_counter() - begun > seconds,
                )
            else:
                explanation = explain_row(bundle, inputs)
            before = [_beside(each, explanation) for each in before]
        except MainspringError as error:
            if not before or wanted:
                raise
            explanation, why = before[0].explanation, error.what
        took = time.perf_counter() - begun
        others = None
        if wanted:
            others = _counterfactuals(bundle, models.get(found.digest)[1], inputs, wanted, mutable, changes)
        (verdict,) = answer([found], models, lambda made: [made])
    finally:
        models.close()
    return ExplainedPrediction(
        prediction_id=found.id,
        endpoint=found.endpoint,
        model=found.model,
        version=found.version,
        digest=found.digest,
        at=found.at,
        inputs=dict(inputs),
        statuses=dict(found.statuses),
        outputs=dict(found.outputs),
        explanation=explanation,
        verdict=verdict,
        seconds=round(took, 6),
        counterfactuals=others,
        kept=tuple(before),
        why=why,
    )


def _beside(kept: KeptOne, again: Explanation) -> KeptOne:
    """Return a kept explanation with its difference from a new one."""
    if kept.explanation.method.name != again.method.name or kept.explanation.outputs.keys() != again.outputs.keys():
        return kept
    pairs = []
    for name, new in again.outputs.items():
        old = kept.explanation.outputs[name]
        pairs += [(old.base, new.base), (old.total, new.total)]
        pairs += [
            (old.contributions.get(column, 0.0), new.contributions.get(column, 0.0))
            for column in old.contributions.keys() | new.contributions.keys()
        ]
    difference = max((abs(one - other) for one, other in pairs), default=0.0)
    largest = max((abs(one) for one, _ in pairs), default=0.0)
    agrees = difference <= TOLERANCE * max(1.0, largest)
    return msgspec.structs.replace(kept, difference=difference, agrees=agrees)


def _counterfactuals(
    bundle: Bundle, executor: Executor, inputs: Columns, wanted: str, mutable: Mapping[str, str] | None, changes: int
) -> Counterfactuals:
    chosen = bundle.manifest.extra.get(MUTABLE, {}) if mutable is None else mutable
    owner = f"model {bundle.manifest.model!r}"
    if not chosen:
        raise Invalid(
            f"No input of {owner} is declared as mutable.",
            fix='declare @ms.model(..., mutable={"View.feature": "any"}), or name some: --mutable View.feature.',
        )
    check_mutable(chosen, {each.name: each.dtype == DType.String for each in bundle.manifest.inputs}, owner)
    seen, _ = background_of(bundle, SEEN)
    outputs = list(executor.outputs)
    return search(
        inputs,
        seen,
        chosen,
        lambda columns, rows: answers_of(executor, columns, rows),
        read_target(wanted, outputs),
        outputs,
        changes,
    )


def explain_row(bundle: Bundle, inputs: Columns) -> Explanation:
    """Return the exact explanation of one row, given as input -> value.

    Raises:
        NotExplainable: The model has none.
    """
    explainer = load_explainer(bundle)
    try:
        found = explainer.explain({name: [inputs[name]] for name in explainer.inputs}, 1)
        return explanations(found, explainer.method, list(explainer.inputs), list(explainer.outputs))[0]
    finally:
        explainer.close()


def explain_model(
    project: Project, reference: str, *, rows: int = ROWS, columns: Sequence[str] | None = None
) -> ModelExplanation:
    """Explain the version `NAME:VERSION`, `NAME@ALIAS` or `NAME` on its held-out rows.

    Args:
        rows: The largest number of held-out rows, evenly spaced.
        columns: Columns whose partial dependence is computed; by default all.

    Raises:
        NotFound: There is no such version or column, or the bundle has no held-out rows.
        NotExplainable: The model takes tensors.
    """
    version = find(project, reference)
    bundle = project.bundles.load(version.digest)
    executor = executors(project)(bundle)
    try:
        return explain_version(version, bundle, executor, rows=rows, columns=columns)
    finally:
        executor.close()


def explain_version(
    version: ModelVersion,
    bundle: Bundle,
    executor: Executor,
    *,
    rows: int = ROWS,
    columns: Sequence[str] | None = None,
) -> ModelExplanation:
    """Explain a version on the held-out rows of its bundle; arguments and errors as of `explain_model`."""
    import pyarrow.parquet as pq

    owner = f"{version.model}:{version.version}"
    if bundle.manifest.tensors:
        raise takes_tensors(owner)
    if HOLDOUT not in bundle.files:
        raise NotFound(f"The bundle of {owner} contains no held-out rows.", fix="train the model with a label.")
    names = list(executor.inputs)
    if unknown := sorted(set(columns or ()) - set(names)):
        raise NotFound(f"{owner} has no input {', '.join(unknown)}.", fix=f"it has {', '.join(names)}.")
    table = pq.read_table(BytesIO(bundle.files[HOLDOUT]))
    count = min(rows, len(table))
    table = table.take(np.unique(np.linspace(0, len(table) - 1, count).astype(int)))
    given = {name: table[name].to_pylist() for name in names}
    explainer, why = _explainer(bundle)
    try:
        found = importances(
            given, len(table), lambda some, n: answers_of(executor, some, n), explainer, _truth(bundle.manifest, table)
        )
    finally:
        if explainer is not None:
            explainer.close()
    chosen = [each.column for each in found if columns is None or each.column in columns]
    return ModelExplanation(
        model=version.model,
        version=version.version,
        digest=version.digest,
        rows=len(table),
        method=None if explainer is None else explainer.method,
        why=why,
        importances=found,
        dependences=dependences(
            given, len(table), lambda some, n: answers_of(executor, some, n), list(executor.outputs), chosen
        ),
    )


def _explainer(bundle: Bundle) -> tuple[Explainer | None, str]:
    try:
        return load_explainer(bundle), ""
    except NotExplainable as error:
        return None, error.what


def _truth(manifest: Manifest, held_out: pa.Table) -> Array | None:
    """Return the labels as answers that would have been right, shape (rows, outputs)."""
    from mainspring.stats.metrics import class_places
    from mainspring.training.sets.labels import LABEL, label_numbers

    if LABEL not in held_out.column_names:
        return None
    if manifest.task != "multiclass":
        return label_numbers(held_out[LABEL], several_labels(manifest)).reshape(len(held_out), -1)
    places = class_places(held_out[LABEL].to_pylist(), manifest.outputs)
    return np.asarray(places[:, None] == np.arange(len(manifest.outputs)), np.float64)
