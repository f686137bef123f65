"""Exit codes of the kinds of errors. Documented in docs/reference/exit-codes.md."""

from __future__ import annotations

from mainspring.core.error_codes import codes_of
from mainspring.core.errors import MainspringError

OK = 0
INTERNAL = 1
USAGE = 2
GATE = 3
NOT_FOUND = 4
DATA = 5
CONFLICT = 6
CORRUPT = 7
FULL = 8
DENIED = 9
UNAVAILABLE = 10
MISSING_EXTRA = 11
NOT_CONVERTIBLE = 12
UNHEALTHY = 13
INTERRUPTED = 130


def exit_code(error: MainspringError) -> int:
    """Return the exit code of an error's kind."""
    return codes_of(error).exit
