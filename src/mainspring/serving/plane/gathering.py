"""Requests put together for one call of a model: their columns, what is read for them, and which can run together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mainspring.core.errors import Corrupt, Unavailable
from mainspring.features.online import OnlineReader
from mainspring.features.state.blobs import DamagedState
from mainspring.serving.plane.watch import StoreDamaged
from mainspring.serving.protocol.schema import Rows

Columns = Mapping[str, Any]  # name -> a list, or of a model of tensors an array of shape (rows, ...)


class Gathered:
    """The rows of several requests below one another, those by key first.

    Attributes:
        features: Inputs of the model.
        sent: Columns of the requests by key.
        statuses: Of the stored features of the rows by key.
        keyed: Number of rows by key.
    """

    __slots__ = ("features", "keyed", "sent", "statuses")

    def __init__(
        self,
        features: Columns,
        sent: Columns | None = None,
        statuses: Mapping[str, Sequence[str]] | None = None,
        keyed: int = 0,
    ) -> None:
        self.features = features
        self.sent: Columns = sent or {}
        self.statuses: Mapping[str, Sequence[str]] = statuses or {}
        self.keyed = keyed


def gather(
    parts: Sequence[Rows],
    names: Sequence[str],
    reader: OnlineReader,
    now: int,
    *,
    defaults: bool = False,
    without_store: bool = False,
) -> Gathered:
    """Return the rows of a model of features; what is by key stands first in `parts`.

    Args:
        names: The model's features.
        now: As of when stored features are read, UTC epoch microseconds.
        defaults: Whether stored features have their defaults where the online store does not answer.
        without_store: Whether it is not even asked.

    Raises:
        Unavailable: The online store does not answer, or is damaged.
        Invalid: A request feature cannot be computed.
    """
    keyed = [rows for rows in parts if rows.keyed]
    if not keyed:
        return Gathered(_joined([rows.columns for rows in parts], names))
    sent = _sent(keyed)
    count = sum(rows.count for rows in keyed)
    try:
        read = reader.read(sent, now, without_store=without_store)
    except DamagedState as error:
        raise StoreDamaged("The online store holds a damaged state.") from error
    except Unavailable:
        if not defaults:
            raise
        read = reader.read(sent, now, without_store=True)
    except Corrupt as error:
        raise StoreDamaged("The online store is damaged.", lambda: reader.read(sent, now)) from error
    features: Columns = {name: read.features[name] for name in names}
    if len(keyed) < len(parts):
        features = _joined([features, *(rows.columns for rows in parts[len(keyed) :])], names)
    return Gathered(features, sent, read.statuses, count)


def stack(parts: Sequence[Rows]) -> Gathered:
    """Return the rows of a model of tensors, of one tail, where it can read them."""
    first = parts[0].columns
    if len(parts) > 1:
        return Gathered({name: np.concatenate([rows.columns[name] for rows in parts]) for name in first})
    # Binary data begin wherever the JSON before them ended.
    return Gathered({name: array if array.flags.aligned else array.copy() for name, array in first.items()})


def _joined(parts: Sequence[Columns], names: Sequence[str]) -> Columns:
    if len(parts) == 1:
        return parts[0]
    return {name: [value for part in parts for value in part[name]] for name in names}


def _sent(parts: Sequence[Rows]) -> Columns:
    """Return the columns of requests by key; null where one request lacks a column of another."""
    first = parts[0].columns
    if len(parts) == 1:
        return first
    names = first if all(rows.columns.keys() == first.keys() for rows in parts) else _union(parts)
    return {
        name: [value for rows in parts for value in rows.columns.get(name) or [None] * rows.count] for name in names
    }


def _union(parts: Sequence[Rows]) -> Sequence[str]:
    return list(dict.fromkeys(name for rows in parts for name in rows.columns))
