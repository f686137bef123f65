"""Checks, their results, and their execution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Result(StrEnum):
    """Result of a check. Only `FAIL` speaks against a server."""

    OK = "pass"
    FAIL = "fail"
    NOT_SUPPORTED = "not supported"  # optional, and not there
    NOT_TESTED = "not tested"  # an earlier check failed, or the model cannot show it


class Failed(Exception):
    """The server violates the specification."""


class NotSupported(Exception):
    """The server lacks something optional."""


class NotTested(Exception):
    """The check cannot run on this server and model."""


@dataclass(frozen=True, slots=True)
class Check:
    """One requirement of the specification.

    Args:
        name: A few words.
        section: The heading of the specification that the requirement stands under.
        says: The requirement.
        run: Runs the check on a `Subject`. Returns a remark; raises `Failed`, `NotSupported` or `NotTested`.
    """

    name: str
    section: str
    says: str
    run: Callable[[Any], str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of a check."""

    check: Check
    result: Result
    detail: str


def examine(subject: Any, checks: Sequence[Check]) -> list[Outcome]:
    """Run the checks on a `Subject` and return their outcomes, in order.

    Raises:
        OSError: The server does not accept connections.
    """
    return [_run(check, subject) for check in checks]


def _run(check: Check, subject: Any) -> Outcome:
    try:
        return Outcome(check, Result.OK, check.run(subject))
    except NotSupported as why:
        return Outcome(check, Result.NOT_SUPPORTED, str(why))
    except NotTested as why:
        return Outcome(check, Result.NOT_TESTED, str(why))
    except Failed as why:
        return Outcome(check, Result.FAIL, str(why))
    except OSError:
        raise
    except Exception as error:  # part of an answer has an unexpected type; the other checks go on
        return Outcome(check, Result.FAIL, f"an answer cannot be read: {type(error).__name__}: {error}")
