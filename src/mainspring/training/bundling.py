"""Conversion of a fitted estimator into a sealed bundle: convert, prove equivalence, evaluate, pack."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from mainspring.registry import bundles
from mainspring.registry.model import Bundle, Input, Manifest
from mainspring.security.signing import SigningKey
from mainspring.stats.metrics import OWN_METRICS
from mainspring.stats.thresholds import THRESHOLD
from mainspring.training import contents
from mainspring.training.convert import convert_estimator
from mainspring.training.equivalence.check import TOLERANCE, Proof, probes_of, prove
from mainspring.training.equivalence.rows import ROWS, plain_rows
from mainspring.training.flavours import Artefact
from mainspring.training.flavours.scoring import artefact_scores, open_session, output_names
from mainspring.training.frames import Array
from mainspring.training.judge import judge
from mainspring.training.label import Label
from mainspring.training.model import Model
from mainspring.training.runs.pinned import Pinned
from mainspring.training.sets.training_set import TrainingSet

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Converted:
    """A converted model that is proved equivalent to its estimator, with its predictions for the held-out rows."""

    artefact: Artefact
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    wide: tuple[str, ...]
    proof: Proof
    scores: Array  # (held-out rows, outputs)
    metrics: dict[str, float]
    threshold: float | None
    probes: tuple[pd.DataFrame, Array]  # rows that each load replays, and the model's predictions
    plain: tuple[pd.DataFrame, Array]  # up to 10,000 more rows, held out or recombined, and the model's predictions


def convert(model: Model, estimator: Any, data: TrainingSet, tell: Callable[[str, float], None]) -> Converted:
    """Convert the estimator fitted on `data.train`, prove the result equivalent, and evaluate it.

    Raises:
        NotConvertible: See `convert.convert_estimator` and `equivalence.prove`.
    """
    tell("convert", 0.75)
    dtypes = dict(data.dtypes)
    wide = contents.wide_columns([data.train, data.validation, data.holdout], dtypes)
    inputs, outputs = contents.inputs_of(data.train, dtypes), output_names(estimator, model.task, model.label_columns)
    artefact = convert_estimator(estimator, inputs, model.task, wide=wide, labels=model.label_columns)
    split = artefact.categories  # the manifest's categories encode these text columns
    inputs = tuple(
        msgspec.structs.replace(each, categories=split[each.name]) if each.name in split else each for each in inputs
    )
    tell("prove", 0.8)
    held_out = data.holdout.X
    proof = prove(
        estimator, artefact, held_out, inputs, model.task, wide=wide, seed=model.seed, labels=model.label_columns
    )
    scores = artefact_scores(artefact, held_out, list(dtypes))
    validation = artefact_scores(artefact, data.validation.X, list(dtypes)) if model.threshold else scores[:0]
    metrics, threshold = judge(model, data, scores, validation, outputs)
    rng = np.random.default_rng(model.seed)
    probes = contents.golden_probes(*probes_of(estimator, artefact, held_out, inputs, wide, rng), dtypes)
    plain, _ = plain_rows(held_out, rng, most=ROWS)
    answers = [artefact_scores(artefact, each, list(dtypes)) for each in (probes, plain)]
    asked = (probes, answers[0]), (plain, answers[1])
    return Converted(artefact, inputs, outputs, tuple(wide), proof, scores, metrics, threshold, *asked)


def pack(
    model: Model,
    converted: Converted,
    data: TrainingSet,
    held_out: pa.Table,
    pinned: Pinned,
    key: SigningKey,
    *,
    baseline: Mapping[str, float],
    run_id: str,
    since: int | None,
    until: int | None,
    at: int,
) -> Bundle:
    """Return the signed bundle of a converted model, trained on observations in `[since, until)`."""
    files = {
        converted.artefact.name: converted.artefact.content,
        bundles.FEATURES: pinned.features,
        bundles.REFERENCE: contents.reference_file(data.train, converted.scores, converted.outputs),
        bundles.GOLDEN: contents.golden_file(
            data.holdout.X, data.dtypes, converted.scores, converted.outputs, converted.probes, converted.plain
        ),
        bundles.HOLDOUT: contents.parquet_file(held_out),
    }
    manifest = Manifest(
        model=model.name,
        task=model.task,
        flavour=converted.artefact.flavour,
        inputs=converted.inputs,
        outputs=converted.outputs,
        curve=converted.artefact.curve,
        run_id=run_id,
        dataset_commit=pinned.commit.id,
        features_digest=pinned.tags["features_digest"],
        code_version=pinned.code_version,
        created_at=at,
        tolerance=TOLERANCE,
        metrics={**converted.metrics, **{f"baseline.{name}": value for name, value in baseline.items()}},
        extra={
            "seed": model.seed,
            "since": since,
            "until": until,
            "training_rows": len(data.train),
            "holdout_rows": len(data.holdout),
            "dropped_rows": data.dropped,
            **({"dropped": dict(data.left_out)} if data.left_out else {}),
            "label": model.truth,
            **_maturity(model),
            "float64": list(converted.wide),
            "proof": asdict(converted.proof),
            **_decision(model, converted),
            **({"answers": "FP64"} if _double(converted.artefact) else {}),
            "environment": pinned.tags["environment"],
        },
    )
    return bundles.seal(manifest, files, key)


def _decision(model: Model, converted: Converted) -> dict[str, Any]:
    """Return the manifest's record of the threshold with its costs, and the direction of each custom metric."""
    own = {each.name: each.higher_is_better for each in model.metrics if each.custom}
    found: dict[str, Any] = {OWN_METRICS: own} if own else {}
    if model.threshold is not None and converted.threshold is not None:
        found[THRESHOLD] = model.threshold.recorded(converted.threshold)
    return found


def _maturity(model: Model) -> dict[str, Any]:
    """Return the maturity settings of the label, by column for several labels; a later read of the rows needs them."""
    if model.label_columns:
        return {"labels": {each.column: {"name": each.name, **_settled(each)} for each in model.labels}}
    return _settled(model.label)


def _settled(label: Label) -> dict[str, Any]:
    if label.matures_us is None:
        return {}
    otherwise = {} if label.otherwise is None else {"otherwise": label.otherwise}
    return {"matures_us": label.matures_us, **otherwise}


def _double(artefact: Artefact) -> bool:
    """Return whether a model's outputs are float64: a calibrated native model, or an ONNX graph with float64
    outputs.
    """
    if artefact.native:
        return artefact.curve is not None
    return any(each.type == "tensor(double)" for each in open_session(artefact.content).get_outputs())
