"""Bundle of a fitted estimator: convert, prove equivalence, evaluate, pack with reference, golden and held-out rows."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from mainspring.core.schema import DType
from mainspring.core.time import DAY
from mainspring.features.offline.observed import AT
from mainspring.registry import bundles, column_codec
from mainspring.registry.model import Bundle, Input, Manifest
from mainspring.security.signing import SigningKey
from mainspring.stats import reference, sketch_history, unusual
from mainspring.stats.crossings import important
from mainspring.stats.metrics import OWN_METRICS
from mainspring.stats.sketches import Pairs, Ruler, Sketch, beside
from mainspring.stats.thresholds import THRESHOLD
from mainspring.training.equivalence.check import TOLERANCE, prove
from mainspring.training.equivalence.rows import NEAR_THRESHOLD, ROWS, at_even_steps, proof_rows
from mainspring.training.flavours import Artefact, convert_estimator
from mainspring.training.flavours.scoring import artefact_scores, open_session
from mainspring.training.frames import Array, exact_in_float32, seen_texts
from mainspring.training.gate_kinds import DataGate
from mainspring.training.judge import judge
from mainspring.training.label import Label
from mainspring.training.model import Model
from mainspring.training.mutable import MUTABLE
from mainspring.training.sets.assemble import WITHOUT
from mainspring.training.sets.labels import BASELINE_SCORE, LABEL, SCORES
from mainspring.training.sets.training_set import Split
from mainspring.training.stages import Converted, Fitted, Observed

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

CLASS_SHARES, RANGES = "class_shares", "ranges"  # keys in a manifest's `extra`
GOLDEN_ROWS, GOLDEN_PROBES = 200, 500
_MOST_CATEGORIES = 1000
_MOST_HISTORY = 2_000_000  # rows


def convert(fitted: Fitted, tell: Callable[[str, float], None]) -> Converted:
    """Convert a fitted estimator, prove the result equivalent, and evaluate it.

    Raises:
        NotConvertible: See `flavours.convert_estimator` and `equivalence.check.prove`.
    """
    tell("convert", 0.75)
    model, estimator, data = fitted.model, fitted.estimator, fitted.data
    dtypes = dict(data.dtypes)
    wide = wide_columns([data.train, data.validation, data.holdout], dtypes)
    inputs = inputs_of(data.train, dtypes)
    artefact = convert_estimator(estimator, inputs, model.task, wide=wide, labels=model.label_columns)
    split = artefact.categories  # the manifest's categories encode these text columns
    inputs = tuple(
        msgspec.structs.replace(column, categories=split[column.name]) if column.name in split else column
        for column in inputs
    )
    tell("prove", 0.8)
    held_out = data.holdout.X
    rows = proof_rows(estimator, artefact, held_out, inputs, wide=wide, seed=model.seed)
    proof = prove(estimator, artefact, rows, inputs, model.task, labels=model.label_columns)
    scores = artefact_scores(artefact, held_out, list(dtypes))
    validation = artefact_scores(artefact, data.validation.X, list(dtypes)) if model.threshold else scores[:0]
    metrics, threshold = judge(model, data, scores, validation, fitted.outputs)
    probes = golden_probes(rows.probes, rows.words, dtypes)
    plain = rows.plain if len(rows.plain) == ROWS else at_even_steps(held_out, ROWS)
    answers = [artefact_scores(artefact, each, list(dtypes)) for each in (probes, plain)]
    golden = (probes, answers[0]), (plain, answers[1])
    return Converted(fitted, artefact, inputs, tuple(wide), proof, scores, metrics, threshold, *golden)


def pack(observed: Observed, converted: Converted, run_id: str, key: SigningKey, at: int) -> Bundle:
    """Return the signed bundle of a converted model, created at `at` (UTC epoch microseconds)."""
    model, pinned, fitted, artefact = observed.model, observed.pinned, converted.fitted, converted.artefact
    data = fitted.data
    files = {
        artefact.name: artefact.content,
        bundles.FEATURES: pinned.features,
        bundles.REFERENCE: reference_file(
            data.train, converted.scores, fitted.outputs, (data.train, data.validation, data.holdout)
        ),
        bundles.GOLDEN: golden_file(
            data.holdout.X, data.dtypes, converted.scores, fitted.outputs, converted.probes, converted.plain
        ),
        bundles.HOLDOUT: parquet_file(_held_out(observed, converted)),
    }
    manifest = Manifest(
        model=model.name,
        task=model.task,
        flavour=artefact.flavour,
        inputs=converted.inputs,
        outputs=fitted.outputs,
        curve=artefact.curve,
        run_id=run_id,
        dataset_commit=pinned.commit.id,
        features_digest=pinned.tags["features_digest"],
        code_version=pinned.code_version,
        created_at=at,
        tolerance=TOLERANCE,
        metrics={**converted.metrics, **{f"baseline.{name}": value for name, value in fitted.baseline.items()}},
        extra={
            "seed": model.seed,
            "since": observed.since,
            "until": observed.until,
            "training_rows": len(data.train),
            "holdout_rows": len(data.holdout),
            "dropped_rows": data.dropped,
            **({"dropped": dict(data.left_out)} if data.left_out else {}),
            **({WITHOUT: list(observed.without)} if observed.without else {}),
            "label": model.truth,
            **_maturity(model),
            "float64": list(converted.wide),
            "proof": asdict(converted.proof),
            **_decision(model, converted),
            **_quality(model, data.train),
            **({MUTABLE: dict(model.mutable)} if model.mutable else {}),
            **({"answers": "FP64"} if _double(artefact) else {}),
            "environment": pinned.tags["environment"],
        },
    )
    return bundles.seal(manifest, files, key)


def _held_out(observed: Observed, converted: Converted) -> pa.Table:
    """Return the held-out rows with the columns that gates slice by, the model's and the baseline's predictions."""
    import pyarrow as pa

    features, held_out = converted.fitted.data.features, observed.held_out
    slices = [column for column in observed.model.slice_columns if column not in features]
    table = held_out.select([*features, *slices, AT, LABEL])
    for name, scores in ((SCORES, converted.scores), (BASELINE_SCORE, converted.fitted.baseline_scores)):
        if scores is not None:
            lists = pa.array(list(np.asarray(scores, np.float64)), pa.list_(pa.float64()))
            table = table.append_column(name, lists)
    return table


def _decision(model: Model, converted: Converted) -> dict[str, Any]:
    """Return the manifest's record of the threshold with its costs, and the direction of each custom metric."""
    directions = {metric.name: metric.higher_is_better for metric in model.metrics if metric.custom}
    record: dict[str, Any] = {OWN_METRICS: directions} if directions else {}
    if model.threshold is not None and converted.threshold is not None:
        record[THRESHOLD] = model.threshold.recorded(converted.threshold)
    return record


def _quality(model: Model, train: Split) -> dict[str, Any]:
    """Return the manifest's record of the training rows: shares of classes, and of values out of the gates' ranges."""
    record: dict[str, Any] = {}
    if model.task != "regression":
        classes, counts = np.unique(np.asarray(train.y).astype(str), return_counts=True)
        shares = sorted(zip(classes.tolist(), (counts / len(train)).tolist(), strict=True), key=lambda item: -item[1])
        record[CLASS_SHARES] = dict([*shares[: _MOST_CATEGORIES - 1], shares[-1]])  # the rarest is what gates judge
    ranges = []
    for gate in model.gates:
        if isinstance(gate, DataGate) and gate.kind == "range":
            values = train.X[gate.metric].to_numpy(np.float64)
            finite = values[~np.isnan(values)]
            low, high = -np.inf if gate.low is None else gate.low, np.inf if gate.high is None else gate.high
            share = float(((finite < low) | (finite > high)).mean()) if finite.size else 0.0
            column = {"column": gate.metric, "low": gate.low, "high": gate.high}
            ranges.append({**column, "share": share, "rows": int(finite.size)})
    return {**record, **({RANGES: ranges} if ranges else {})}


def _maturity(model: Model) -> dict[str, Any]:
    """Return the maturity settings of the label, by column for several labels; a later read of the rows needs them."""
    if model.label_columns:
        return {"labels": {label.column: {"name": label.name, **_settled(label)} for label in model.labels}}
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


def inputs_of(train: Split, dtypes: dict[str, DType]) -> tuple[Input, ...]:
    """Return the model's inputs; string inputs list the categories seen in training, unless there are over 1,000."""
    inputs = []
    for name, dtype in dtypes.items():
        categories: tuple[str, ...] = ()
        if dtype == DType.String:
            categories = seen_texts(train.X[name])
        inputs.append(Input(name, dtype, categories if len(categories) <= _MOST_CATEGORIES else ()))
    return tuple(inputs)


def wide_columns(splits: Sequence[Split], dtypes: dict[str, DType]) -> list[str]:
    """Return the numeric columns with a value that is not exact in float32."""
    numeric = [name for name, dtype in dtypes.items() if dtype not in (DType.String, DType.Float32, DType.Boolean)]
    return [name for name in numeric if not all(exact_in_float32(split.X[name].to_numpy()) for split in splits)]


def reference_file(train: Split, scores: Array, outputs: Sequence[str], history: Sequence[Split] = ()) -> bytes:
    """Return the reference profile of every training column, and of the held-out scores under the outputs' names.

    Args:
        history: Parts whose days are kept as sketches, by which monitoring judges from its first day on. The last of
            them is the held-out one, of which alone the scores are known.
    """
    columns: dict[str, Any] = {name: train.X[name].to_numpy() for name in train.X.columns}
    columns.update({name: scores[:, position] for position, name in enumerate(outputs)})
    found = reference.profile(columns)
    days = _history(found, scores, outputs, history)
    crossed, scoring = _crossed(found, scores, history), _scoring(train, history)
    return msgspec.json.encode(msgspec.structs.replace(found, history=days, crossed=crossed, scoring=scoring))


def _scoring(train: Split, parts: Sequence[Split]) -> unusual.Scoring | None:
    """Return how rare rows are among the training rows, calibrated by the parts that are not among them."""
    columns, others = _columns(train, unusual.MOST_ROWS), [part for part in parts if part is not train]
    scoring = unusual.fit(columns)
    if scoring is None or not others:
        return scoring
    share = unusual.MOST_ROWS // len(others)
    rows = [_columns(part, share) for part in others]
    return unusual.calibrated(scoring, {name: np.concatenate([each[name] for each in rows]) for name in columns})


def _columns(part: Split, most: int) -> dict[str, Array]:
    """Return the columns of a part; of very many rows, some at even steps."""
    step = max(1, -(-len(part) // most))
    return {name: part.X[name].to_numpy()[::step] for name in part.X.columns}


def _crossed(profile: reference.Reference, scores: Array, parts: Sequence[Split]) -> tuple[str, ...]:
    """Return the features that matter most for the first output on the held-out part, the last of the parts."""
    if not parts or len(parts[-1]) != len(scores):
        return ()
    held_out = parts[-1].X
    return important(profile, {name: held_out[name].to_numpy() for name in held_out.columns}, scores[:, 0])


def _history(profile: reference.Reference, scores: Array, outputs: Sequence[str], parts: Sequence[Split]) -> bytes:
    """Return the days of the parts as packed sketches; of very many rows, some at even steps."""
    features = Ruler(profile, [name for name in profile.columns if name not in outputs])
    of_outputs = Ruler(profile, outputs)
    step = -(-sum(len(part) for part in parts) // _MOST_HISTORY)
    days: dict[int, tuple[Sketch, Pairs]] = {}
    for number, part in enumerate(parts):
        rows = np.arange(0, len(part), step)
        of_rows = part.at[rows] // DAY
        values = {name: part.X[name].to_numpy()[rows] for name in features.columns}
        known = scores[rows] if number == len(parts) - 1 else scores[:0]
        for day in np.unique(of_rows).tolist():
            mine = of_rows == day
            sketch, pairs = features.measure({name: column[mine] for name, column in values.items()})
            answers = known[mine] if len(known) else known
            scored = of_outputs.sketch({name: answers[:, place] for place, name in enumerate(outputs)})
            both = beside(sketch, scored)
            before = days.get(day, (Sketch.empty(both.columns), Pairs.empty(pairs.columns)))
            days[day] = before[0] + both, before[1] + pairs
    return sketch_history.pack(
        [sketch_history.Day(day * DAY, (day + 1) * DAY, *found) for day, found in sorted(days.items())]
    )


def golden_file(
    held_out: pd.DataFrame,
    dtypes: Mapping[str, DType],
    scores: Array,
    outputs: Sequence[str],
    probes: tuple[pd.DataFrame, Array] | None = None,
    plain: tuple[pd.DataFrame, Array] | None = None,
) -> bytes:
    """Return about 200 held-out rows, spread over time, with the predictions that the bundle must reproduce.

    JSON: `inputs` maps name -> values (null for null), `outputs` maps name -> values. `probes` has both for rows with
    nulls, unseen categories and values at split thresholds; `held_out` has them, packed, for up to 10,000 others. Each
    load replays all of them.

    Args:
        probes: Probe rows, and the model's predictions for them.
        plain: Ordinary rows of the proof, and the model's predictions for them.
    """
    rows = np.unique(np.linspace(0, len(held_out) - 1, min(GOLDEN_ROWS, len(held_out))).astype(int))
    golden: dict[str, Any] = _golden(held_out, dtypes, scores, outputs, rows)
    if probes is not None:
        golden["probes"] = _golden(probes[0], dtypes, probes[1], outputs, np.arange(len(probes[0])))
    if plain is not None:
        columns = {name: plain[0][name].to_numpy() for name in dtypes}
        golden["held_out"] = column_codec.pack(columns, {name: plain[1][:, at] for at, name in enumerate(outputs)})
    return msgspec.json.encode(golden)


def golden_probes(probes: pd.DataFrame, words: Sequence[str], dtypes: Mapping[str, DType]) -> pd.DataFrame:
    """Return the probe rows that each load replays: one of each kind, and at most 500 at thresholds.

    Only rows that a request could hold: whole numbers in integer columns, 0 or 1 in Boolean columns.
    """
    fine = np.ones(len(probes), bool)
    for name, dtype in dtypes.items():
        if dtype in (DType.Int32, DType.Int64, DType.Boolean):
            values = probes[name].to_numpy(np.float64)
            whole = np.isin(values, (0, 1)) if dtype == DType.Boolean else np.floor(values) == values
            fine &= whole | np.isnan(values)
    near = np.array([NEAR_THRESHOLD in word for word in words])
    kinds = {words[row]: row for row in np.flatnonzero(fine & ~near).tolist()}
    thresholds = np.flatnonzero(fine & near)
    some = np.linspace(0, len(thresholds) - 1, min(len(thresholds), GOLDEN_PROBES)).astype(int)
    return probes.iloc[[*kinds.values(), *thresholds[some]]].reset_index(drop=True)


def _golden(
    frame: pd.DataFrame, dtypes: Mapping[str, DType], scores: Array, outputs: Sequence[str], rows: Array
) -> dict[str, Any]:
    return {
        "inputs": {
            name: [_json(value, dtype) for value in frame[name].to_numpy()[rows]] for name, dtype in dtypes.items()
        },
        "outputs": {name: [float(value) for value in scores[rows, at]] for at, name in enumerate(outputs)},
    }


def parquet_file(table: pa.Table) -> bytes:
    """Encode a table as a Parquet file."""
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd")
    return file.getvalue()


def _json(value: Any, dtype: DType) -> Any:
    if value is None or (isinstance(value, (float, np.floating)) and np.isnan(value)):
        return None
    if dtype == DType.Boolean:
        return bool(value)
    if dtype in (DType.Int32, DType.Int64):
        return int(value)
    return value if dtype == DType.String else float(value)
