"""Personal values of predictions, encrypted: an envelope (`security.envelopes`) for each prediction.

The prediction's id is authenticated with its values, so they cannot be moved to another row. Earlier versions wrote
`1, salt (16 bytes), nonce (12 bytes), ciphertext, tag (16 bytes)` under a key that HKDF (RFC 5869) derives from a file;
those are still read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Any

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
    """Decryption of values.

    Args:
        keys: The keys of the sealers; with `None` nothing opens.
        former: Returns the key of values that earlier versions sealed, 32 bytes; `None` if there is none.
    """

    def __init__(self, keys: Keys | None, former: Callable[[], bytes | None] = lambda: None) -> None:
        self._keys = keys
        self._former = former
        self._former_cipher = lru_cache(maxsize=1024)(_former_cipher)

    def open(self, prediction_id: str, sealed: bytes) -> dict[str, Any]:
        """Return the values by name.

        Raises:
            Corrupt: They were sealed by another key or for another prediction, or were modified; or there is no key.
            Unavailable: The key service, or the catalog, does not answer.
        """
        if sealed[: len(_FORMER)] == _FORMER:
            return self._open_former(prediction_id, sealed)
        try:
            if self._keys is not None:
                (secret,) = self._keys.secrets([envelopes.key_of(sealed)])
                return _decoder.decode(envelopes.unseal(secret, PREDICTIONS, prediction_id, sealed))
            why, fix = "there is no key", None
        except Corrupt as error:
            why, fix = error.what, error.fix
        except msgspec.DecodeError:
            why, fix = "they are not values", None
        raise Corrupt(f"The personal values of prediction {prediction_id} cannot be decrypted: {why}", fix=fix)

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
