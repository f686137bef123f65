"""Variables that are written where many hands can read them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mainspring.core.errors import Invalid
from mainspring.core.settings import Url

_SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSW|CREDENTIAL|PRIVATE|PEPPER$|(^|_)KEY(_|$)", re.IGNORECASE)
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
