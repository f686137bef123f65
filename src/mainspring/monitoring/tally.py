"""Labelled predictions of a window: later predictions are added without reading earlier ones."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import msgspec
import numpy as np
import pyarrow as pa

_COUNTING = 3  # increment if `Tally` changes its way of counting
LABELLED = ("version", "score", "label", "lag_us")  # columns of labelled predictions that a window needs


class TallyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Stored form of `Tally`, without labels, which are joined again."""

    share: float
    rows: int


class TallyRecords(msgspec.Struct, frozen=True, kw_only=True):
    """Stored tallies of several windows, by start."""

    counting: int  # another release may count in another way: see `_COUNTING`
    tallies: dict[int, TallyRecord]


class Tally:
    """Labelled predictions of one window.

    Predictions logged with a larger sampling share than the window's smallest are thinned to it, so that each has the
    same chance to count. The selection is a function of their ids.

    Args:
        share: The smallest share in the window, if known.

    Attributes:
        rows: Number of predictions that were added.
        uneven: A later prediction had a smaller share than earlier ones were thinned to, so the labels are wrong, and
            the window must be read again with `share`.
        labelled: Labelled predictions: the columns `LABELLED` of results of `joins.join_labels`.
    """

    def __init__(self, share: float = math.inf, rows: int = 0) -> None:
        self.share = share
        self.rows = rows
        self.uneven = False
        self.labelled: list[pa.Table] = []

    def add(self, rows: pa.Table) -> pa.Table:
        """Add predictions of the window, and return those that count."""
        least = float(rows["share"].to_numpy().min())
        if least < self.share:
            self.uneven = self.uneven or self.rows > 0
            self.share = least
        rows = thinned(rows, self.share)
        self.rows += rows.num_rows
        return rows


def stored(tallies: Mapping[int, Tally]) -> bytes:
    """Encode the tallies by window start, without their labels."""
    records = {start: TallyRecord(share=tally.share, rows=tally.rows) for start, tally in tallies.items()}
    return msgspec.msgpack.encode(TallyRecords(counting=_COUNTING, tallies=records))


def restored(content: bytes) -> dict[int, Tally] | None:
    """Decode tallies from `stored`, or return `None` if their windows must be read again."""
    try:
        records = msgspec.msgpack.decode(content, type=TallyRecords)
    except msgspec.MsgspecError:
        return None
    if records.counting != _COUNTING:
        return None
    return {start: Tally(record.share, record.rows) for start, record in records.tallies.items()}


def thinned(rows: pa.Table, share: float) -> pa.Table:
    """Return the rows that would exist had `share` of the requests been logged, where more were."""
    shares = rows["share"].to_numpy()
    if shares.max() <= share:
        return rows
    draws = np.array([zlib.crc32(str(identifier).encode()) for identifier in rows["id"].to_pylist()]) / 2**32
    return rows.filter(pa.array((shares <= share) | (draws < share / shares)))
