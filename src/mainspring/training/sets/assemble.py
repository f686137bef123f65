"""Rows to train on, read from pinned tables: labelled observations, their features, the parts by time.

Also labelled observations that exceed memory, into a file, and the held-out rows of a bundle with another model's
features.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mainspring.core.errors import Corrupt, Invalid, InvalidData
from mainspring.core.expr.sql import quote_name, quote_text
from mainspring.core.schema import DType
from mainspring.data import duck, without
from mainspring.data.model import SEQUENCE
from mainspring.features import definitions
from mainspring.features.model import FeatureGroup, Observations
from mainspring.features.offline import point_in_time
from mainspring.features.offline.observed import AT, open_observed, without_consent
from mainspring.features.offline.pieces import Observed, count, pieces
from mainspring.features.offline.query import connection, execute
from mainspring.features.offline.stored import Scan, StoredRead
from mainspring.registry.bundles import FEATURES, HOLDOUT
from mainspring.registry.model import Bundle, several_labels
from mainspring.training.frames import to_frame
from mainspring.training.inputs import (
    all_groups,
    check_label,
    feature_types,
    features_read,
    remaining,
    sources_read,
)
from mainspring.training.label import Label, label_keys
from mainspring.training.model import Model
from mainspring.training.sets.labels import LABEL, WHY, LeftOut, joins_of, label_numbers
from mainspring.training.sets.leakage import own_columns
from mainspring.training.sets.splits import Instants, check_parts, cut_by_time
from mainspring.training.sets.training_set import Split, TrainingSet

WITHOUT = "without"  # key in a manifest's `extra`: rows that were left out, as texts that `data.without.read` takes


def labelled_observations(
    model: Model,
    scan: Scan,
    *,
    since: int | None,
    until: int | None,
    share: float = 1.0,
    stored: StoredRead | None = None,
) -> tuple[pa.Table, LeftOut]:
    """Return the observations in `[since, until)` with features and `_label`, and the reasons for those left out.

    Only labels visible at `until` count. Rows are ordered by time; times are UTC epoch microseconds. The parts are
    checked for enough rows and classes before any feature is read.

    Args:
        share: Share of the rows to take, spread evenly over time; see `subset`.
        stored: Reads the stored features instead of DuckDB, which reads them from the lake.

    Raises:
        InvalidData: A part is empty, too small or has only one class, or the labels do not fit the task.
    """
    rows, left_out = labelled(model.observations, model.labels, scan, since=since, until=until)
    rows = subset(rows, share, model.seed)
    check_parts(model, instants(rows), label_values(rows.column(LABEL), model), left_out)
    groups, only = all_groups(model), None if stored is None else features_read(model)
    schema = model.observations.source.columns
    return point_in_time(rows, groups, scan, schema=schema, at=AT, stored=stored, only=only), left_out


def subset(rows: pa.Table, share: float, seed: int) -> pa.Table:
    """Return a share of rows that are in the order of time, spread evenly over it: one at random of each so many.

    So days, hours and seasons have their parts, and no period of the data coincides with a period of the choice.

    Raises:
        Invalid: The share is not above 0, or above 1.
    """
    if not 0 < share <= 1:
        raise Invalid(f"A share of {share} of the rows cannot be taken.", fix="give a number above 0, at most 1.")
    if share == 1:
        return rows
    number = max(1, round(rows.num_rows * share)) if rows.num_rows else 0
    edges = np.arange(number + 1) * rows.num_rows // max(1, number)
    return rows.take(np.random.default_rng(seed).integers(edges[:-1], edges[1:]))


def instants(table: pa.Table) -> Instants:
    """Return the times of a table's rows, shape (rows,), UTC epoch microseconds."""
    return np.asarray(table.column(AT).cast(pa.int64()).to_numpy())


def training_set(model: Model, table: pa.Table, left_out: LeftOut) -> tuple[TrainingSet, pa.Table]:
    """Return the training set with the columns of the model and its baseline, and the held-out rows as a table, which
    also has the columns that gates slice by.

    Raises:
        InvalidData: A part is empty, or the labels do not fit the task.
    """
    dtypes = feature_types(model, (*model.columns, *model.baseline_columns))
    at = instants(table)
    cut = cut_by_time(at, model.holdout, embargo=model.embargo_us)
    labels = label_values(table.column(LABEL), model)
    frame = to_frame(table, dtypes)

    keys = table.select(label_keys(model.observations, model.label)).to_pandas()
    everything = Split(frame, labels, at, keys)
    train, validation, holdout = (everything.rows(part) for part in cut)
    counts, repeated = dict(left_out.counts), own_columns(model, table)
    data = TrainingSet(
        train, validation, holdout, dtypes, model.task, left_out.total, model.embargo_us, counts, repeated,
        model.label_columns,
    )  # fmt: skip
    names = [*dtypes, *(name for name in model.slice_columns if name not in dtypes), AT, LABEL]
    held_out = table.slice(cut.holdout.start, cut.holdout.stop - cut.holdout.start).select(names)
    return data, held_out


def label_values(column: pa.ChunkedArray[Any], model: Model) -> np.ndarray[Any, Any]:
    """Return labels of shape (rows,): 0 and 1, numbers, or classes (int64 or strings); (rows, labels) for several.

    Raises:
        InvalidData: A label does not fit the task.
    """
    if check_label(model) == DType.String:
        return np.array(column.to_pylist(), object)
    numbers = label_numbers(column, model.label_columns)
    label = model.label.name
    if (wrong := np.flatnonzero(~np.isfinite(numbers.reshape(-1, len(model.labels))).all(axis=0))).size:
        name = model.labels[int(wrong[0])].name
        raise InvalidData(f"Label {name} has NaN or infinite values.", fix="check the source with ms.checks.in_range.")
    if model.task == "regression":
        return numbers
    integers = numbers.astype(np.int64)
    if not np.array_equal(integers, numbers):
        raise InvalidData(
            f"Label {label} has values such as {numbers[integers != numbers][0]}, which cannot be classes."
        )
    if model.task == "binary" and not np.isin(integers, (0, 1)).all():
        raise InvalidData(f"Label {label} has the values {_some(integers)}; a binary label is a Boolean, or 0 and 1.")
    return integers


def _some(values: np.ndarray[Any, Any]) -> list[Any]:
    return sorted(set(values.tolist()))[:5]


def labelled(
    observations: Observations,
    labels: Sequence[Label],
    scan: Scan,
    *,
    since: int | None,
    until: int | None,
    memory_limit: str = "2GB",
) -> tuple[pa.Table, LeftOut]:
    """Return the observations in `[since, until)` that have every label, by time, and the reasons for the others.

    The columns are those of `features.offline.observe` and `_label`. If a key has several label rows, the newest value
    counts (largest event time, then recorded time, then order of arrival) among those visible at `until`; for a label
    that matures, among those visible when the observation matured. A null label counts as none. For several labels,
    `_label` is a struct of their columns.

    Args:
        since: UTC epoch microseconds, `None` from the first.
        until: Likewise; labels that became visible later are ignored. `None` for no limit.
        memory_limit: DuckDB's memory before it spills to disk.

    Raises:
        Invalid: A table was not ingested by the id that its source declares.
    """
    with _joined(observations, labels, scan, since, until, memory_limit, None) as (con, query, left_out):
        return _nullable(con.sql(query).to_arrow_table()), left_out


def write_labelled(
    path: Path,
    observations: Observations,
    labels: Sequence[Label],
    scan: Scan,
    *,
    since: int | None,
    until: int | None,
    memory_limit: str,
    temp: Path,
) -> tuple[Observed, int, LeftOut]:
    """Write what `labelled` returns to a Parquet file.

    Args:
        path: The file, not read by others before it is complete.
        temp: Folder for spilling.

    Returns:
        A function that yields the rows in pieces, the number of rows, and the reasons for the observations left out.

    Raises:
        Invalid: A table was not ingested by the id that its source declares.
        StorageFull: There is no space for the file, or for sorting.
    """
    with _joined(observations, labels, scan, since, until, memory_limit, temp) as (con, query, left_out):
        execute(con, f"COPY ({query}) TO {quote_text(str(path))} (FORMAT parquet, COMPRESSION lz4)")
    return (lambda: map(_nullable, pieces(path))), count(path), left_out


@contextmanager
def _joined(
    observations: Observations,
    labels: Sequence[Label],
    scan: Scan,
    since: int | None,
    until: int | None,
    memory_limit: str,
    temp: Path | None,
) -> Iterator[tuple[Any, str, LeftOut]]:
    """Give a connection, the query of the labelled observations, and the reasons for those left out."""
    with connection(memory_limit, temp=temp) as con, duck.duck_errors(observations.source.name):
        open_observed(con, observations, scan, since, until)
        joins = joins_of(observations, labels, until=until)
        joins.open(con, scan)
        # Joined once, without the columns that take no part: they are fetched for the rows that are labelled.
        execute(con, f"CREATE TEMP TABLE marked AS SELECT {SEQUENCE}, {LABEL}, {WHY} FROM ({joins.sql})")
        counted = con.execute(f"SELECT {WHY}, count(*) FROM marked WHERE {WHY} IS NOT NULL GROUP BY {WHY}")
        left_out = joins.left_out(con, dict(counted.fetchall()))
        if observations.consent is not None:
            left_out = left_out.and_without_consent(without_consent(con))
        names = ", ".join(quote_name(name) for name in (*observations.source.columns, AT, LABEL))
        yield (
            con,
            (
                f"SELECT {names} FROM observed JOIN marked USING ({SEQUENCE}) WHERE {LABEL} IS NOT NULL "
                f"ORDER BY {AT}, {SEQUENCE}"
            ),
            left_out,
        )


def _nullable(table: pa.Table) -> pa.Table:
    """Return a table whose columns may have nulls; in a file DuckDB marks those that have none."""
    return table.cast(pa.schema([field.with_nullable(True) for field in table.schema]))


def held_out_again(bundle: Bundle, other: Bundle, labels: Sequence[Label], scan: Scan) -> pa.Table:
    """Return the held-out rows of `bundle`, in their order, with the features that `other` was trained on.

    Args:
        bundle: Provides the observations, the time range and the label maturity.
        other: Provides the features.
        labels: The declared labels of `bundle`'s model.
        scan: Reads tables as of the dataset commit that `bundle` was trained on.

    Raises:
        Corrupt: The reconstructed rows differ from the bundle's.
        NotFound: The data of that commit no longer exists.
    """
    import pyarrow.parquet as pq

    held_out = pq.read_table(io.BytesIO(bundle.files[HOLDOUT]))
    groups, _ = definitions.load(other.files[FEATURES])
    observed, observations, scan = _observed_again(bundle, groups, labels, scan)
    rows = observed.slice(max(0, observed.num_rows - held_out.num_rows))
    if any(not rows[name].combine_chunks().equals(held_out[name].combine_chunks()) for name in (AT, LABEL)):
        raise _otherwise(bundle, "held-out")
    return point_in_time(rows, groups, scan, schema=observations.source.columns, at=AT)


def training_rows_again(bundle: Bundle, labels: Sequence[Label], scan: Scan, most: int) -> pa.Table:
    """Return rows that `bundle` was trained on, with its features: of more than `most`, that many at even steps.

    The arguments, and what it raises, are those of `held_out_again`.
    """
    groups, _ = definitions.load(bundle.files[FEATURES])
    observed, observations, scan = _observed_again(bundle, groups, labels, scan)
    count = bundle.manifest.extra.get("training_rows", 0)
    if not 0 < count <= observed.num_rows:
        raise _otherwise(bundle, "training")
    numbers = np.unique(np.linspace(0, count - 1, min(most, count)).astype(np.int64))
    rows = observed.take(numbers)
    return point_in_time(rows, groups, scan, schema=observations.source.columns, at=AT)


def _otherwise(bundle: Bundle, which: str) -> Corrupt:
    return Corrupt(
        f"The {which} rows of {bundle.manifest.model} ({bundle.digest[:12]}) cannot be read again: dataset "
        f"commit {bundle.manifest.dataset_commit} returns different rows.",
        fix=f"train it again: mainspring train {bundle.manifest.model}.",
    )


def _observed_again(
    bundle: Bundle, groups: Sequence[FeatureGroup], labels: Sequence[Label], scan: Scan
) -> tuple[pa.Table, Observations, Scan]:
    """Return the labelled observations of a bundle, without the rows that it left out, and a scan without them."""
    own, observations = definitions.load(bundle.files[FEATURES])
    extra = bundle.manifest.extra
    columns = several_labels(bundle.manifest) or (extra.get("label", "").rpartition(".")[2],)
    declared = {label.column: label for label in labels}
    if declared.keys() >= set(columns):  # the declaration may since have more labels, or another order
        labels = [declared[name] for name in columns]
    settled = extra.get("labels", {labels[0].column: extra})
    labels = [
        Label(
            label,
            matures=settled.get(label.column, {}).get("matures_us"),
            otherwise=settled.get(label.column, {}).get("otherwise"),
            entity=label.entity,
        )
        for label in labels
    ]
    if left_out := extra.get(WITHOUT):
        read = sources_read(observations, labels, [*groups, *own])
        scan = remaining(read, scan, [without.read(each) for each in left_out])
    return labelled(observations, labels, scan, since=extra["since"], until=extra["until"])[0], observations, scan
