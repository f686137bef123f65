"""Options in the addresses of logs: only known ones are read, so that an address can load or run nothing."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import parse_qsl, urlsplit

from mainspring.core.errors import Invalid
from mainspring.core.settings import Url
from mainspring.core.time import parse_duration

TIMEOUT_S = 10.0  # after which a log that does not answer is unavailable


def options_of(url: Url, known: Collection[str]) -> dict[str, str]:
    """Return the options after `?` in a log's address.

    Raises:
        Invalid: An option is unknown, or given twice.
    """
    pairs = parse_qsl(urlsplit(url.text).query, keep_blank_values=True)
    found = dict(pairs)
    wrong = sorted(set(found) - {*known, "timeout"})
    if wrong or len(found) < len(pairs):
        raise Invalid(
            f"The address {url.shown} has options that are unknown or repeated: {wrong or sorted(found)}.",
            fix=f"known options: {', '.join(sorted({*known, 'timeout'}))}.",
        )
    return found


def timeout_of(options: dict[str, str]) -> float:
    """Return the time after which a log is unavailable, seconds."""
    return parse_duration(options["timeout"]) / 1_000_000 if "timeout" in options else TIMEOUT_S


def whole_option(options: dict[str, str], name: str, default: int) -> int:
    """Return an option that is a whole number from 1."""
    text = options.get(name, str(default))
    if not (text.isascii() and text.isdigit() and int(text)):
        raise Invalid(f"The option {name} is {text!r}.", fix="write a whole number from 1.")
    return int(text)
