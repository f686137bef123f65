"""Join of predictions with labels that arrive later."""

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
from mainspring.data.model import VISIBLE_AT, SourceColumn, TableScan
from mainspring.features.model import Observations
from mainspring.features.offline.versions import open_versions
from mainspring.monitoring.model import STATES, Checkpoint, LabelRows
from mainspring.training.label import Label, label_keys
from mainspring.training.sets.labels import KNOWN_AT, LABEL, Join

OUTPUTS = "outputs"
_INSTANT = pa.timestamp("us", tz="UTC")

# For each type: the test of a key in the log's JSON, and its Arrow type. Types are strict, as an int is not the text
# "1" and a boolean is not the int 1: a key of another type joins nothing.
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
    """Return the label rows of a model, with the join keys of training.

    Args:
        appended: As `LabelRows.appended`, with the source's name as first argument.

    Raises:
        Invalid: A label's source lacks the keys of every entity.
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


def feedback_rows(
    columns: Sequence[SourceColumn],
    by_id: str,
    scan: Callable[[str], TableScan],
    appended: Callable[[str, int], TableScan | None] = lambda _source, _version: None,
) -> LabelRows:
    """Return what people say of predictions, by the predictions' ids, as label rows.

    Args:
        by_id: Column of the sources with the ids.
        appended: As for `label_rows`.

    Raises:
        NotFound: A source has no table yet.
    """
    keys = {by_id: DType.String}
    first, *others = (
        LabelRows(Label(each), keys, scan(each.source.name), partial(appended, each.source.name), by_id=by_id)
        for each in columns
    )
    return replace(first, others=tuple(others))


def join_labels(predictions: pa.Table, labels: LabelRows, now: int, *, complete: bool = False) -> pa.Table:
    """Return each prediction once whose label was known by `now` and not yet known when the prediction was made.

    The join is that of training (`training.sets.labels`). If an entity has several label rows, the last record-setting
    one counts, among those visible by `now`; for a label that matures, among those visible when the prediction matured,
    and an immature prediction has no label. If that row's label is null, there is none.

    Args:
        predictions: `id`, `version`, `at`, `score` and `keys` (a JSON object), as the ledger reads them; for several
            labels also `outputs` (a JSON object).
        labels: The label's table, and the key columns that it shares with the predictions.
        now: Time of the join, UTC epoch microseconds.
        complete: True if every prediction counts as mature, also if no label row came since.

    Returns:
        `id`, `version`, `at`, `score`, `label` (float64, or string for a class), `lag_us` (int64: from the prediction
        until its label was known), ordered by `at`. For several labels, `score` and `label` are structs of their
        columns, only predictions with every label are returned, and the lag is the longest.
    """
    if labels.others:
        return _join_each(predictions, labels, now, complete=complete)
    source = labels.label.source
    kind = "VARCHAR" if source.columns[labels.label.column] is DType.String else "DOUBLE"
    keys = ", ".join(f"{_comparable(name, labels.keys)} AS {quote_name(name)}" for name in labels.keys)
    matches = " AND ".join(f"asked.{quote_name(name)} = {_comparable(name, labels.keys)}" for name in labels.keys)
    join = Join(labels.label, tuple(labels.keys), "_id", now, kind, feed="landed", complete=complete)
    with duck.session() as connection:
        connection.register("observed", _asked(distinct(predictions), labels))
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


def label_counts(predictions: pa.Table, labels: LabelRows, now: int) -> pa.Table:
    """Return the numbers of label rows, and of different labels among them, of predictions with several label rows.

    Rows visible by `now` count, and of versions of one fact each that says something else. Of several labels the
    numbers are the largest of any label.

    Returns:
        `id`, `rows`, `values`.
    """
    found = []
    for single in labels.each:
        keys = ", ".join(f"{_comparable(name, single.keys)} AS {quote_name(name)}" for name in single.keys)
        matches = " AND ".join(f"asked.{quote_name(name)} = landed.{quote_name(name)}" for name in single.keys)
        known = f"{VISIBLE_AT} <= TIMESTAMPTZ '{format_instant(now)}'"
        with duck.session() as connection:
            connection.register("asked", _asked(distinct(predictions), single))
            duck.register(connection, "landed", single.scan)
            found.append(
                connection.sql(
                    f"SELECT asked._id AS id, count(*) AS rows, count(DISTINCT _label) AS values FROM asked JOIN "
                    f"(SELECT {keys}, {quote_name(single.label.column)} AS _label FROM landed WHERE {known}) AS landed "
                    f"ON {matches} WHERE _label IS NOT NULL GROUP BY 1 HAVING count(*) > 1"
                ).to_arrow_table()
            )
    every = pa.concat_tables(found).group_by("id").aggregate([("rows", "max"), ("values", "max")])
    return every.select(["id", "rows_max", "values_max"]).rename_columns(["id", "rows", "values"])


def _join_each(predictions: pa.Table, labels: LabelRows, now: int, *, complete: bool) -> pa.Table:
    outputs = json_rows(predictions[OUTPUTS])
    position = predictions.column_names.index("score")
    joined: dict[str, pa.Table] = {}
    for single in labels.each:
        name = single.label.column
        scores: list[Any] = [row.get(name) for row in outputs]
        numbers = pa.array([float(score) if isinstance(score, int | float) else None for score in scores], pa.float64())
        asked = predictions.set_column(position, "score", numbers)
        joined[name] = join_labels(asked, single, now, complete=complete)
    ids: list[list[Any]] = [table["id"].to_pylist() for table in joined.values()]
    everywhere = set(ids[0]).intersection(*ids[1:])
    tables = {
        name: table.filter(pc.is_in(table["id"], pa.array(everywhere, pa.string()))) for name, table in joined.items()
    }
    first = next(iter(tables.values()))  # all are in order of `at` and `id`

    def together(column: str) -> pa.Array[Any]:
        values = [table[column].cast(pa.float64()).combine_chunks() for table in tables.values()]
        return pa.StructArray.from_arrays(values, names=list(tables))

    lag = pc.max_element_wise(*(table["lag_us"] for table in tables.values()))
    result = first.select(["id", "version", "at"])
    for column, values in (("score", together("score")), ("label", together("label")), ("lag_us", lag)):
        result = result.append_column(column, values)
    return result


def arrived(labels: LabelRows, since: int, until: int) -> bool:
    """Return whether any label row became visible in `(since, until]`, UTC epoch microseconds."""
    if labels.others:
        return any(arrived(label, since, until) for label in labels.each)
    with duck.session() as connection:
        duck.register(connection, "labels", labels.scan)
        row = connection.execute(f"SELECT 1 FROM labels WHERE {_between(since, until)} LIMIT 1").fetchone()
    return row is not None


def known_through(labels: LabelRows, now: int) -> int | None:
    """Return the time up to which every label's rows are known, UTC epoch microseconds; `None` if a label has none."""
    found: list[int] = []
    by_now = f"{VISIBLE_AT} <= TIMESTAMPTZ '{format_instant(now)}'"
    for single in labels.each:
        with duck.session() as connection:
            duck.register(connection, "labels", single.scan)
            row = connection.execute(f"SELECT epoch_us(max({VISIBLE_AT})) FROM labels WHERE {by_now}").fetchone()
        if row is None or row[0] is None:
            return None
        found.append(row[0])
    return min(found)


def changed_keys(labels: LabelRows, before: Checkpoint, until: int) -> pa.Table | None:
    """Return the keys whose label may have changed between a checkpoint and `until`; `None` if all may have.

    These are the keys of rows that were ingested or became visible since. If rows are versions of facts, the keys of
    all versions of these facts are included, since a fact may have moved to another key.
    """
    if labels.others:
        states = (before.labels or "").split(STATES)
        if len(states) != len(labels.each):
            return None
        per_label = [
            changed_keys(label, msgspec.structs.replace(before, labels=state), until)
            for label, state in zip(labels.each, states, strict=True)
        ]
        key_tables = [keys for keys in per_label if keys is not None]
        # If sources declare different types of a key, the keys do not fit into one table.
        one_type = all(keys.schema.equals(key_tables[0].schema) for keys in key_tables)
        return pa.concat_tables(key_tables) if len(key_tables) == len(per_label) and one_type else None
    version, matures = labels.version_in(before.labels), labels.label.matures_us
    appended = None if version is None else labels.appended(version)
    if appended is None or matures is not None:  # a single label row may make all predictions mature
        return None
    source = labels.label.source
    keys = ", ".join(f"{_comparable(name, labels.keys)} AS {quote_name(name)}" for name in labels.keys)
    with duck.session() as connection:
        duck.register(connection, "labels", labels.scan)
        duck.register(connection, "came", appended)
        rows = f"SELECT * FROM labels WHERE {_between(before.until, until)} UNION ALL BY NAME SELECT * FROM came"
        if source.versioning is not None:
            fact = ", ".join(map(quote_name, source.id))
            rows = f"SELECT * FROM labels SEMI JOIN ({rows}) USING ({fact})"
        changed: pa.Table = connection.sql(f"SELECT DISTINCT {keys} FROM ({rows}) AS landed").to_arrow_table()
    return changed


def touched(keys: pa.Table, labels: LabelRows, batches: Iterable[pa.Table], window_us: int) -> set[int]:
    """Return the starts of windows with a prediction of a key; batches have `at`, `keys`, and `id` if asked."""
    starts: set[int] = set()
    matches = " AND ".join(f"asked.{quote_name(name)} = changed.{quote_name(name)}" for name in labels.keys)
    with duck.session() as connection:
        connection.register("changed", keys)
        for batch in batches:
            ids = batch["id"] if labels.by_id else None
            keyed = _with_keys(batch.select(["at"]).rename_columns(["_at"]), ids, batch["keys"], labels)
            connection.register("asked", keyed)
            instants = connection.sql(f"SELECT DISTINCT epoch_us(_at) FROM asked SEMI JOIN changed ON {matches}")
            starts.update(at // window_us * window_us for (at,) in instants.fetchall())
    return starts


def distinct(predictions: pa.Table) -> pa.Table:
    """Return the table with the first row of each `id`."""
    positions = pa.array(range(predictions.num_rows), pa.int64())
    numbered = predictions.select(["id"]).append_column("position", positions)
    first = numbered.group_by("id").aggregate([("position", "min")])
    if first.num_rows == predictions.num_rows:
        return predictions
    return predictions.take(first["position_min"].sort())


def json_rows(documents: pa.ChunkedArray[Any]) -> list[dict[str, Any]]:
    """Return a column of JSON objects as dictionaries; a null becomes an empty one."""
    texts = [text or "{}" for text in documents.to_pylist()]
    decoded: list[dict[str, Any]] = msgspec.json.decode("[" + ",".join(texts) + "]")
    return decoded


def _between(since: int, until: int) -> str:
    first, last = (f"TIMESTAMPTZ '{format_instant(each)}'" for each in (since, until))
    return f"{VISIBLE_AT} > {first} AND {VISIBLE_AT} <= {last}"


def _comparable(name: str, keys: Schema) -> str:
    # Floats are compared as doubles and times as microseconds, as in the log.
    if keys[name] is DType.Timestamp:
        return f'epoch_us(landed."{name}")'
    return f'CAST(landed."{name}" AS DOUBLE)' if keys[name] is DType.Float32 else f'landed."{name}"'


def _asked(predictions: pa.Table, labels: LabelRows) -> pa.Table:
    # A key may be called "id" or "score", but no source's column begins with an underscore.
    own = predictions.select(["id", "version", "at", "score"]).rename_columns(["_id", "_version", "_at", "_score"])
    return _with_keys(own, predictions["id"], predictions["keys"], labels)


def _with_keys(
    own: pa.Table, ids: pa.ChunkedArray[Any] | None, documents: pa.ChunkedArray[Any], labels: LabelRows
) -> pa.Table:
    rows = json_rows(documents)
    for name, dtype in labels.keys.items():
        if name == labels.by_id and ids is not None:
            own = own.append_column(name, ids)
            continue
        fits, arrow_type = _KEYS[dtype]
        values = [row.get(name) for row in rows]
        own = own.append_column(name, pa.array([value if fits(value) else None for value in values], arrow_type))
    return own
