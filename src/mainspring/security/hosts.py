"""Checks of `Host` and `Origin`: allowed server names, and pages that may send requests; and of addresses to call.

A page of an attacker's domain whose address is changed to 127.0.0.1 (DNS rebinding) still sends the attacker's name in
`Host`, so the name is checked, not the address.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from urllib.parse import urlsplit

from mainspring.core.errors import Invalid, WrongHost
from mainspring.core.settings import Address

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::(\d{1,5}))?")
_SEPARATOR = re.compile(r"([:/])")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_ANY = ("0.0.0.0", "::")  # noqa: S104  (listened on elsewhere; here they are names that no client may use)


def allowed_hosts(address: Address, extra: Iterable[str] = ()) -> frozenset[str]:
    """Return the allowed names of a server that listens on `address`, for `check_host`."""
    own = () if address.host in _ANY else (address.host,)
    return frozenset(_plain(name) for name in (*own, *_LOOPBACK, *extra))


def _plain(name: str) -> str:
    parts = _HOST.fullmatch(name.lower())
    return parts[0] if parts and parts[2] else name.lower().strip("[]")


def check_host(host_header: str | None, allowed: Collection[str]) -> None:
    """Raise if the `Host` header's name is not in `allowed`.

    Args:
        allowed: Lower-case names: `example.org` and `::1` allow any port, `example.org:8080` only that one.

    Raises:
        WrongHost: It is another name, or there is none.
    """
    parts = _HOST.fullmatch((host_header or "").lower())
    if parts is None or not (parts[1].strip("[]") in allowed or parts[0] in allowed):
        raise WrongHost(
            f"This server does not serve the host {(host_header or '')[:100]!r}.",
            fix="if the name is yours, add it to `allowed_hosts` in mainspring.toml.",
        )


def check_origin(origin_header: str | None, host_header: str | None) -> None:
    """Raise unless a request's origin is the host that it is sent to, or it has no origin.

    Ports count here: another server on this machine is another origin, although cookies are shared with it.

    Raises:
        WrongHost: It comes from a page of another origin, or of a hidden one (`null`).
    """
    if origin_header is None:
        return
    try:
        origin = urlsplit(origin_header.lower())
        port = origin.port or {"http": 80, "https": 443}.get(origin.scheme)
    except ValueError:
        origin, port = urlsplit(""), None
    own = _HOST.fullmatch((host_header or "").lower())
    default = 443 if origin.scheme == "https" else 80
    same = (
        own is not None
        and origin.scheme in ("http", "https")
        and origin.hostname == own[1].strip("[]")
        and port == int(own[2] or default)
    )
    if not same:
        raise WrongHost(
            f"This request comes from the page {origin_header[:100]!r}, which does not belong to this server."
        )


def check_address(url: str, what: str, *, loopback: bool = True) -> str:
    """Return the host of an address to fetch from or to send a browser to.

    Args:
        loopback: Whether it may be http on this machine's loopback.

    Raises:
        Invalid: It is not https, or has a password or a fragment.
    """
    try:
        parts = urlsplit(url)
        host, _port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    safe = parts.scheme == "https" or (loopback and parts.scheme == "http" and Address(host, 0).loopback)
    if not host or not safe or "@" in parts.netloc or parts.fragment or not url.isascii() or not url.isprintable():
        raise Invalid(f"{what} is not an https address.", fix="use https://...; http:// is for 127.0.0.1 alone.")
    return host


def subject_pattern(text: str) -> re.Pattern[str]:
    """Return the expression of a subject: literal, but a part between `:` and `/` that is `*` stands for one such part.

    Raises:
        Invalid: It is empty, has a `*` beside other characters, or nothing but `*`.
    """
    parts = _SEPARATOR.split(text)
    names = parts[::2]
    if not text or any("*" in part and part != "*" for part in names) or all(part in ("", "*") for part in names):
        raise Invalid(
            f"The subject {text!r} is not a pattern.",
            fix="write the whole subject; a * stands for one whole part between : and /, and cannot be all of it.",
        )
    return re.compile("".join("[^:/]+" if part == "*" else re.escape(part) for part in parts))
