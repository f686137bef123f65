"""Errors of the runtime. Each says what is wrong with which values."""

from __future__ import annotations


class EdgeError(Exception):
    """Root of the runtime's errors."""


class Refused(EdgeError):
    """A package was refused.

    Attributes:
        reason: One word for reports: missing, key, signature, cut, changed, format, name, model, features.
    """

    def __init__(self, reason: str, what: str) -> None:
        super().__init__(what)
        self.reason = reason


class InvalidRow(EdgeError):
    """A row lacks an input, or has a value of another type."""


class SelfTestFailed(EdgeError):
    """This device does not reproduce the package's golden rows."""
