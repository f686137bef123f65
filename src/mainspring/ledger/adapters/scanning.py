"""Selected predictions of the lake's table, in bounded memory."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from mainspring.ledger.columns import INSTANT, from_table
from mainspring.ledger.key_sample import NO_KEYS, Hashed, hashed, key_hash, smallest
from mainspring.ledger.model import Prediction, Selection

_ROWS_AT_ONCE = 8_192
_IDS_AT_ONCE = 131_072


def sample(dataset: ds.Dataset, selection: Selection, count: int, seed: int) -> list[str]:
    """Return the ids of `count` selected rows: each row draws a number, and the smallest are kept."""
    rng = np.random.default_rng(seed)
    kept: list[str] = []
    numbers = np.empty(0)
    exact = _needs_rows(selection)
    columns = None if exact else ["id"]
    for batch in dataset.to_batches(
        columns=columns, filter=where(selection), batch_size=_ROWS_AT_ONCE if exact else _IDS_AT_ONCE,
        batch_readahead=1, fragment_readahead=1, use_threads=False,
    ):  # fmt: skip
        if exact:
            rows = from_table(pa.Table.from_batches([batch]))
            ids = [each.id for each in rows if selection.holds(each)]
            drawn = rng.random(len(ids))
        else:
            # Of a large batch, few rows can be among the smallest: only their ids become texts.
            drawn = rng.random(batch.num_rows)
            largest = numbers.max() if len(kept) == count > 0 else 1.0
            low = np.flatnonzero(drawn < largest)
            drawn, ids = drawn[low], [str(each) for each in batch["id"].take(pa.array(low, pa.int64())).to_pylist()]
        kept, numbers = kept + ids, np.r_[numbers, drawn]
        if len(kept) > count:
            chosen = np.argpartition(numbers, count)[:count]
            kept, numbers = [kept[place] for place in chosen.tolist()], numbers[chosen]
    return kept


def sample_by_key(dataset: ds.Dataset, selection: Selection, count: int) -> list[str]:
    """Return the ids of `count` selected rows, by the hashes of their keys."""
    if _needs_rows(selection):
        return smallest(map(hashed, scan(dataset, selection, None)), count)
    wanted, keyed = where(selection), ~same("keys", NO_KEYS)
    batches = dataset.to_batches(
        columns=["id", "keys", "at"], filter=keyed if wanted is None else wanted & keyed, batch_size=_IDS_AT_ONCE,
        batch_readahead=1, fragment_readahead=1, use_threads=False,
    )  # fmt: skip
    return smallest(map(_hashed, batches), count)


def _hashed(batch: pa.RecordBatch) -> Hashed:
    keys: Any = batch["keys"].dictionary_encode()
    hashes = np.array([key_hash(str(text)) for text in keys.dictionary.to_pylist()], np.uint64)
    return Hashed(
        np.array(batch["id"].to_pylist(), str), hashes[keys.indices.to_numpy()], batch["at"].cast(pa.int64()).to_numpy()
    )


def scan(dataset: ds.Dataset, selection: Selection, ids: Collection[str] | None) -> Iterator[list[Prediction]]:
    """Yield the selected rows in batches."""
    wanted = where(selection)
    if ids is not None:
        named = pc.field("id").cast(pa.large_string()).isin(pa.array(list(ids), pa.large_string()))
        wanted = named if wanted is None else wanted & named
    kept: list[Prediction] = []
    for batch in dataset.to_batches(
        filter=wanted, batch_size=_ROWS_AT_ONCE, batch_readahead=1, fragment_readahead=1, use_threads=False
    ):
        if batch.num_rows:
            found = from_table(pa.Table.from_batches([batch]))
            kept += [each for each in found if selection.holds(each)] if _needs_rows(selection) else found
        while len(kept) >= _ROWS_AT_ONCE:
            yield kept[:_ROWS_AT_ONCE]
            kept = kept[_ROWS_AT_ONCE:]
    if kept:
        yield kept


def where(selection: Selection) -> pc.Expression | None:
    """Return the condition on the table's columns; of keys and statuses it is necessary, and not sufficient."""
    at, score = pc.field("at"), pc.field("score")
    found = [
        same(name, value)
        for name, value in (("endpoint", selection.endpoint), ("version", selection.version))
        if value is not None
    ]
    if selection.id_prefix:
        found.append(pc.starts_with(pc.field("id").cast(pa.large_string()), selection.id_prefix))
    if selection.since is not None:
        found.append(at >= pa.scalar(selection.since, INSTANT))
    if selection.until is not None:
        found.append(at < pa.scalar(selection.until, INSTANT))
    if selection.score_from is not None:
        found.append(score >= selection.score_from)
    if selection.score_to is not None:
        found.append(score <= selection.score_to)
    found += [
        pc.match_substring(pc.field("keys"), msgspec.json.encode(text).decode()[1:-1])
        for text in selection.keys.values()
    ]
    if selection.status is not None:
        found.append(pc.match_substring(pc.field("statuses"), f'"{selection.status}"'))
    together = found[0] if found else None
    for each in found[1:]:
        together = each if together is None else together & each
    return together


def same(column: str, text: str) -> pc.Expression:
    """Return the condition that a column equals a text.

    Files that a deletion wrote anew hold statistics of another type of strings, with which pyarrow cannot compare. So
    the values are cast, and the statistics not used.
    """
    return pc.field(column).cast(pa.large_string()) == pa.scalar(text, pa.large_string())


def _needs_rows(selection: Selection) -> bool:
    return bool(selection.keys) or selection.status is not None
