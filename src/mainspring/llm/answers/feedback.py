"""Feedback: what people say of answers, as rows of a source that name an answer by its id in the prediction log.

So it is a label like any other: versioned, corrected and erased as data, and joined with the answers as they come.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import msgspec

from mainspring.core.definition_registry import expect
from mainspring.core.errors import Invalid
from mainspring.core.schema import DType
from mainspring.data.model import SourceColumn

ANSWER = "answer"  # column with the id of an answer
REASON = "reason"  # column with what its giver writes
_VOTES = {"up": True, "down": False}
_FIX = f'give a column of a source that has "{ANSWER}": ms.String in its schema, such as ratings.helpful.'


class FeedbackColumn(msgspec.Struct, frozen=True, kw_only=True):
    """A column of feedback as `apply` stores it for gateways.

    Attributes:
        reason: Whether its source has a column of text named "reason".
    """

    column: str
    type: DType
    reason: bool = False

    def value(self, given: bool | float | str) -> bool | int | float:
        """Return a value of the column: "up" and "down" are those of a Boolean one.

        Raises:
            Invalid: It is none.
        """
        if self.type is DType.Boolean:
            found = _VOTES.get(given) if isinstance(given, str) else given
            if isinstance(found, bool):
                return found
            raise Invalid(f"The rating {_shown(given)} is no value of {self.column!r}.", fix="write up or down.")
        whole = self.type in (DType.Int32, DType.Int64)
        most = 2**31 if self.type is DType.Int32 else 2**53
        if (
            isinstance(given, (bool, str))
            or not isfinite(given)
            or (whole and given != int(given))
            or abs(given) >= most
        ):
            kind = "a whole number" if whole else "a number"
            raise Invalid(f"The rating {_shown(given)} is no value of {self.column!r}.", fix=f"write {kind}.")
        return int(given) if whole else float(given)


def _shown(given: object) -> str:
    return repr(given)[:40]


def stored_feedback(columns: Sequence[SourceColumn]) -> list[FeedbackColumn]:
    """Return columns of feedback as `apply` stores them."""
    return [
        FeedbackColumn(
            column=each.column,
            type=each.source.schema[each.column],
            reason=each.source.schema.get(REASON) is DType.String,
        )
        for each in columns
    ]


def checked_feedback(given: SourceColumn | Sequence[SourceColumn], owner: str) -> tuple[SourceColumn, ...]:
    """Return columns of feedback.

    Args:
        owner: Text for errors, such as "of the answers 'help'".

    Raises:
        Invalid: One is no column of a source with the ids of answers, is not of Booleans or numbers, or two have one
            name.
    """
    columns = (given,) if isinstance(given, SourceColumn) else tuple(given)
    for each in columns:
        expect(each, SourceColumn, f"The feedback {owner}", fix=_FIX)
        if each.source.schema.get(ANSWER) is not DType.String or each.column == ANSWER:
            raise Invalid(f"The feedback {each.name} {owner} does not name answers.", fix=_FIX)
        kind = each.source.schema.get(each.column)
        if kind is None or not (kind.numeric or kind is DType.Boolean):
            raise Invalid(f"The feedback {each.name} {owner} is no number.", fix="use ms.Boolean or a number.")
    names = [each.column for each in columns]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise Invalid(f"Two columns of feedback {owner} are named {twice[0]!r}.", fix="rename one of them.")
    return columns


def feedback_value(column: SourceColumn, text: str) -> Any:
    """Return a value of feedback that was written as text.

    Raises:
        Invalid: It is no value of the column.
    """
    kind = column.source.schema[column.column]
    if kind is DType.Boolean:
        known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if text.casefold() in known:
            return known[text.casefold()]
        raise Invalid(f"{text!r} is no value of {column.name}.", fix="write true or false.")
    try:
        return float(text) if kind in (DType.Float32, DType.Float64) else int(text)
    except ValueError:
        raise Invalid(f"{text!r} is no value of {column.name}, which is {kind!r}.", fix="write a number.") from None
