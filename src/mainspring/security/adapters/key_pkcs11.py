"""Master keys in a token of PKCS#11, such as a hardware security module: AES-256 keys, which it never gives out.

The address is a PKCS#11 URI (RFC 7512). Data keys are encrypted in the token with `CKM_AES_GCM`. Versions are keys with
the same label; their names are the identifiers `CKA_ID` in hexadecimal, of which the greatest is the newest.
Longer identifiers than those that are made here, as other tools draw them, are older than all others.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import pkcs11
from pkcs11 import Attribute, GCMParams, KeyType, Mechanism, ObjectClass
from pkcs11.exceptions import (
    NoSuchKey,
    NoSuchToken,
    PinExpired,
    PinIncorrect,
    PinInvalid,
    PinLenRange,
    PinLocked,
    PKCS11Error,
    UserAlreadyLoggedIn,
    UserPinNotInitialized,
)

from mainspring.core.errors import Corrupt, Denied, Invalid, NotFound, Unavailable
from mainspring.core.settings import Url
from mainspring.security.adapters.key_held import bound
from mainspring.security.model import Wrapped
from mainspring.security.secrets import read_private

_NONCE, _TAG_BITS = 12, 128
_NUMBER_BYTES, _DRAWN_BYTES = 4, 4  # of the identifier of a version that is made here
_ID_BYTES = _NUMBER_BYTES + _DRAWN_BYTES
_PINS = (PinIncorrect, PinInvalid, PinLenRange, PinLocked, PinExpired, UserPinNotInitialized)
_PROFILE = {
    Attribute.PRIVATE: True, Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.MODIFIABLE: False,
    Attribute.ENCRYPT: True, Attribute.DECRYPT: True, Attribute.WRAP: False, Attribute.UNWRAP: False,
    Attribute.SIGN: False, Attribute.VERIFY: False, Attribute.DERIVE: False,
}  # fmt: skip
_calls = threading.Lock()  # a module of PKCS#11 has one state in a process: who is logged in, and whether it is open


def _unlock() -> None:
    global _calls  # noqa: PLW0603
    _calls = threading.Lock()  # another thread may have held it at the fork, and is not in the child


os.register_at_fork(after_in_child=_unlock)

Result = TypeVar("Result")


class Pkcs11Keys:
    """A `KeyService` at `pkcs11:token=TOKEN;object=LABEL?module-path=LIBRARY&pin-source=file:PATH`.

    The PIN is in a file that only its owner may read, or, as `pin-value`, in the address. A PIN that was refused is not
    tried again by this process: tokens lock themselves after some attempts.

    Raises:
        Invalid: The address is incomplete, or has an unknown attribute.
    """

    def __init__(self, url: Url) -> None:
        parts = urlsplit(url.text)
        where, how = _attributes(parts.path, ";"), _attributes(parts.query, "&")
        complete = where.keys() == {"token", "object"} and "module-path" in how
        if not complete or how.keys() - {"module-path", "pin-source", "pin-value"}:
            raise Invalid(
                f"{url.shown} is not an address of a key in a token, or has an unknown attribute.",
                fix="write pkcs11:token=TOKEN;object=LABEL?module-path=LIBRARY&pin-source=file:PATH.",
            )
        self._label, self._token = where["object"], where["token"]
        self._module = how["module-path"]
        self._pin_file, self._pin_value = how.get("pin-source", "").removeprefix("file:"), how.get("pin-value", "")
        self._shown = f"the key {self._label} in the token {self._token}"
        self._session: Any = None
        self._process = 0  # that opened the session: it is none in a child
        self._refused = b""  # digest of a PIN

    def version(self) -> str:
        return self._with(lambda session: max(self._keys(session), key=_order)).hex()

    def wrap(self, keys: Sequence[bytes], contexts: Sequence[str]) -> list[Wrapped]:
        def wrap(session: Any) -> list[Wrapped]:
            found = self._keys(session)
            newest = max(found, key=_order)
            version, made = newest.hex(), []
            for key, context in zip(keys, contexts, strict=True):
                how = GCMParams(os.urandom(_NONCE), bound(version, context), _TAG_BITS)
                content = found[newest].encrypt(key, mechanism=Mechanism.AES_GCM, mechanism_param=how)
                made.append(Wrapped(how.nonce + content, version))
            return made

        return self._with(wrap) if keys else []

    def unwrap(self, wrapped: Sequence[Wrapped], contexts: Sequence[str]) -> list[bytes]:
        def unwrap(session: Any) -> list[bytes]:
            found = {id_.hex(): key for id_, key in self._keys(session).items()}
            if unknown := {each.version for each in wrapped} - found.keys():
                raise self._unknown(min(unknown))
            return [
                self._decrypted(found[each.version], each, context)
                for each, context in zip(wrapped, contexts, strict=True)
            ]

        try:
            return self._with(unwrap) if wrapped else []
        except NotFound as error:
            raise Corrupt(f"A data key was not wrapped by {self._shown}: {error.what}", fix=_FIX) from error

    def rotate(self) -> str:
        def make(session: Any) -> str:
            numbers = [0]
            with suppress(NoSuchKey):
                ours = [each for each in self._keys(session) if len(each) <= _ID_BYTES]
                numbers += [int.from_bytes(each) >> 8 * _DRAWN_BYTES for each in ours]
            return self._make(session, max(numbers) + 1)

        return self._with(make)

    def describe(self) -> str:
        count = self._with(lambda session: len(self._keys(session)))
        return f"{self._shown}, {count} version{'s' * (count != 1)}"

    def _keys(self, session: Any) -> dict[bytes, Any]:
        """Return the versions by identifier.

        Raises:
            Invalid: The token would give one of them out.
            NoSuchKey: There is none.
        """
        found = {}
        for key in session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: self._label}):
            if key[Attribute.EXTRACTABLE] or not key[Attribute.SENSITIVE]:
                raise Invalid(
                    f"{self._shown} can be read out of it.",
                    fix="name a key with CKA_SENSITIVE and without CKA_EXTRACTABLE, or let "
                    "`mainspring encryption rotate` make one.",
                )
            found[bytes(key[Attribute.ID])] = key
        if not found:
            raise NoSuchKey
        return found

    def _make(self, session: Any, number: int) -> str:
        """Make a version. Part of its identifier is drawn: two that are made at once are two.

        Raises:
            Invalid: There is no greater number.
        """
        if number >> 8 * _NUMBER_BYTES:
            raise Invalid(
                f"{self._shown} has a version with the greatest CKA_ID there can be.",
                fix="give that key a smaller CKA_ID, or use another label.",
            )
        identifier = number.to_bytes(_NUMBER_BYTES) + secrets.token_bytes(_DRAWN_BYTES)
        session.generate_key(KeyType.AES, 256, id=identifier, label=self._label, store=True, template=_PROFILE)
        return identifier.hex()

    def _decrypted(self, key: Any, wrapped: Wrapped, context: str) -> bytes:
        nonce, content = wrapped.content[:_NONCE], wrapped.content[_NONCE:]
        if len(content) <= _TAG_BITS // 8:
            raise Corrupt(f"{self._shown}: what is stored is no data key.", fix=_FIX)
        how = GCMParams(nonce, bound(wrapped.version, context), _TAG_BITS)
        try:
            return bytes(key.decrypt(content, mechanism=Mechanism.AES_GCM, mechanism_param=how))
        except PKCS11Error as error:
            # Modules report a wrong tag as they report a failed device. A key that works otherwise tells them apart.
            key.encrypt(b"probe", mechanism=Mechanism.AES_GCM, mechanism_param=GCMParams(os.urandom(_NONCE)))
            raise Corrupt(f"A data key cannot be decrypted with {self._shown}.", fix=_FIX) from error

    def _with(self, do: Callable[[Any], Result]) -> Result:
        """Return the result of `do` with a session. If it fails, the module is opened again, and `do` called once more.

        So a token that was restarted costs one attempt. A process that was forked opens it for itself.
        """
        with _calls:
            try:
                if self._session is not None and self._process == os.getpid():
                    with suppress(PKCS11Error):  # `NoSuchKey` too: a token that is gone has no keys
                        return do(self._session)
                self._session = None
                self._session, self._process = self._opened(), os.getpid()
                return do(self._session)
            except _PINS as error:
                raise self._denied(type(error).__name__) from error
            except NoSuchKey as error:
                raise self._unknown("yet") from error
            except NoSuchToken as error:
                raise self._away(f"{self._module} has no such token") from error
            except PKCS11Error as error:
                raise self._away(f"{type(error).__name__} {error}".strip()) from error

    def _opened(self) -> Any:
        pin = self._pin()
        library = pkcs11.lib(self._module)
        with suppress(PKCS11Error):  # a child of a fork has nothing to finalise
            library.finalize()
        library.initialize()
        token = library.get_token(token_label=self._token)
        try:
            return token.open(rw=True, user_pin=pin)
        except UserAlreadyLoggedIn:
            return token.open(rw=True)
        except _PINS:
            self._refused = hashlib.sha256(pin.encode()).digest()
            raise

    def _pin(self) -> str:
        file = Path(self._pin_file)
        pin = read_private(file, "PIN file").decode().strip() if self._pin_file else self._pin_value
        if not pin:
            raise self._denied("no PIN was given")
        if hashlib.sha256(pin.encode()).digest() == self._refused:
            raise self._denied("this PIN was refused before, and is not tried again")
        return pin

    def _denied(self, said: str) -> Denied:
        return Denied(
            f"{self._shown} was refused: {said}.",
            authenticated=True,
            fix="write the token's PIN into the file of `pin-source`, mode 0600; see whether the token is locked.",
        )

    def _unknown(self, version: str) -> NotFound:
        return NotFound(
            f"{self._shown} has no version {version}.",
            fix="name the right token and label; `mainspring encryption rotate` makes the first version.",
        )

    def _away(self, said: str) -> Unavailable:
        return Unavailable(
            f"{self._shown} did not answer: {said}.",
            fix="make the token reachable from this machine; `mainspring encryption status` asks it.",
        )


_FIX = "name the token and label under which the data keys were wrapped, or restore the catalog."


def _order(identifier: bytes) -> tuple[bool, int]:
    return len(identifier) <= _ID_BYTES, int.from_bytes(identifier)


def _attributes(text: str, separator: str) -> dict[str, str]:
    return {name: unquote(value) for name, _, value in (each.partition("=") for each in text.split(separator) if each)}
