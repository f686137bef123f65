"""Results of a check."""

from __future__ import annotations

from enum import StrEnum


class Result(StrEnum):
    """Result of a check. Only `FAIL` speaks against a server."""

    OK = "pass"
    FAIL = "fail"
    NOT_SUPPORTED = "not supported"  # optional, and not there
    NOT_TESTED = "not tested"  # what it needs failed before it, or the model cannot show it


class Failed(Exception):
    """The server violates the specification."""


class NotSupported(Exception):
    """The server does without something optional."""


class NotTested(Exception):
    """This cannot be seen with this server and model."""
