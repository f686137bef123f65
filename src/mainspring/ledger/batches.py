"""Batches as bytes, and their conversion to predictions.

A batch is encoded on the event loop. By columns that costs under a microsecond per prediction, less than handing its
objects to a thread, which would need the same interpreter lock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from mainspring.ledger.model import Asked, Assigned, Batch, Failure, Heading, KeptExplanation, Prediction

NOTHING = Heading("", "", "", "")  # of a batch of failures or explanations
GROUPS = ("keys", "request", "features", "statuses", "outputs")  # of a heading's names, in the order of the columns
_UNASSIGNED = Assigned("", 1.0, 0)


class Encoded(msgspec.Struct, array_like=True):
    """An encoded batch: its heading is a number, which the frame around it defines.

    A batch of failures or explanations has no predictions. An older version, which does not know the last four
    fields, reads it so.
    """

    heading: int
    at: int
    share: float
    ids: Sequence[str]
    asked: Sequence[Asked]
    columns: Sequence[Any]
    sealed: Sequence[bytes]
    assigned: Sequence[Assigned | None] = ()
    failures: Sequence[Failure] = ()
    explanations: Sequence[KeptExplanation] = ()
    cached: bool = False


def _plain(value: Any) -> Any:
    """Return an array, which MessagePack cannot represent, as a list: one value or one list per row."""
    if not hasattr(value, "tolist"):
        raise TypeError(f"A {type(value).__name__} cannot be logged.")
    rows, *shape = value.shape or (1,)
    if value.size > LARGEST_VALUE * rows:
        return [f"{value.dtype}{shape}"] * rows
    return value.tolist()


LARGEST_VALUE = 64  # elements of one row of a tensor; of larger ones the log has type and shape only

_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)


def encode(batch: Batch, heading: int) -> bytes:
    """Return the encoded batch with the number `heading` in place of its heading."""
    # As `Encoded` is read.
    fields = (heading, batch.at, batch.share, batch.ids, batch.asked, batch.columns, batch.sealed, batch.assigned)
    return _encoder.encode((*fields, (), (), True) if batch.cached else fields)


def encode_failures(failures: Sequence[Failure], heading: int) -> bytes:
    """Return the failures as a batch without predictions; `heading` is the number of `NOTHING`."""
    return _encoder.encode((heading, 0, 1.0, (), (), (), (), (), failures))


def encode_explanations(explanations: Sequence[KeptExplanation], heading: int) -> bytes:
    """Return the explanations as a batch without predictions; `heading` is the number of `NOTHING`."""
    return _encoder.encode((heading, 0, 1.0, (), (), (), (), (), (), explanations))


def check(heading: Heading, batch: Encoded) -> None:
    """Raise if a decoded batch is inconsistent.

    Raises:
        ValueError: Columns, requests or sealed values do not fit its rows or its heading.
    """
    rows, named = len(batch.ids), sum(len(getattr(heading, name)) for name in GROUPS)
    fit = len(batch.columns) == named and {*map(type, batch.columns)} <= {list} and {*map(len, batch.columns)} <= {rows}
    if not fit or sum(each.rows for each in batch.asked) != rows:
        raise ValueError(f"columns of another length than {rows} rows, or {len(batch.columns)} columns for {named}")
    if len(batch.sealed) not in (0, rows) or len(batch.assigned) not in (0, len(batch.asked)):
        raise ValueError("sealed values or assignments of another length")


def batches_of(predictions: Sequence[Prediction]) -> Iterator[Batch]:
    """Yield the predictions as batches of one row each."""
    for each in predictions:
        groups = [getattr(each, name) for name in GROUPS]
        heading = Heading(
            each.endpoint,
            each.model,
            each.version,
            each.digest,
            **{name: tuple(group) for name, group in zip(GROUPS, groups, strict=True)},
            personal=each.personal,
        )
        asked = [Asked(each.principal, each.latency_us, 1, each.request_id)]
        columns = [[value] for group in groups for value in group.values()]
        sealed = [each.sealed] if each.sealed else ()
        assigned = [Assigned(each.rollout, each.weight, each.unit, each.row)] if each.rollout else ()
        yield Batch(heading, each.at, each.share, [each.id], asked, columns, sealed, assigned, each.cached)


def predictions_of(heading: Heading, batch: Batch | Encoded) -> list[Prediction]:
    """Return the predictions of a batch, in order."""
    columns = [column if isinstance(column, list) else _plain(column) for column in batch.columns]
    rows = len(batch.ids)
    groups: list[list[dict[str, Any]]] = []
    for names in (getattr(heading, group) for group in GROUPS):
        taken, columns = columns[: len(names)], columns[len(names) :]
        groups.append([dict(zip(names, row, strict=True)) for row in zip(*taken, strict=True)] or [{}] * rows)
    asks = [asked for asked in batch.asked for _ in range(asked.rows)]
    if batch.assigned:
        arms = [
            _UNASSIGNED if each is None else each._replace(row=each.row + row)
            for asked, each in zip(batch.asked, batch.assigned, strict=True)
            for row in range(asked.rows)
        ]
    else:
        arms = [_UNASSIGNED] * rows
    sealed = batch.sealed or [b""] * rows
    return [
        Prediction(
            id=id_,
            endpoint=heading.endpoint,
            model=heading.model,
            version=heading.version,
            digest=heading.digest,
            at=batch.at,
            keys=keys,
            request=request,
            features=features,
            statuses=statuses,
            outputs=outputs,
            latency_us=asked.latency_us,
            principal=asked.principal,
            request_id=asked.request_id,
            share=batch.share,
            personal=heading.personal,
            sealed=seal,
            rollout=arm.rollout,
            weight=arm.weight,
            unit=arm.unit,
            row=arm.row,
            cached=batch.cached,
        )
        for id_, keys, request, features, statuses, outputs, asked, seal, arm in zip(
            batch.ids, *groups, asks, sealed, arms, strict=True
        )
    ]
