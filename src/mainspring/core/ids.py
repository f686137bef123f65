"""Names chosen by people, and generated ids. One pattern validates both, so no id is ever a path or a query."""

from __future__ import annotations

import os
import re
import time
from itertools import count

from mainspring.core.errors import Invalid

ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}"
_ID = re.compile(ID_PATTERN)
LONGEST = 128
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [first + second for first in ALPHABET for second in ALPHABET]  # of ten bits each
_COUNT = 1 << 30

REQUEST_ID = "x-request-id"  # the header, and gRPC's metadatum
_LONGEST_REQUEST_ID = 128


def check_id(text: str, what: str, *, longest: int = LONGEST) -> str:
    """Return `text` if it is a valid name or id.

    Args:
        what: Kind of the named thing, for the message: `"model"`, `"prediction"`.
        longest: Characters that it may have; fewer where longer names are made of it.

    Raises:
        Invalid: It has other characters than letters, digits, `_`, `.`, `-`, is empty, or is too long.
    """
    given: object = text  # what a project declares may be anything
    if isinstance(given, str) and len(given) > longest:
        raise Invalid(f"The {what} {given[:40]!r} ... has {len(given)} characters.", fix=f"use at most {longest}.")
    if not isinstance(given, str) or not _ID.fullmatch(given) or ".." in given:
        shown = repr(given[:140]) if isinstance(given, str) else f"{given!r}, of type {type(given).__name__},"
        raise Invalid(
            f"{shown} cannot name a {what}.",
            fix=f"use 1 to {longest} letters, digits, '_', '-' and single '.', beginning with a letter or digit.",
        )
    return text


def milliseconds() -> int:
    """Return the first part of an id: the machine's milliseconds since 1970. It only orders ids."""
    return time.time_ns() // 1_000_000


def new_id() -> str:
    """Return a new id of 26 characters that sorts by its millisecond, with 80 random bits (ULID)."""
    number = milliseconds() << 80 | int.from_bytes(os.urandom(10), "big")
    return "".join(ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


class PredictionIds:
    """Ids of predictions in the format of `new_id`, at a tenth of its cost.

    Instead of 80 random bits they have 50 bits that the object drew once and a counter of 30 bits, so no other process
    or object of this class makes the same id.
    """

    def __init__(self) -> None:
        self._mine = _text(int.from_bytes(os.urandom(7)) >> 6, 50)
        self._next = int.from_bytes(os.urandom(4)) % _COUNT
        self._ms = 0
        self._prefix = ""

    def take(self, count: int) -> list[str]:
        """Return `count` new ids, in ascending order unless the counter of 30 bits wraps within them."""
        ms = milliseconds()
        if ms != self._ms:
            self._ms, self._prefix = ms, _text(ms, 50) + self._mine
        prefix, pairs, first = self._prefix, _PAIRS, self._next
        self._next = (first + count) % _COUNT
        if count == 1:
            return [prefix + pairs[first >> 20] + pairs[first >> 10 & 1023] + pairs[first & 1023]]
        return [
            prefix + pairs[number >> 20] + pairs[number >> 10 & 1023] + pairs[number & 1023]
            for number in (each % _COUNT for each in range(first, first + count))
        ]


def _text(number: int, bits: int) -> str:
    return "".join(_PAIRS[number >> shift & 1023] for shift in range(bits - 10, -1, -10))


class RequestIds:
    """Ids of one process's requests, for logs and traces: the caller's id, or a new one."""

    def __init__(self) -> None:
        self._start = f"{os.urandom(8).hex()}-"
        self._numbers = count(1)

    def name(self, given: str | bytes | None) -> str:
        """Return the id of a request."""
        return repeatable(given) or self.fresh()

    def fresh(self) -> str:
        """Return a unique id."""
        return f"{self._start}{next(self._numbers):x}"


def repeatable(given: str | bytes | None) -> str:
    """Return a caller's id of its request; empty if there is none that is safe in a log line."""
    if isinstance(given, str) and len(given) <= _LONGEST_REQUEST_ID and given.isascii() and given.isprintable():
        return given
    return ""
