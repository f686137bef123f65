"""Checks of a server, and their execution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mainspring.serving.conformance.results import Failed, NotSupported, NotTested, Result
from mainspring.serving.conformance.subject import Subject


@dataclass(frozen=True, slots=True)
class Check:
    """One requirement of the specification.

    Args:
        name: A few words.
        section: The heading of the specification that it stands under.
        says: What is asked there.
        run: Does it; returns what else is worth knowing, and raises what `results` has where it does not pass.
    """

    name: str
    section: str
    says: str
    run: Callable[[Subject], str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of a check."""

    check: Check
    result: Result
    detail: str


def examine(subject: Subject, checks: Sequence[Check]) -> list[Outcome]:
    """Run the checks and return their outcomes, in order.

    Raises:
        OSError: The server does not take connections.
    """
    return [_done(check, subject) for check in checks]


def _done(check: Check, subject: Subject) -> Outcome:
    try:
        return Outcome(check, Result.OK, check.run(subject))
    except NotSupported as said:
        return Outcome(check, Result.NOT_SUPPORTED, str(said))
    except NotTested as said:
        return Outcome(check, Result.NOT_TESTED, str(said))
    except Failed as said:
        return Outcome(check, Result.FAIL, str(said))
    except OSError:
        raise
    except Exception as error:  # part of an answer is of another kind than any; the other checks go on
        return Outcome(check, Result.FAIL, f"an answer cannot be read: {type(error).__name__}: {error}")
