"""The address of a place in an object store, as profiles write it: `s3://bucket/prefix?endpoint=https://...&region=...`.

Credentials are no part of it: they come from where the provider's own tools take them in the environment
(`AWS_ACCESS_KEY_ID` and so on).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from mainspring.core.errors import Invalid
from mainspring.core.settings import Address, Url

IN_CLEAR = "in_clear"  # an option of every address: the network is trusted
S3 = ("endpoint", "region")


@dataclass(frozen=True, slots=True)
class Bucket:
    """A prefix in a bucket, and the options that its address has; `plain` says that it is reached without TLS."""

    name: str
    prefix: str
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, url: Url, options: Collection[str] = S3) -> Bucket:
        """Take an address apart.

        Args:
            options: Which may stand after the `?`, beside `in_clear`.

        Raises:
            Invalid: It names no bucket, has an unknown option, or would send credentials in clear to another machine.
        """
        parts = urlsplit(url.text)
        given = dict(parse_qsl(parts.query))
        in_clear = given.pop(IN_CLEAR, "") == "true"
        if not parts.netloc or set(given) - set(options):
            known = ", ".join((*options, IN_CLEAR))
            raise Invalid(
                f"{url.shown} is no place in an object store, or has another option than {known}.",
                fix=f"write {parts.scheme}://bucket/prefix?name=value.",
            )
        endpoint = urlsplit(given.get("endpoint", ""))
        if endpoint.scheme == "http" and not in_clear and not Address(endpoint.hostname or "", 0).loopback:
            raise Invalid(
                f"What is at {url.shown} would go to {endpoint.hostname} in clear.",
                fix="use https; where the network is yours, add in_clear=true to the address.",
            )
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
