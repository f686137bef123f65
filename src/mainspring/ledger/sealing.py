"""Personal values of predictions, encrypted: AES-256-GCM under a key of the installation.

A sealed value is `1, salt (16 bytes), nonce (12 bytes), ciphertext, tag (16 bytes)`. Each `Sealer` draws a salt,
derives its own key from the installation's (HKDF, RFC 5869) and counts its nonces, because random nonces under one key
are safe for 2^32 predictions only (NIST SP 800-38D, 8.3). The prediction's id is authenticated with its values, so they
cannot be moved to another row.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from functools import lru_cache
from itertools import count
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mainspring.core.errors import Corrupt
from mainspring.ledger.model import Prediction
from mainspring.ledger.ports import Seals

KEY_BYTES = 32
_FORMAT = b"\x01"
_SALT, _NONCE = 16, 12
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(dict[str, Any])


class Sealer:
    """Encryption, one object per log. Two must not share a salt, so an object must not survive in a fork."""

    def __init__(self, key: bytes) -> None:
        salt = os.urandom(_SALT)
        self._cipher = _cipher(key, salt)
        self._head = _FORMAT + salt
        self._numbers = count()

    def seal(self, prediction_id: str, values: Mapping[str, Any]) -> bytes:
        """Return the values by name, encrypted."""
        nonce = next(self._numbers).to_bytes(_NONCE)
        return self._head + nonce + self._cipher.encrypt(nonce, _encoder.encode(values), prediction_id.encode())


class Opener:
    """Decryption of values from sealers with the same key."""

    def __init__(self, key: bytes | None) -> None:
        self._cipher = None if key is None else lru_cache(maxsize=1024)(lambda salt: _cipher(key, salt))

    def open(self, prediction_id: str, sealed: bytes) -> dict[str, Any]:
        """Return the values by name.

        Raises:
            Corrupt: They were sealed by another key or for another prediction, or were modified; or there is no key.
        """
        head = len(_FORMAT) + _SALT
        if self._cipher is not None and sealed[: len(_FORMAT)] == _FORMAT:
            nonce, secret = sealed[head : head + _NONCE], sealed[head + _NONCE :]
            try:
                plain = self._cipher(sealed[len(_FORMAT) : head]).decrypt(nonce, secret, prediction_id.encode())
                return _decoder.decode(plain)
            except (InvalidTag, ValueError):
                pass
        raise Corrupt(
            f"The personal values of prediction {prediction_id} cannot be decrypted: they were encrypted with "
            "another key.",
            fix="restore keys/ledger in the state folder from a backup.",
        )


def _cipher(key: bytes, salt: bytes) -> AESGCM:
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
    """Return the prediction with its sealed values decrypted; values that were left out stay missing.

    Raises:
        Corrupt: They were sealed by another installation's key.
    """
    if not prediction.sealed:
        return prediction
    values = opener.open(prediction.id, prediction.sealed)
    return msgspec.structs.replace(
        prediction,
        keys=prediction.keys | values["keys"],
        request=prediction.request | values["request"],
        features=prediction.features | values["features"],
        personal=(),
        sealed=b"",
    )
