"""Names chosen by people, and generated ids. One pattern validates both, so no id is ever a path or a query."""

from __future__ import annotations

import os
import re
import time

from mainspring.core.errors import Invalid

ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}"
_ID = re.compile(ID_PATTERN)
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def check_id(text: str, what: str) -> str:
    """Return `text` if it is a valid name or id.

    Args:
        what: What it would name, for the message: `"model"`, `"prediction"`.

    Raises:
        Invalid: It has other characters than letters, digits, `_`, `.`, `-`, is empty, or is over 128 long.
    """
    given: object = text  # what a project declares may be anything
    if not isinstance(given, str) or not _ID.fullmatch(given) or ".." in given:
        shown = repr(given[:140]) if isinstance(given, str) else f"{given!r}, of type {type(given).__name__},"
        raise Invalid(
            f"{shown} cannot name a {what}.",
            fix="use 1 to 128 letters, digits, '_', '-' and single '.', beginning with a letter or digit.",
        )
    return text


def milliseconds() -> int:
    """Return what ids begin with: the machine's milliseconds since 1970. They order ids; nothing else goes by them."""
    return time.time_ns() // 1_000_000


def new_id() -> str:
    """Return a fresh id of 26 characters that sorts by the millisecond it was made in, with 80 random bits (ULID)."""
    number = milliseconds() << 80 | int.from_bytes(os.urandom(10), "big")
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
