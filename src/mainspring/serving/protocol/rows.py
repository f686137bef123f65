"""Rows as lines: CSV without a header, and JSON objects, one a line. They become the body of an `infer`, and back.

A cell of CSV is read by the datatype of its column, which is that of the model's inputs in their order; an empty one is
null. An object has values by name: features, or keys and fields of the request.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from mainspring.core.errors import Invalid
from mainspring.serving.protocol.asked import Answered

CSV, LINES = "text/csv", "application/jsonlines"
MEDIA = (CSV, LINES)
_TRUTHS = {"true": True, "1": True, "false": False, "0": False}


def read_rows(body: bytes, media: str, inputs: Mapping[str, str], others: Mapping[str, str]) -> bytes:
    """Return rows as the body of an `infer`.

    Args:
        inputs: Datatypes of the model's inputs by name, in their order.
        others: Of the further names that an object may have.

    Raises:
        Invalid: A line is not of the format, or has another number of cells, an unknown name or a wrong value.
    """
    columns = _of_csv(body, inputs) if media == CSV else _of_lines(body, {**inputs, **others})
    datatypes = {**inputs, **others}
    count = len(next(iter(columns.values()), []))
    tensors = [
        {"name": name, "shape": [count], "datatype": datatypes[name], "data": values}
        for name, values in columns.items()
    ]
    return msgspec.json.encode({"inputs": tensors})


def write_rows(answered: Answered, media: str) -> bytes:
    """Return the outputs of each row on a line of its own."""
    columns = {each.name: np.asarray(each.data).tolist() for each in answered.outputs}
    rows = list(zip(*columns.values(), strict=True))
    if media == LINES:
        return b"".join(msgspec.json.encode(dict(zip(columns, row, strict=True))) + b"\n" for row in rows)
    told = io.StringIO()
    csv.writer(told, lineterminator="\n").writerows(rows)
    return told.getvalue().encode()


def _of_csv(body: bytes, inputs: Mapping[str, str]) -> dict[str, list[Any]]:
    try:
        rows = [row for row in csv.reader(io.StringIO(body.decode("utf-8"), newline=""), strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise Invalid(f"The body is not CSV: {error}.") from None
    for number, row in enumerate(rows, 1):
        if len(row) != len(inputs):
            raise Invalid(
                f"Line {number} has {len(row)} cells, and the model takes {len(inputs)}.",
                fix=f"send {', '.join(inputs)}, in this order and without a header.",
            )
    reads = [_cell(datatype) for datatype in inputs.values()]
    return {
        name: [_read(row[place], reads[place], number, name) for number, row in enumerate(rows, 1)]
        for place, name in enumerate(inputs)
    }


def _cell(datatype: str) -> Callable[[str], Any]:
    if datatype == "BOOL":
        return lambda text: _TRUTHS[text.lower()]
    if datatype == "BYTES":
        return str
    return _float if datatype.startswith("FP") else int


def _float(text: str) -> float | None:
    value = float(text)
    if math.isinf(value):
        raise ValueError
    return None if math.isnan(value) else value


def _read(text: str, read: Callable[[str], Any], number: int, name: str) -> Any:
    if not text:
        return None
    try:
        return read(text)
    except (ValueError, KeyError):
        raise Invalid(f"Line {number}: {text[:40]!r} is no value of {name!r}.") from None


def _of_lines(body: bytes, known: Mapping[str, str]) -> dict[str, list[Any]]:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(body.splitlines(), 1):
        if not line.strip():
            continue
        try:
            rows.append(msgspec.json.decode(line, type=dict[str, Any]))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Invalid(f"Line {number} is no JSON object: {error}.") from None
    names = dict.fromkeys(name for row in rows for name in row)
    if unknown := [name for name in names if name not in known]:
        raise Invalid(f"There is no input {unknown[0][:100]!r}.", fix=f"the inputs are {', '.join(known)}.")
    return {name: [row.get(name) for row in rows] for name in names}


def media_of(content_type: str | None, among: Sequence[str] = MEDIA) -> str:
    """Return the media type of a header if it is one of rows, else an empty text."""
    found = (content_type or "").partition(";")[0].strip().lower()
    return found if found in among else ""
