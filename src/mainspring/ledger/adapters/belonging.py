"""Predictions that belong to a subject, in clear or encrypted: their entity keys have its values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import pyarrow.dataset as ds

from mainspring.core.errors import Corrupt
from mainspring.ledger.model import Prediction, Value
from mainspring.ledger.sealing import Opener
from mainspring.security import envelopes

COLUMNS = ("id", "endpoint", "version", "keys", "personal", "sealed")
_ROWS_AT_ONCE = 20_000
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_names = msgspec.json.Decoder(list[str]).decode
_Group = tuple[Any, ...]


class Belonging:
    """Finds the predictions of one subject.

    Values under a subject's key are opened once a key at most: all of its predictions have the same sealed keys. Where
    the sealed keys are those of the entity alone, the key's id tells, and none is opened.

    Args:
        keys: The subject's entity keys.
    """

    def __init__(self, keys: Mapping[str, Value], opener: Opener) -> None:
        self._keys = keys
        self._opener = opener
        self._own = opener.subjects_key(keys)
        self._names: dict[_Group, frozenset[str] | None] = {}  # sealed keys of predictions that are alike
        self._by_key: dict[str, Mapping[str, Any] | None] = {}  # key of a subject -> its sealed keys
        self._of_subject: dict[str, bool] = {}

    def ids(self, dataset: ds.Dataset) -> Iterator[str]:
        """Yield the ids of the subject's predictions in the lake's table."""
        for batch in dataset.to_batches(columns=list(COLUMNS), batch_size=_ROWS_AT_ONCE):
            rows = [batch[name].to_pylist() for name in COLUMNS]
            sealed = rows[-1]
            self._learn([each for each in sealed if each])
            for id_, endpoint, version, keys, personal, content in zip(*rows, strict=True):
                names = tuple(_names(personal or "[]"))
                if self._is_mine(id_, (endpoint, version, names), _decode(keys), names, content or b""):
                    yield id_

    def holds(self, prediction: Prediction) -> bool:
        """Return whether a prediction is the subject's."""
        self._learn([prediction.sealed] if prediction.sealed else [])
        group = prediction.endpoint, prediction.version, prediction.personal
        return self._is_mine(prediction.id, group, prediction.keys, prediction.personal, prediction.sealed)

    def _learn(self, sealed: Sequence[bytes]) -> None:
        ids = [each for each in {_key_of(content) for content in sealed} if each and each not in self._of_subject]
        if ids:
            self._of_subject.update(zip(ids, self._opener.are_of_subjects(ids), strict=True))

    def _is_mine(
        self, id_: str, group: _Group, clear: Mapping[str, Any], personal: Sequence[str], sealed: bytes
    ) -> bool:
        hidden = [name for name in self._keys if name not in clear]
        if any(name in clear and clear[name] != value for name, value in self._keys.items()):
            return False
        if not hidden or not sealed or any(name not in personal for name in hidden):
            return not hidden
        key = _key_of(sealed)
        if key is None or not self._of_subject.get(key):
            return self._fits(self._opened(id_, sealed), hidden)
        group = (*group, *clear)
        if group not in self._names:
            opened = self._opened(id_, sealed)
            if opened is None:
                return key == self._own
            self._names[group] = frozenset(opened)
        if self._names[group] == frozenset(self._keys):
            return key == self._own
        if key not in self._by_key:
            self._by_key[key] = self._opened(id_, sealed)
        return self._fits(self._by_key[key], hidden)

    def _fits(self, sealed: Mapping[str, Any] | None, names: Sequence[str]) -> bool:
        return sealed is not None and all(sealed.get(name) == self._keys[name] for name in names)

    def _opened(self, id_: str, sealed: bytes) -> Mapping[str, Any] | None:
        values = self._opener.open(id_, sealed)
        return None if values is None else values["keys"]


def _key_of(sealed: bytes) -> str | None:
    """Return the id of the key of an envelope; `None` for what earlier versions sealed."""
    try:
        return envelopes.key_of(sealed)
    except Corrupt:
        return None
