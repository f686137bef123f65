"""Personal values of predictions, encrypted: an envelope (`security.envelopes`) for each prediction.

The prediction's id is authenticated with its values, so they cannot be moved to another row. Earlier versions wrote
`1, salt (16 bytes), nonce (12 bytes), ciphertext, tag (16 bytes)` under a key that HKDF (RFC 5869) derives from a file;
those are still read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mainspring.core.errors import Corrupt
from mainspring.ledger.model import PREDICTIONS, Prediction
from mainspring.ledger.ports import Seals
from mainspring.security import envelopes
from mainspring.security.ports import Keys
from mainspring.security.subject_keys import SubjectKeys

KEY_BYTES = 32
_FORMER = b"\x01"
_SALT, _NONCE = 16, 12
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(dict[str, Any])


class Sealer:
    """Encryption under the key of the purpose `predictions`."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def seal(self, prediction_id: str, values: Mapping[str, Any]) -> bytes:
        return envelopes.seal(self._keys.newest(PREDICTIONS), PREDICTIONS, prediction_id, _encoder.encode(values))


class Opener:
    """Decryption of values, and their encryption under their subjects' keys where they are stored for long.

    The subject of a prediction is its entity keys that identify a person, or else all of its entity keys.

    Args:
        keys: The keys of the sealers; with `None` nothing opens.
        former: Returns the key of values that earlier versions sealed, 32 bytes; `None` if there is none.
        subjects: Keys of subjects; with `None` there are none.
    """

    def __init__(
        self,
        keys: Keys | None,
        former: Callable[[], bytes | None] = lambda: None,
        subjects: SubjectKeys | None = None,
    ) -> None:
        self._keys = keys
        self._former = former
        self._subjects = subjects
        self._former_cipher = lru_cache(maxsize=1024)(_former_cipher)

    def open(self, prediction_id: str, sealed: bytes) -> dict[str, Any] | None:
        """Return the values by name of one prediction. See `open_all`."""
        return self.open_all([prediction_id], [sealed])[0]

    def open_all(self, ids: Sequence[str], sealed: Sequence[bytes]) -> list[dict[str, Any] | None]:
        """Return the values by name of each prediction; `None` where there are none, or their subject was erased.

        Raises:
            Corrupt: They were sealed by another key or for another prediction, or were modified; or there is no key.
            Unavailable: The key service, or the catalog, does not answer.
        """
        opened: list[dict[str, Any] | None] = [
            self._open_former(id_, each) if each[: len(_FORMER)] == _FORMER else None
            for id_, each in zip(ids, sealed, strict=True)
        ]
        rows = [row for row, each in enumerate(sealed) if each and each[: len(_FORMER)] != _FORMER]
        named = list[str]()
        for row in rows:
            with _about(ids[row]):
                named.append(envelopes.key_of(sealed[row]))
        if not rows:
            return opened
        with _about(ids[rows[0]]):
            secrets = self._secrets(named)
        for row, secret in zip(rows, secrets, strict=True):
            if secret is not None:
                with _about(ids[row]):
                    opened[row] = _decoder.decode(envelopes.unseal(secret, PREDICTIONS, ids[row], sealed[row]))
        return opened

    def resealed(
        self, ids: Sequence[str], keys: Sequence[Mapping[str, Any]], sealed: Sequence[bytes]
    ) -> Sequence[bytes]:
        """Return values encrypted under the keys of their subjects; those of erased subjects are left out.

        Args:
            keys: The predictions' entity keys that are not sealed.
        """
        if self._subjects is None:
            return sealed
        opened = self.open_all(ids, sealed)
        subjects = [
            None if values is None else _subject_of(plain, values["keys"])
            for plain, values in zip(keys, opened, strict=True)
        ]
        under = iter(self._subjects.keys([each for each in subjects if each is not None]))
        found = list[bytes]()
        for id_, each, values, subject in zip(ids, sealed, opened, subjects, strict=True):
            if subject is None:
                found.append(b"" if values is None else each)
                continue
            key = next(under)
            found.append(b"" if key is None else envelopes.seal(key, PREDICTIONS, id_, _encoder.encode(values)))
        return found

    def is_erased(self, keys: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
        """Return whether the subject of a prediction was erased, whose values another key has encrypted.

        Args:
            keys: Its entity keys that are not sealed.
            values: Its opened values.
        """
        subject = _subject_of(keys, values["keys"])
        return self._subjects is not None and subject is not None and self._subjects.erased([subject])[0]

    def subjects_key(self, keys: Mapping[str, Any]) -> str | None:
        """Return the id of the key of the subject with these keys; `None` if there never was one."""
        return None if self._subjects is None else self._subjects.ids([subject_named(keys)])[0]

    def are_of_subjects(self, ids: Sequence[str]) -> list[bool]:
        """Return whether keys, by their ids, are those of subjects."""
        return [False] * len(ids) if self._subjects is None else self._subjects.are_of_subjects(ids)

    def _secrets(self, ids: Sequence[str]) -> Sequence[bytes | None]:
        if self._subjects is not None:
            return self._subjects.secrets(ids)
        if self._keys is not None:
            return self._keys.secrets(ids)
        raise Corrupt("There is no key.")

    def _open_former(self, prediction_id: str, sealed: bytes) -> dict[str, Any]:
        head, key = len(_FORMER) + _SALT, self._former()
        if key is not None:
            nonce, secret = sealed[head : head + _NONCE], sealed[head + _NONCE :]
            try:
                cipher = self._former_cipher(key, sealed[len(_FORMER) : head])
                return _decoder.decode(cipher.decrypt(nonce, secret, prediction_id.encode()))
            except (InvalidTag, ValueError):
                pass
        raise Corrupt(
            f"The personal values of prediction {prediction_id} cannot be decrypted: they were encrypted with "
            "another key.",
            fix="restore keys/ledger in the state folder from a backup.",
        )


@contextmanager
def _about(prediction_id: str) -> Iterator[None]:
    """Name the prediction in errors of the block."""
    try:
        yield
    except (Corrupt, msgspec.DecodeError) as error:
        why, fix = (error.what, error.fix) if isinstance(error, Corrupt) else ("they are not values", None)
        raise Corrupt(
            f"The personal values of prediction {prediction_id} cannot be decrypted: {why}", fix=fix
        ) from None


def _subject_of(keys: Mapping[str, Any], personal: Mapping[str, Any]) -> str | None:
    """Return the name of a prediction's subject; `None` if it has no entity keys."""
    return subject_named(personal or keys) or None


def subject_named(keys: Mapping[str, Any]) -> str:
    """Return the name of the subject with these keys."""
    return urlencode(sorted((name, str(value)) for name, value in keys.items()))


def _former_cipher(key: bytes, salt: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), KEY_BYTES, salt=salt, info=b"mainspring ledger 1").derive(key))


def hidden(prediction: Prediction, personal: Collection[str] | None, sealer: Seals | None) -> Prediction:
    """Return the prediction with its personal values encrypted, as `revealed` decrypts them.

    Args:
        personal: Their names; `None` if nobody can tell, and every value but the outputs is taken for one.
        sealer: With `None` they are left out.
    """
    groups = {"keys": prediction.keys, "request": prediction.request, "features": prediction.features}
    values = {
        group: {name: value for name, value in of.items() if personal is None or name in personal}
        for group, of in groups.items()
    }
    names = tuple(dict.fromkeys(name for of in values.values() for name in of))
    if not names:
        return prediction
    kept = {
        group: {name: value for name, value in of.items() if name not in values[group]} for group, of in groups.items()
    }
    sealed = b"" if sealer is None else sealer.seal(prediction.id, values)
    return msgspec.structs.replace(prediction, **kept, personal=names, sealed=sealed)


def revealed(prediction: Prediction, opener: Opener) -> Prediction:
    """Return the prediction with its sealed values decrypted; those that were left out, or erased, stay missing.

    Raises:
        Corrupt: They were sealed by another installation's key.
    """
    if not prediction.sealed:
        return prediction
    values = opener.open(prediction.id, prediction.sealed)
    if values is None or opener.is_erased(prediction.keys, values):
        return msgspec.structs.replace(prediction, sealed=b"")
    return msgspec.structs.replace(
        prediction,
        keys=prediction.keys | values["keys"],
        request=prediction.request | values["request"],
        features=prediction.features | values["features"],
        personal=(),
        sealed=b"",
    )
