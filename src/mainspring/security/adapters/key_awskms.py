"""Master keys in AWS KMS. Data keys are encrypted there, each in a call; the context is the encryption context."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)

from mainspring.core.errors import Corrupt, Denied, Invalid, MainspringError, NotFound, Unavailable
from mainspring.core.object_store_url import IN_CLEAR, check_encrypted
from mainspring.core.settings import Url
from mainspring.core.time import parse_duration
from mainspring.security.model import Wrapped

_CALLS_AT_ONCE = 16
_OPTIONS = ("endpoint", "timeout", IN_CLEAR)
_DAMAGED = frozenset({"InvalidCiphertextException", "IncorrectKeyException", "ValidationException"})
_DENIED = frozenset({
    "AccessDeniedException", "UnrecognizedClientException", "InvalidSignatureException", "ExpiredTokenException",
    "InvalidClientTokenId", "MissingAuthenticationToken", "IncompleteSignature",
})  # fmt: skip


class AwsKmsKeys:
    """A `KeyService` at `awskms://REGION/KEY`, where KEY is `alias/NAME`, a key's id or its ARN.

    Versions are the ARNs of keys: a new one is a key of its own, to which the alias is moved. Rotation of the material
    behind a key is AWS's own, and shows nowhere. Credentials come as with AWS's own tools.

    Raises:
        Invalid: The address names no key, or has an unknown option.
    """

    def __init__(self, url: Url) -> None:
        parts, given = urlsplit(url.text), dict(parse_qsl(urlsplit(url.text).query))
        self._key, self._region = unquote(parts.path.strip("/")), parts.netloc
        if not self._key or not re.fullmatch("[a-z0-9-]+", self._region) or set(given) - {*_OPTIONS}:
            raise Invalid(
                f"{url.shown} is not an address of a KMS key, or has an option other than {', '.join(_OPTIONS)}.",
                fix="write awskms://REGION/alias/NAME.",
            )
        self._endpoint = given.get("endpoint")
        check_encrypted(url.shown, self._endpoint or "", in_clear=given.get(IN_CLEAR) == "true")
        self._timeout_s = parse_duration(given.get("timeout", "5s")) / 1_000_000
        self._shown = f"the KMS key {self._key} in {self._region}"

    def version(self) -> str:
        return str(self._about()["Arn"])

    def wrap(self, keys: Sequence[bytes], contexts: Sequence[str]) -> list[Wrapped]:
        def wrap(key: bytes, context: str) -> Wrapped:
            made = self._asked(self._kms.encrypt, KeyId=self._key, Plaintext=key, EncryptionContext=_bound(context))
            return Wrapped(bytes(made["CiphertextBlob"]), str(made["KeyId"]))

        return self._each(wrap, keys, contexts)

    def unwrap(self, wrapped: Sequence[Wrapped], contexts: Sequence[str]) -> list[bytes]:
        def unwrap(of: Wrapped, context: str) -> bytes:
            try:
                found = self._asked(
                    self._kms.decrypt, KeyId=of.version, CiphertextBlob=of.content, EncryptionContext=_bound(context)
                )
            except NotFound as error:
                raise Corrupt(error.what, fix=error.fix) from error
            if found["KeyId"] != of.version:
                raise Corrupt(f"A data key was wrapped by {found['KeyId']}, not {of.version}.", fix=_FIX)
            return bytes(found["Plaintext"])

        return self._each(unwrap, wrapped, contexts)

    def rotate(self) -> str:
        raise Invalid(
            f"{self._shown} is rotated in AWS.",
            fix="make a key there and move the alias to it: `mainspring encryption rotate` then wraps the data keys "
            "under it. AWS's own rotation of a key's material needs nothing here.",
        )

    def describe(self) -> str:
        about = self._about()
        return f"{self._shown}, {about['KeyState'].lower()}, now {about['KeyId']}"

    def _about(self) -> dict[str, Any]:
        about: dict[str, Any] = self._asked(self._kms.describe_key, KeyId=self._key)["KeyMetadata"]
        return about

    @cached_property
    def _kms(self) -> Any:
        config = Config(
            connect_timeout=self._timeout_s,
            read_timeout=self._timeout_s,
            retries={"max_attempts": 2, "mode": "standard"},
            max_pool_connections=_CALLS_AT_ONCE,
        )
        return boto3.session.Session().client(
            "kms", region_name=self._region, endpoint_url=self._endpoint, config=config
        )

    def _each(self, do: Callable[..., Any], *arguments: Sequence[Any]) -> list[Any]:
        pairs: Iterable[tuple[Any, ...]] = zip(*arguments, strict=True)
        if len(arguments[0]) < 2:
            return [do(*each) for each in pairs]
        _ = self._kms  # clients are made by one thread, and used by several
        with ThreadPoolExecutor(_CALLS_AT_ONCE) as threads:
            return list(threads.map(lambda each: do(*each), pairs))

    def _asked(self, call: Callable[..., Any], **arguments: Any) -> Any:
        try:
            return call(**arguments)
        except ParamValidationError as error:
            raise Corrupt(f"{self._shown}: what is stored is no data key.", fix=_FIX) from error
        except ClientError as error:
            raise self._refused(error) from error
        except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError) as error:
            raise self._denied(str(error)) from error
        except BotoCoreError as error:
            raise Unavailable(f"{self._shown} did not answer: {error}.", fix="make it reachable.") from error

    def _refused(self, error: ClientError) -> MainspringError:
        code, said = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
        what = f"{self._shown} refused: {code}: {said[:300]}"
        if code in _DAMAGED or said.startswith("The ciphertext refers to"):  # a changed one names another key
            return Corrupt(what, fix=_FIX)
        if code in _DENIED:
            return self._denied(f"{code}: {said[:300]}")
        if code == "NotFoundException":
            return NotFound(what, fix="make the key or its alias, or correct `encryption`.")
        return Unavailable(what, fix="see the key's state in AWS: it may be disabled, or about to be deleted.")

    def _denied(self, said: str) -> Denied:
        return Denied(
            f"{self._shown} refused: {said}",
            authenticated=True,
            fix="allow kms:Encrypt, kms:Decrypt and kms:DescribeKey to the credentials in the environment.",
        )


_FIX = "name the key under which the data keys were wrapped, or restore the catalog."


def _bound(context: str) -> dict[str, str]:
    return {"mainspring": context}
