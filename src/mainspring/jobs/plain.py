"""Arguments and results of jobs: values that JSON can represent. Nothing is pickled."""

from __future__ import annotations

import json
import math
from typing import Any

from mainspring.core.errors import Invalid

Plain = Any  # None, bool, int, float, str, lists of these and dictionaries with texts as keys
LARGEST = 1 << 20  # bytes of JSON; store larger values elsewhere and pass a reference


def encoded(value: Plain, what: str) -> str:
    """Encode a value as ASCII JSON, which every database stores as text.

    Args:
        what: Description in messages, such as "the argument of collect-garbage".

    Raises:
        Invalid: JSON cannot represent the value, or it is too large.
    """
    _check(value, what, "")
    text = json.dumps(value, separators=(",", ":"))
    if len(text) > LARGEST:
        raise Invalid(
            f"{what} has {len(text):,} bytes as JSON.",
            fix=f"store it elsewhere and pass its name: at most {LARGEST:,}.",
        )
    return text


def decoded(text: str | None) -> Plain:
    """Decode a value from `encoded`, `None` for no text."""
    return None if text is None else json.loads(text)


def storable(text: str, most: int = 4_000) -> str:
    """Return a text that every database accepts, shortened in the middle if it is long."""
    text = text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-most // 2 :]}"


def _check(value: Any, what: str, at: str) -> None:
    if isinstance(value, dict):
        for key, each in value.items():
            if not isinstance(key, str):
                raise Invalid(f"{what}{at} has the key {key!r}.", fix="JSON keys must be text.")
            _check(each, what, f"{at}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for number, each in enumerate(value):
            _check(each, what, f"{at}[{number}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise Invalid(f"{what}{at} is {value}, which JSON cannot represent.", fix="use null.")
    elif not isinstance(value, (str, bool, int, float, type(None))):
        raise Invalid(
            f"{what}{at} is a {type(value).__name__}.", fix="use numbers, texts, lists and dictionaries of them."
        )
