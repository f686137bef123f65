"""Predictions with their values, failures, explanations, and labels by the predictions' ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import pyarrow as pa

from mainspring.core.errors import MainspringError
from mainspring.core.expr.sql import quote_text
from mainspring.data import duck
from mainspring.ledger.model import EXPLANATIONS, FAILURES, PREDICTIONS
from mainspring.monitoring.joins import join_labels
from mainspring.monitoring.model import LabelRows
from mainspring.operations.leaving.parquet import ParquetFiles, described, with_texts
from mainspring.operations.leaving.personal import Personal

LABELS = "predictions/labels.parquet"
_ABOUT = {
    FAILURES: "Requests to arms of rollouts that were not answered",
    EXPLANATIONS: "Kept explanations of predictions",
}
_VALUES = ("keys", "request", "features")  # columns whose documents may have personal values
_DOCUMENTS = (*_VALUES, "statuses", "outputs", "personal", "document")
_COLUMNS: dict[str, pa.DataType] = {
    **dict.fromkeys(("prediction", "endpoint", "label"), pa.string()),
    "number": pa.float64(),
    "text": pa.string(),
    "lag_us": pa.int64(),
}
_ASKED = ["id", "version", "at", "score", "keys"]  # of a prediction whose labels are looked up
_JOINED_AT_ONCE = 1 << 18
_encode, _decode = msgspec.json.Encoder().encode, msgspec.json.decode


def write_predictions(files: ParquetFiles, personal: Personal) -> None:
    """Write the tables of predictions and their labels."""
    if PREDICTIONS in files.versions:
        about = "Logged predictions"
        batches = duck.batches(files.scan(PREDICTIONS))
        change = _Opening(files) if files.reveal else _Hiding(personal)
        masked = () if files.reveal else sorted(personal.names)
        files.write(
            f"predictions/{PREDICTIONS}.parquet", about, map(change, batches), _schema(files, PREDICTIONS, about)
        )
        if masked:
            files.folder.leave_out("values in predictions", f"they identify a person: {', '.join(masked)}")
        about = "Labels of predictions, as they were known: a row for each prediction and label"
        schema = described(pa.schema(list(_COLUMNS.items())), about)
        files.write(LABELS, about, _labels(files), schema)
    for name, about in _ABOUT.items():
        if name in files.versions:
            schema = _schema(files, name, about)
            # Explanations quote inputs; those of personal ones are not kept, but a mark may be newer than they are.
            quoting = {"document"} if personal.names and not files.reveal else set[str]()
            hidden = quoting & {*schema.names}
            batches = duck.batches(files.scan(name), [each for each in schema.names if each not in hidden])
            files.write(f"predictions/{name}.parquet", about, batches, schema, hidden)


def _schema(files: ParquetFiles, table: str, about: str) -> pa.Schema:
    columns = files.schema_of(table, without=lambda each: each in ("sealed", "arrival"))
    return described(columns, about, documents=_DOCUMENTS)


class _Opening:
    """Decrypts the values of predictions; those of erased subjects stay away."""

    def __init__(self, files: ParquetFiles) -> None:
        self._opener = files.project.opener

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        sealed: list[Any] = batch["sealed"].to_pylist() if "sealed" in batch.schema.names else []
        if not any(sealed):
            return batch
        opened = self._opener.open_all(
            [str(each) for each in batch["id"].to_pylist()], [each or b"" for each in sealed]
        )
        columns: dict[str, list[Any]] = {name: batch[name].to_pylist() for name in (*_VALUES, "personal")}
        for row, values in enumerate(opened):
            if values is None or self._opener.is_erased(_decode(columns["keys"][row]), values):
                continue
            for name in _VALUES:
                columns[name][row] = _encode(_decode(columns[name][row]) | values[name]).decode()
            columns["personal"][row] = "[]"
        return with_texts(batch, columns)


class _Hiding:
    """Removes values that identify a person by the marks of today, or of the training of the version that answered.

    What was encrypted when it was logged is not here in clear.
    """

    def __init__(self, personal: Personal) -> None:
        self._personal = personal

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        digests: list[Any] = batch["digest"].to_pylist()
        named = {each: self._personal.names | (self._personal.of_bundle(each) or frozenset()) for each in {*digests}}
        if not any(named.values()):
            return batch
        columns: dict[str, list[Any]] = {name: batch[name].to_pylist() for name in (*_VALUES, "personal")}
        for row, digest in enumerate(digests):
            values = {name: _decode(columns[name][row]) for name in _VALUES}
            hidden = {each for of in values.values() for each in of if each in named[digest]}
            if not hidden:
                continue
            for name, of in values.items():
                left = {each: value for each, value in of.items() if each not in hidden}
                columns[name][row] = _encode(left).decode()
            before = _decode(columns["personal"][row] or "[]")
            columns["personal"][row] = _encode(sorted({*before, *hidden})).decode()
        return with_texts(batch, columns)


def _labels(files: ParquetFiles) -> Iterator[pa.RecordBatch]:
    batches = duck.batches(files.scan(PREDICTIONS), ["endpoint"])
    opening = _Opening(files)  # keys that identify a person find labels too, which name nobody
    for endpoint in sorted({str(each) for batch in batches for each in batch["endpoint"].to_pylist()}):
        try:
            labels = files.project.label_rows(endpoint)
        except MainspringError:  # an endpoint that is no longer declared has no labels
            continue
        if labels is not None:
            found = duck.batches(files.scan(PREDICTIONS), where=f"endpoint = {quote_text(endpoint)}")
            for batch in _together(opening(each).select(_ASKED) for each in found):
                yield from _joined(files, endpoint, batch, labels)


def _joined(files: ParquetFiles, endpoint: str, batch: pa.RecordBatch, labels: LabelRows) -> Iterator[pa.RecordBatch]:
    asked = pa.Table.from_batches([batch])
    for single in labels.each:
        if single.label.column in single.label.source.pii and not files.reveal:
            continue
        found = join_labels(asked, single, files.folder.begun.at)
        rows: list[Any] = found["label"].to_pylist()
        text = pa.types.is_string(found.schema.field("label").type)
        columns: list[Any] = [
            found["id"].to_pylist(), [endpoint] * len(rows), [single.label.name] * len(rows),
            [None] * len(rows) if text else rows, rows if text else [None] * len(rows), found["lag_us"].to_pylist(),
        ]  # fmt: skip
        arrays = [pa.array(values, kind) for values, kind in zip(columns, _COLUMNS.values(), strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, names=[*_COLUMNS])


def _together(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield larger batches: each join reads all of the label's table."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(map(len, held)) >= _JOINED_AT_ONCE:
            yield from pa.Table.from_batches(held).combine_chunks().to_batches()
            held = []
    if held:
        yield from pa.Table.from_batches(held).combine_chunks().to_batches()
