"""The address of a place in an object store, as profiles write it: `s3://bucket/prefix?endpoint=https://...&region=...`.

Credentials are no part of it: they come from where the provider's own tools take them in the environment
(`AWS_ACCESS_KEY_ID` and so on).
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from mainspring.core.errors import Invalid
from mainspring.core.settings import Address, Url

_OPTIONS = ("endpoint", "region", "in_clear")


@dataclass(frozen=True, slots=True)
class Bucket:
    """A prefix in a bucket; `plain` says that it is reached without TLS."""

    name: str
    prefix: str
    endpoint: str = ""
    region: str = ""

    @classmethod
    def parse(cls, url: Url) -> Bucket:
        """Take an address apart.

        Raises:
            Invalid: It names no bucket, has an unknown option, or would send credentials in clear to another machine.
        """
        parts = urlsplit(url.text)
        options = dict(parse_qsl(parts.query))
        if not parts.netloc or set(options) - set(_OPTIONS):
            raise Invalid(
                f"{url.shown} is no place in an object store, or has another option than {', '.join(_OPTIONS)}.",
                fix=f"write {parts.scheme}://bucket/prefix?endpoint=https://...&region=...",
            )
        endpoint = urlsplit(options.get("endpoint", ""))
        in_clear = options.get("in_clear") == "true"
        if endpoint.scheme == "http" and not in_clear and not Address(endpoint.hostname or "", 0).loopback:
            raise Invalid(
                f"What is at {url.shown} would go to {endpoint.hostname} in clear.",
                fix="use https; where the network is yours, add in_clear=true to the address.",
            )
        return cls(parts.netloc, parts.path.strip("/"), options.get("endpoint", ""), options.get("region", ""))

    @property
    def plain(self) -> bool:
        return self.endpoint.startswith("http://")
