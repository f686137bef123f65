"""The join of predictions with the labels that arrive after them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.expr.sql import quote_name
from mainspring.core.schema import DType, Schema
from mainspring.core.time import format_instant
from mainspring.data import duck
from mainspring.data.model import VISIBLE_AT, TableScan
from mainspring.features.model import Observations
from mainspring.features.offline.versions import open_versions
from mainspring.monitoring.model import STATES, Checkpoint, LabelRows
from mainspring.training.label import Label, label_keys
from mainspring.training.sets.labels import KNOWN_AT, LABEL, Join

OUTPUTS = "outputs"
_INSTANT = pa.timestamp("us", tz="UTC")

# What a key of each type looks like in the log's JSON, and how Arrow holds it. An int is never the text "1", and a
# boolean never the int 1: such a key is no key, and joins nothing.
_KEYS: dict[DType, tuple[Callable[[Any], bool], pa.DataType]] = {
    DType.String: (lambda value: isinstance(value, str), pa.string()),
    DType.Boolean: (lambda value: isinstance(value, bool), pa.bool_()),
    DType.Int32: (lambda value: type(value) is int and -(2**63) <= value < 2**63, pa.int64()),
    DType.Int64: (lambda value: type(value) is int and -(2**63) <= value < 2**63, pa.int64()),
    DType.Float32: (lambda value: type(value) in (int, float), pa.float64()),
    DType.Float64: (lambda value: type(value) in (int, float), pa.float64()),
    DType.Timestamp: (lambda value: type(value) is int and -(2**63) <= value < 2**63, pa.int64()),
}


def label_rows(
    labels: Sequence[Label],
    observations: Observations,
    scan: Callable[[str], TableScan],
    appended: Callable[[str, int], TableScan | None] = lambda _source, _version: None,
) -> LabelRows:
    """Return the label rows of a model, joined by the keys by which training joins them.

    Args:
        appended: As `LabelRows.appended`, of the source with a name.

    Raises:
        Invalid: A label's source is keyed by none of the entities.
        NotFound: A label's source has no table yet.
    """
    have = observations.source.columns
    first, *others = (
        LabelRows(
            label,
            {name: have[name] for name in label_keys(observations, label)},
            scan(label.source.name),
            partial(appended, label.source.name),
        )
        for label in labels
    )
    return replace(first, others=tuple(others))


def join_labels(predictions: pa.Table, labels: LabelRows, now: int) -> pa.Table:
    """Return the predictions whose label was known by `now` and not yet when they were made, each once.

    Labels are found as training finds them (`training.sets.labels`): of several rows for one entity the last
    record-setting one counts, of those visible by `now`, or, of a label that matures, of those visible when the
    prediction had matured; a prediction that has not has none yet. If that row's label is null, there is none.

    Args:
        predictions: `id`, `version`, `at`, `score` and `keys` (a JSON object), as the ledger reads them; of several
            labels `outputs` (a JSON object), too.
        labels: The label's table, and the key columns it shares with the predictions.
        now: The instant of the join, UTC epoch microseconds.

    Returns:
        `id`, `version`, `at`, `score`, `label` (float64, or string for a class), `lag_us` (int64: from the prediction
        to when its label could be known), in order of `at`. Of several labels `score` and `label` are structs of their
        columns, of the predictions that have every label, and the lag is the longest.
    """
    if labels.others:
        return _join_each(predictions, labels, now)
    source = labels.label.source
    kind = "VARCHAR" if source.columns[labels.label.column] is DType.String else "DOUBLE"
    keys = ", ".join(f"{_comparable(name, labels.keys)} AS {quote_name(name)}" for name in labels.keys)
    matches = " AND ".join(f"asked.{quote_name(name)} = {_comparable(name, labels.keys)}" for name in labels.keys)
    join = Join(labels.label, tuple(labels.keys), "_id", now, kind, feed="landed")
    with duck.connect() as connection:
        connection.register("observed", _asked(distinct(predictions), labels.keys))
        open_versions(connection, "landed", labels.scan, source)
        connection.execute(
            f"CREATE TEMP VIEW labels AS SELECT * REPLACE ({keys}) FROM landed SEMI JOIN observed AS asked ON {matches}"
        )
        found: pa.Table = connection.sql(
            f"SELECT _id AS id, _version AS version, _at AS at, _score AS score, {LABEL} AS label, "
            f"{KNOWN_AT} - epoch_us(_at) AS lag_us FROM ({join.sql}) "
            f"WHERE {LABEL} IS NOT NULL AND {KNOWN_AT} > epoch_us(_at) ORDER BY _at, _id"
        ).to_arrow_table()
    return found


def _join_each(predictions: pa.Table, labels: LabelRows, now: int) -> pa.Table:
    outputs = json_rows(predictions[OUTPUTS])
    place = predictions.column_names.index("score")
    found: dict[str, pa.Table] = {}
    for each in labels.each:
        name = each.label.column
        scores: list[Any] = [row.get(name) for row in outputs]
        numbers = pa.array([float(one) if isinstance(one, int | float) else None for one in scores], pa.float64())
        found[name] = join_labels(predictions.set_column(place, "score", numbers), each, now)
    ids: list[list[Any]] = [table["id"].to_pylist() for table in found.values()]
    whole = set(ids[0]).intersection(*ids[1:])
    tables = {name: table.filter(pc.is_in(table["id"], pa.array(whole, pa.string()))) for name, table in found.items()}
    first = next(iter(tables.values()))  # all are in order of `at` and `id`

    def together(column: str) -> pa.Array[Any]:
        values = [table[column].cast(pa.float64()).combine_chunks() for table in tables.values()]
        return pa.StructArray.from_arrays(values, names=list(tables))

    lag = pc.max_element_wise(*(table["lag_us"] for table in tables.values()))
    made = first.select(["id", "version", "at"])
    for column, values in (("score", together("score")), ("label", together("label")), ("lag_us", lag)):
        made = made.append_column(column, values)
    return made


def arrived(labels: LabelRows, since: int, until: int) -> bool:
    """Return whether any label row became visible in `(since, until]`, UTC epoch microseconds."""
    if labels.others:
        return any(arrived(each, since, until) for each in labels.each)
    with duck.connect() as connection:
        duck.register(connection, "labels", labels.scan)
        found = connection.execute(f"SELECT 1 FROM labels WHERE {_between(since, until)} LIMIT 1").fetchone()
    return found is not None


def changed_keys(labels: LabelRows, before: Checkpoint, until: int) -> pa.Table | None:
    """Return the keys whose label may be another at `until` than it was at a checkpoint; `None` where all may be.

    That are the keys of the rows that landed or became visible since. Where rows are versions of facts, it is those of
    all versions of their facts, since a fact may have moved to another key.
    """
    if labels.others:
        states = (before.labels or "").split(STATES)
        if len(states) != len(labels.each):
            return None
        each = [
            changed_keys(one, msgspec.structs.replace(before, labels=state), until)
            for one, state in zip(labels.each, states, strict=True)
        ]
        known = [keys for keys in each if keys is not None]
        # Where sources type a key each in its own way, the keys do not go into one table.
        one_type = all(keys.schema.equals(known[0].schema) for keys in known)
        return pa.concat_tables(known) if len(known) == len(each) and one_type else None
    version, matures = labels.version_in(before.labels), labels.label.matures_us
    came = None if version is None else labels.appended(version)
    if came is None or matures is not None:  # one label row may show that all others are mature
        return None
    source = labels.label.source
    keys = ", ".join(f"{_comparable(name, labels.keys)} AS {quote_name(name)}" for name in labels.keys)
    with duck.connect() as connection:
        duck.register(connection, "labels", labels.scan)
        duck.register(connection, "came", came)
        rows = f"SELECT * FROM labels WHERE {_between(before.until, until)} UNION ALL BY NAME SELECT * FROM came"
        if source.versioning is not None:
            fact = ", ".join(map(quote_name, source.id))
            rows = f"SELECT * FROM labels SEMI JOIN ({rows}) USING ({fact})"
        found: pa.Table = connection.sql(f"SELECT DISTINCT {keys} FROM ({rows}) AS landed").to_arrow_table()
    return found


def touched(keys: pa.Table, labels: LabelRows, batches: Iterable[pa.Table], window_us: int) -> set[int]:
    """Return the starts of the windows that have a prediction of one of the keys; batches have `at` and `keys`."""
    found: set[int] = set()
    matches = " AND ".join(f"asked.{quote_name(name)} = changed.{quote_name(name)}" for name in labels.keys)
    with duck.connect() as connection:
        connection.register("changed", keys)
        for batch in batches:
            asked = _with_keys(batch.select(["at"]).rename_columns(["_at"]), batch["keys"], labels.keys)
            connection.register("asked", asked)
            instants = connection.sql(f"SELECT DISTINCT epoch_us(_at) FROM asked SEMI JOIN changed ON {matches}")
            found.update(at // window_us * window_us for (at,) in instants.fetchall())
    return found


def distinct(predictions: pa.Table) -> pa.Table:
    """Return the table with each `id` once, where it first stands."""
    positions = pa.array(range(predictions.num_rows), pa.int64())
    numbered = predictions.select(["id"]).append_column("position", positions)
    first = numbered.group_by("id").aggregate([("position", "min")])
    if first.num_rows == predictions.num_rows:
        return predictions
    return predictions.take(first["position_min"].sort())


def json_rows(documents: pa.ChunkedArray[Any]) -> list[dict[str, Any]]:
    """Return a column of JSON objects as dictionaries; a null is an empty one."""
    texts = [text or "{}" for text in documents.to_pylist()]
    decoded: list[dict[str, Any]] = msgspec.json.decode("[" + ",".join(texts) + "]")
    return decoded


def _between(since: int, until: int) -> str:
    first, last = (f"TIMESTAMPTZ '{format_instant(each)}'" for each in (since, until))
    return f"{VISIBLE_AT} > {first} AND {VISIBLE_AT} <= {last}"


def _comparable(name: str, keys: Schema) -> str:
    # Floats meet as doubles, instants as their microseconds: the forms in which the log has them.
    if keys[name] is DType.Timestamp:
        return f'epoch_us(landed."{name}")'
    return f'CAST(landed."{name}" AS DOUBLE)' if keys[name] is DType.Float32 else f'landed."{name}"'


def _asked(predictions: pa.Table, keys: Schema) -> pa.Table:
    # A key may be called "id" or "score", but no source's column begins with an underscore.
    own = predictions.select(["id", "version", "at", "score"]).rename_columns(["_id", "_version", "_at", "_score"])
    return _with_keys(own, predictions["keys"], keys)


def _with_keys(own: pa.Table, documents: pa.ChunkedArray[Any], keys: Schema) -> pa.Table:
    rows = json_rows(documents)
    for name, dtype in keys.items():
        fits, arrow_type = _KEYS[dtype]
        values = [row.get(name) for row in rows]
        own = own.append_column(name, pa.array([value if fits(value) else None for value in values], arrow_type))
    return own
