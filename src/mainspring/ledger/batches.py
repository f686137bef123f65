"""Batches as bytes, and their conversion to predictions.

A batch is encoded on the event loop. By columns that costs under a microsecond per prediction, less than handing its
objects to a thread, which would need the same interpreter lock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from mainspring.ledger.model import Asked, Assigned, Batch, Failure, Heading, Prediction

NOTHING = Heading("", "", "", "")  # of a batch of failures
_UNASSIGNED = Assigned("", 1.0, 0)


class Encoded(msgspec.Struct, array_like=True):
    """An encoded batch: its heading is a number, which the frame around it defines.

    A batch of failures has no predictions. An older version, which does not know the last two fields, reads it so.
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
    return _encoder.encode(
        (heading, batch.at, batch.share, batch.ids, batch.asked, batch.columns, batch.sealed, batch.assigned)
    )


def encode_failures(failures: Sequence[Failure], heading: int) -> bytes:
    """Return the failures as a batch without predictions; `heading` is the number of `NOTHING`."""
    return _encoder.encode((heading, 0, 1.0, (), (), (), (), (), failures))


def batches_of(predictions: Sequence[Prediction]) -> Iterator[Batch]:
    """Yield the predictions as batches of one row each."""
    for each in predictions:
        groups = (each.keys, each.request, each.features, each.statuses, each.outputs)
        heading = Heading(
            each.endpoint,
            each.model,
            each.version,
            each.digest,
            keys=tuple(each.keys),
            request=tuple(each.request),
            features=tuple(each.features),
            statuses=tuple(each.statuses),
            outputs=tuple(each.outputs),
            personal=each.personal,
        )
        asked = [Asked(each.principal, each.latency_us, 1, each.request_id)]
        columns = [[value] for group in groups for value in group.values()]
        sealed = [each.sealed] if each.sealed else ()
        assigned = [Assigned(each.rollout, each.weight, each.unit, each.row)] if each.rollout else ()
        yield Batch(heading, each.at, each.share, [each.id], asked, columns, sealed, assigned)


def predictions_of(heading: Heading, batch: Batch | Encoded) -> list[Prediction]:
    """Return the predictions of a batch, in order."""
    columns = [column if isinstance(column, list) else _plain(column) for column in batch.columns]
    rows = len(batch.ids)
    groups: list[list[dict[str, Any]]] = []
    for names in (heading.keys, heading.request, heading.features, heading.statuses, heading.outputs):
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
        )
        for id_, keys, request, features, statuses, outputs, asked, seal, arm in zip(
            batch.ids, *groups, asks, sealed, arms, strict=True
        )
    ]
