"""Secrets in variables and texts that are written where many hands can read them."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from urllib.parse import quote

from mainspring.core.errors import Invalid
from mainspring.core.settings import Url

_SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSW|CREDENTIAL|PRIVATE|PEPPER$|(^|_)KEY(_|$)", re.IGNORECASE)
_LEAST_SECRET = 6  # characters; a shorter value is in any text by chance
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_no_secret(env: Mapping[str, str], fix: str) -> None:
    """Raise if a variable may be a secret.

    Args:
        fix: Of the error; `{}` stands for the variable's name.

    Raises:
        Invalid: Its name says so, or its value has a password.
    """
    for name, value in env.items():
        if not _VARIABLE.fullmatch(name):
            raise Invalid(f"{name!r} is no name of a variable.", fix="write NAME=VALUE.")
        if _SECRET_NAME.search(name) or ("://" in value and Url(value).shown != value) or "PRIVATE KEY" in value:
            raise Invalid(
                f"The variable {name} may be a secret, and a manifest does not hide it.", fix=fix.format(name)
            )


def holds_secret(content: bytes, secret: str) -> bool:
    """Return whether a text has a secret: as it is, in JSON or a quoted text, in an address, or in base64."""
    if len(secret) < _LEAST_SECRET:
        return False
    spelt = {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], quote(secret, safe="")}
    coded = base64.b64encode(secret.encode()).rstrip(b"=")
    texts = content, content.replace(b"%%", b"%").replace(b"$$", b"$")  # as systemd and Compose escape them
    return any(each in text for each in (*(one.encode() for one in spelt), coded) for text in texts)
