"""Receivers of messages, from a profile and the environment: addresses and secrets, by the names that definitions use.

`[profiles.NAME.notify.ops]` has them in the file; `MAINSPRING_NOTIFY_OPS_URL` takes precedence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from mainspring.core.errors import Invalid
from mainspring.core.settings import Address, Receiver
from mainspring.project.setting_values import flag

_FIELDS = {
    "url": "",
    "secret": "",
    "user": "",
    "sender": "",
    "to": [],
    "ca": "",
    "cert": "",
    "cert_key": "",
    "in_clear": False,
}
_VARIABLE = re.compile(rf"MAINSPRING_NOTIFY_([A-Z0-9_]+?)_({'|'.join(_FIELDS).upper()})")
_HTTP, _SMTP = ("http", "https"), ("smtp", "smtps")


def variable(name: str) -> str:
    """Return a receiver's name as it is in the names of environment variables."""
    return re.sub(r"[^A-Za-z0-9]", "_", name).upper()


def read_receivers(given: Any, environment: Mapping[str, str]) -> dict[str, Receiver]:
    """Return the receivers by `variable(name)`.

    Args:
        given: The profile's table `notify`.
        environment: All variables.

    Raises:
        Invalid: A setting is unknown or has an invalid value.
    """
    if not isinstance(given, dict) or not all(isinstance(each, dict) for each in given.values()):
        raise Invalid("notify is not a table of receivers.", fix="write [profiles.local.notify.ops], then its url.")
    found: dict[str, dict[str, Any]] = {variable(name): {"name": name, **each} for name, each in given.items()}
    for each, text in environment.items():
        if matched := _VARIABLE.fullmatch(each):
            name, field = matched[1], matched[2].lower()
            value: Any = [part.strip() for part in text.split(",") if part.strip()] if field == "to" else text
            found.setdefault(name, {"name": name.lower()})[field] = value
    return {key: _receiver(values) for key, values in found.items()}


def _receiver(given: Mapping[str, Any]) -> Receiver:
    name = str(given["name"])
    unknown = sorted(given.keys() - _FIELDS.keys() - {"name"})
    if unknown:
        raise Invalid(f"The receiver {name!r} has the unknown settings {unknown}.", fix=f"known: {sorted(_FIELDS)}.")
    values = {**_FIELDS, **given}
    to = values["to"]
    if not isinstance(to, list) or not all(isinstance(each, str) for each in to):
        raise Invalid(f"to of the receiver {name!r} is {to!r}.", fix='write a list: to = ["team@example.org"].')
    in_clear = flag(values, "in_clear")
    _check_url(name, str(values["url"]), in_clear)
    texts = {field: str(values[field]) for field, default in _FIELDS.items() if default == ""}
    for address in (texts["sender"], *to):
        if any(not each.isprintable() or each in "<>, " for each in address):
            raise Invalid(f"The receiver {name!r} has an address with other characters.", fix="write name@example.org.")
    return Receiver(name=name, to=tuple(to), in_clear=in_clear, **texts)


def _check_url(name: str, url: str, in_clear: bool) -> None:
    """Raise unless an address is one of a server, without a password. The message does not show it."""
    if not url:
        return
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", urlsplit("")
    if parts.scheme not in (*_HTTP, *_SMTP) or not host or "@" in parts.netloc or not url.isprintable() or " " in url:
        raise Invalid(
            f"The url of the receiver {name!r} is not an address without a password.",
            fix="write https://host/path, or smtp://host:587; user and secret are settings of their own.",
        )
    if parts.scheme == "http" and not in_clear and not Address(host, 0).loopback:
        raise Invalid(
            f"The receiver {name!r} would be sent messages without encryption.",
            fix="use https, or a receiver on this machine; in a network of your own, set in_clear = true.",
        )
