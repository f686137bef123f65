"""Address of a prefix in an object store, as in profiles: `s3://bucket/prefix?endpoint=https://...&region=...`.

Credentials are not part of it: they come from the environment variables of the provider's own tools
(`AWS_ACCESS_KEY_ID` and so on).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from mainspring.core.errors import Denied, Invalid, MainspringError, NotFound, StorageFull, Unavailable
from mainspring.core.settings import Address, Url

if TYPE_CHECKING:
    from obstore.store import ObjectStore

IN_CLEAR = "in_clear"  # option of every address: the network is trusted
# Scheme -> option of the address -> its name in the store's configuration.
OPTIONS: Mapping[str, Mapping[str, str]] = MappingProxyType({
    "s3": {"endpoint": "endpoint", "region": "region"},
    "gs": {"endpoint": "base_url"},
    "az": {"endpoint": "endpoint", "account": "account_name"},
})  # fmt: skip
_LONGEST = 300  # maximum characters of a store's message
NO_BUCKET = re.compile("NoSuchBucket|ContainerNotFound")  # in what a store says
_REFUSED = re.compile("AccessDenied|403 Forbidden")  # of a listing, whose error has no kind of its own
_FULL = re.compile("QuotaExceeded|StorageFull|InsufficientStorage|507 ")


@dataclass(frozen=True, slots=True)
class Bucket:
    """A prefix in a bucket, and the options of its address; `plain` means access without TLS."""

    name: str
    prefix: str
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, url: Url) -> Bucket:
        """Parse an address of a scheme of `OPTIONS`.

        Raises:
            Invalid: It names no bucket, has an unknown option, or would send credentials in clear to another machine.
        """
        parts = urlsplit(url.text)
        given = dict(parse_qsl(parts.query))
        in_clear = given.pop(IN_CLEAR, "") == "true"
        options = OPTIONS[url.scheme]
        if not parts.netloc or set(given) - set(options):
            known = ", ".join((*options, IN_CLEAR))
            raise Invalid(
                f"{url.shown} is not an address in an object store, or has an option other than {known}.",
                fix=f"write {parts.scheme}://bucket/prefix?name=value.",
            )
        check_encrypted(url.shown, given.get("endpoint", ""), in_clear=in_clear)
        return cls(parts.netloc, parts.path.strip("/"), given)

    @property
    def endpoint(self) -> str:
        return self.options.get("endpoint", "")

    @property
    def region(self) -> str:
        return self.options.get("region", "")

    @property
    def plain(self) -> bool:
        return self.endpoint.startswith("http://")


def check_encrypted(shown: str, endpoint: str, *, in_clear: bool) -> None:
    """Raise `Invalid` if data for an address would go to another machine in clear, unless that is allowed."""
    parts = urlsplit(endpoint)
    if parts.scheme == "http" and not in_clear and not Address(parts.hostname or "", 0).loopback:
        raise Invalid(
            f"Data for {shown} would go to {parts.hostname} without encryption.",
            fix="use https; in a network of your own, add in_clear=true to the address.",
        )


def open_store(url: Url, below: str = "", credentials: Callable[[], Any] | None = None) -> ObjectStore:
    """Return obstore's store of a prefix; makes no request.

    Args:
        below: Part of names after the prefix.
        credentials: Returns those of the provider, as obstore's `credential_provider`; by default they come from the
            environment.

    Raises:
        As of `Bucket.parse`.
    """
    from obstore.store import from_url

    bucket = Bucket.parse(url)
    config: Any = {OPTIONS[url.scheme][name]: value for name, value in bucket.options.items()}
    return from_url(
        f"{url.scheme}://{bucket.name}/{'/'.join(each for each in (bucket.prefix, below) if each)}",
        config=config,
        client_options={
            "allow_http": bucket.plain,
            "connect_timeout": timedelta(seconds=5),
            "timeout": timedelta(seconds=60),
        },
        retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=15)},
        credential_provider=credentials,
    )


@contextmanager
def store_errors(shown: str, setting: str) -> Iterator[None]:
    """Translate a store's errors inside the block by `said_by_store`, but for that of a missing object.

    Args:
        shown, setting: As there.
    """
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, FileNotFoundError, PermissionError) as error:
        if isinstance(error, FileNotFoundError) and not NO_BUCKET.search(str(error)):
            raise
        raise said_by_store(error, shown, setting) from error


def said_by_store(error: Exception, shown: str, setting: str) -> MainspringError:
    """Translate an error of obstore to a `MainspringError`.

    Args:
        shown: The address without secrets, for messages.
        setting: The profile's setting that has the address.
    """
    from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

    said = " ".join(str(error).partition("\nDebug source")[0].split())
    if NO_BUCKET.search(said):
        return NotFound(f"There is no bucket at {shown}.", fix=f"create it, or correct `{setting}` in the profile.")
    if _FULL.search(said):
        return StorageFull(f"No space left at {shown}.", fix="free some space and run the command again.")
    if isinstance(error, (PermissionError, PermissionDeniedError, UnauthenticatedError)) or _REFUSED.search(said):
        return Denied(
            f"{shown} refuses: {said[:_LONGEST]}",
            fix="set the provider's credentials in the environment, such as AWS_ACCESS_KEY_ID, with permission "
            "to read, create, list and delete there.",
        )
    return Unavailable(
        f"{shown} did not carry out the request: {said[:_LONGEST]}",
        fix="check that the store is running and reachable: mainspring profile check.",
    )
