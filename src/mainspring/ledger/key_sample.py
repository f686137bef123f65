"""Samples of predictions by a hash of their entity keys: the same keys in each selection that has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

if TYPE_CHECKING:
    from mainspring.ledger.model import Prediction, Value

NO_KEYS = "{}"
_json = msgspec.json.Encoder()


class Hashed(NamedTuple):
    """Ids of predictions, hashes of their keys and their instants, each of shape (n,)."""

    ids: np.ndarray
    hashes: np.ndarray
    at: np.ndarray


def key_hash(keys: str) -> int:
    """Return a hash of entity keys, JSON as in the lake; 64 bits, the same in every process."""
    return int.from_bytes(blake2b(keys.encode(), digest_size=8).digest(), "big")


def hashed(predictions: Iterable[Prediction]) -> Hashed:
    """Return the hashes of those predictions that have keys."""
    rows = [(each.id, key_hash(_text(each.keys)), each.at) for each in predictions if each.keys]
    ids, hashes, at = zip(*rows, strict=True) if rows else ((), (), ())
    return Hashed(np.array(ids, str), np.array(hashes, np.uint64), np.array(at, np.int64))


def smallest(parts: Iterable[Hashed], count: int) -> list[str]:
    """Return `count` ids: of the keys with the smallest hashes the newest prediction each, then the one before, and so
    on; in memory for `count` ids and one part.
    """
    kept = hashed(())
    for part in parts:
        every = Hashed(*(np.concatenate(pair) for pair in zip(kept, part, strict=True)))
        order = np.lexsort((every.ids, -every.at, every.hashes))
        by_key = every.hashes[order]
        begins = np.flatnonzero(np.r_[True, by_key[1:] != by_key[:-1]]) if len(order) else order
        place = np.arange(len(order)) - np.repeat(begins, np.diff(np.r_[begins, len(order)]))
        # A prediction that is left out stays out: those before it keep their places, or newer ones take them.
        order = order[np.lexsort((by_key, place))[:count]]
        kept = Hashed(*(column[order] for column in every))
    found: list[str] = kept.ids.tolist()
    return found


def _text(keys: Mapping[str, Value]) -> str:
    return _json.encode(keys).decode()
