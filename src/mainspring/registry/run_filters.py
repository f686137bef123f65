"""Filter language of the run search: MLflow's filters, with shorter forms of the common ones.

    metrics.auc > 0.8 and params.optimizer = 'adam' and status = finished and started > 7d ago swift

A token outside any comparison is a word that a run's id, name or model must contain. The reference is
docs/reference/runs-filter.md.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from mainspring.core.errors import Invalid
from mainspring.core.time import FIRST_INSTANT, LAST_INSTANT, MILLISECOND, parse_duration, parse_instant
from mainspring.registry.run_matching import number_of
from mainspring.registry.searching import NUMBERS, STATUSES, TEXTS, Column, Condition, Kind, Order

LONGEST = 2000  # characters
_KINDS = {
    **dict.fromkeys(("metrics", "metric"), Kind.METRIC),
    **dict.fromkeys(("params", "param", "parameters", "parameter"), Kind.PARAM),
    **dict.fromkeys(("tags", "tag"), Kind.TAG),
    **dict.fromkeys(("attributes", "attribute", "attr", "run"), Kind.ATTRIBUTE),
}
# Names of attributes: Mainspring's, MLflow's, and common synonyms.
_ATTRIBUTES = {
    **{name: name for name in (*TEXTS, *NUMBERS)},
    **{"run_id": "id", "run_name": "name", "experiment": "model", "start_time": "started", "created": "started"},
    **{"end_time": "ended", "finished": "ended"},
}
_COMPARING = {"=": "=", "==": "=", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">=", "~": "contains"}
_TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>'[^']*'|"[^"]*"|`[^`]*`)|(?P<sign>==|!=|<>|<=|>=|[=<>~])|(?P<mark>[(),])"""
    r"""|(?P<word>[^\s=<>~!(),'"`]+(?:"[^"]*"|`[^`]*`)?))"""
)
_QUOTED_NAME = re.compile(r"""(?s)(?P<kind>\w+)\.(?:"(?P<one>[^"]*)"|`(?P<other>[^`]*)`)""")
_TYPED = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")

Kinds = Callable[[str], Collection[Kind]]


class Unreadable(Invalid):
    """Error: a filter cannot be parsed. `at` is the character, from 0, at which parsing stopped."""

    def __init__(self, what: str, at: int, fix: str) -> None:
        super().__init__(what, fix=fix)
        self.at = at


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed filter: the conditions that a run must match, and the words that it must contain.

    `places` are the positions of the conditions' names in the text, from 0.
    """

    conditions: tuple[Condition, ...] = ()
    words: tuple[str, ...] = ()
    places: tuple[int, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        return " and ".join((*map(str, self.conditions), *(f"'{word}'" for word in self.words)))


def nothing_known(name: str) -> Collection[Kind]:  # noqa: ARG001
    """Return no kinds: an unqualified name is then a metric if it is compared with a number, else a parameter."""
    return ()


def parse_filter(text: str, now: int, kinds: Kinds = nothing_known) -> Filter:
    """Parse a filter.

    Args:
        now: UTC epoch microseconds, to resolve `7d ago`.
        kinds: Returns the kinds of which an unqualified name (without `metrics.`, `params.`, `tags.`) exists.

    Raises:
        Unreadable: The filter cannot be parsed.
    """
    if len(text) > LONGEST:
        raise Unreadable(f"A filter of {len(text)} characters is too long.", LONGEST, f"write at most {LONGEST}.")
    return _Reading(text, now, kinds).all()


def parse_order(text: str, kinds: Kinds = nothing_known) -> Order:
    """Parse an order: `started`, `metrics.auc desc`, `-params.depth`.

    Raises:
        Unreadable: The text is not an order.
    """
    strange = _CONTROL.search(text)
    if strange:
        raise Unreadable("The filter contains an invisible character.", strange.start(), "write it again.")
    name, at, backward = _ordered(text)
    if not name:
        raise Unreadable("The sort order is empty.", at, "write one such as `metrics.auc desc`.")
    return Order(_column(name, at, kinds, Kind.METRIC), backward)


def order_at(text: str) -> int:
    """Return the position of the name in a valid order."""
    return _ordered(text)[1]


def _ordered(text: str) -> tuple[str, int, bool]:
    """Return the name in an order, its position, and whether the order is descending."""
    name, words = text.strip(), text.split()
    at = len(text) - len(text.lstrip())
    if len(words) > 1 and words[-1].lower() in ("asc", "desc"):
        return name[: -len(words[-1])].strip(), at, words[-1].lower() == "desc"
    backward = name.startswith("-")
    return name.removeprefix("-"), at + backward, backward


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int

    @property
    def said(self) -> str:
        return self.text[1:-1] if self.kind == "quoted" else self.text

    def word(self, *which: str) -> bool:
        return self.kind == "word" and self.text.lower() in which


class _Reading:
    def __init__(self, text: str, now: int, kinds: Kinds) -> None:
        self._text = text
        self._now = now
        self._kinds = kinds
        self._tokens = list(_tokens(text))
        self._next = 0

    def all(self) -> Filter:
        conditions, words, places = [], [], []
        while token := self._peek():
            if token.word("and") or token.text == ",":
                self._take("something to compare")
            elif token.word("or"):
                self._fail(
                    "The filter does not support `or`: all conditions must hold.",
                    token,
                    "run two searches, or use `in`.",
                )
            elif token.kind not in ("word", "quoted"):
                self._fail(f"{token.text!r} stands alone.", token, "write a name before it, as in `metrics.auc > 0.8`.")
            elif self._compares(self._peek(1)):
                places.append(token.at)
                conditions.append(self._condition())
            else:
                words.append(self._take("a word").said)
        return Filter(tuple(conditions), tuple(word for word in words if word), tuple(places))

    def _condition(self) -> Condition:
        named, operator = self._take("a name"), self._operator()
        if operator in ("is null", "is not null"):
            return Condition(_column(named.text, named.at, self._kinds, Kind.METRIC), operator)
        values = self._values() if operator in ("in", "not in") else [self._take("a value")]
        bare_number = values[0].kind == "word" and _TYPED.fullmatch(values[0].text) is not None
        column = _column(named.text, named.at, self._kinds, Kind.METRIC if bare_number else Kind.PARAM)
        if operator in ("in", "not in"):
            if column.is_number:
                self._fail(f"{operator!r} needs text, but {column} is a number.", named, "use `<`, `=` or `>`.")
            return Condition(column, operator, tuple(self._text_of(column, each) for each in values))
        return Condition(column, operator, self._value(column, operator, values[0]))

    def _operator(self) -> str:
        token = self._take("an operator")
        if token.kind == "sign":
            return _COMPARING[token.text]
        words = [token.text.lower()]
        if words == ["is"]:
            words.append(self._take("null").text.lower())
            if words[-1] == "not":
                words.append(self._take("null").text.lower())
        elif words == ["not"]:
            words.append(self._take("in").text.lower())
        said = " ".join(words)
        if said not in ("is null", "is not null", "not in", "in", "like", "ilike", "contains"):
            self._fail(
                f"{said!r} is not an operator.", token, "use one of =, !=, <, <=, >, >=, ~, like, ilike, in, is null."
            )
        return said

    def _values(self) -> list[_Token]:
        opening = self._take("(")
        values = []
        while opening.text == "(" and (token := self._take("a value or `)`")).text != ")":
            if token.text != ",":
                values.append(token)
        if not values:
            self._fail("A list is missing.", opening, "write it as in `status in ('FAILED', 'KILLED')`.")
        return values

    def _value(self, column: Column, operator: str, token: _Token) -> float | int | str:
        if token.kind not in ("word", "quoted"):
            self._fail(f"{token.text!r} is not a value.", token, "write a number, or a text in quotes.")
        if not column.is_number:
            number = None if token.kind == "quoted" or column.kind is Kind.ATTRIBUTE else number_of(token.text)
            comparing = operator in _COMPARING.values() and operator != "contains"
            return number if number is not None and comparing else self._text_of(column, token)
        if operator in ("like", "ilike", "contains"):
            self._fail(f"{column} is a number, which {operator!r} cannot compare.", token, "use `<`, `=` or `>`.")
        if column.kind is Kind.ATTRIBUTE:
            return self._moment(column, token)
        number = float(token.said) if _TYPED.fullmatch(token.said) else None
        if number is None or number in (math.inf, -math.inf):
            return self._fail(
                f"{token.said!r} is not a number, but {column} is one.", token, "write a number, such as 0.8."
            )
        return number

    def _text_of(self, column: Column, token: _Token) -> str:
        if column == Column(Kind.ATTRIBUTE, "status"):
            said = token.said.upper()
            if said not in STATUSES and not {"%", "_"} & set(said):
                self._fail(f"No run has the status {token.said!r}.", token, f"use one of {', '.join(STATUSES)}.")
            return said
        return token.said

    def _moment(self, column: Column, token: _Token) -> int:
        """Return a time or a duration, in microseconds."""
        said = token.said
        try:
            if column.name == "duration":
                return parse_duration(said)
            following = self._peek()
            if following is not None and following.word("ago"):
                self._take("ago")
                return max(FIRST_INSTANT, self._now - parse_duration(said))
            if said.lower() in ("now", "today"):
                return self._now if said.lower() == "now" else self._now // 86_400_000_000 * 86_400_000_000
            if said.isdecimal() and len(said) > 4:  # MLflow's milliseconds
                return min(LAST_INSTANT, int(said[:15]) * MILLISECOND)
            return parse_instant(said)
        except Invalid as error:
            fix = "write 90s, 5m or 2h." if column.name == "duration" else "write 2026-01-31, or 7d ago."
            return self._fail(error.what, token, fix)

    def _compares(self, token: _Token | None) -> bool:
        if token is None:
            return False
        following = self._peek(2)
        if token.word("not"):
            return following is not None and following.word("in")
        if token.word("is"):
            return following is not None and following.word("null", "not")
        if token.word("in"):
            return following is not None and following.text == "("
        return token.kind == "sign" or (token.word("like", "ilike", "contains") and following is not None)

    def _peek(self, ahead: int = 0) -> _Token | None:
        place = self._next + ahead
        return self._tokens[place] if place < len(self._tokens) else None

    def _take(self, wanted: str) -> _Token:
        token = self._peek()
        if token is None:
            raise Unreadable(f"The filter ends where {wanted} is expected.", len(self._text), "complete the filter.")
        self._next += 1
        return token

    def _fail(self, what: str, token: _Token, fix: str) -> int:
        raise Unreadable(f"{what} It is at character {token.at + 1}.", token.at, fix)


def _tokens(text: str) -> list[_Token]:
    found, at, end = [], 0, len(text.rstrip())
    strange = _CONTROL.search(text)
    if strange is not None and not strange[0].isspace():
        raise Unreadable("The filter contains an invisible character.", strange.start(), "write it again.")
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            where = at + len(text[at:]) - len(text[at:].lstrip())
            quote = text[where] in "'\"`"
            what = "A quote is not closed" if quote else f"{text[where]!r} cannot be read"
            fix = f"close it with {text[where]}." if quote else "write `!=`, or put the text in quotes."
            raise Unreadable(f"{what}. It is at character {where + 1}.", where, fix)
        found.append(_Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)))
        at = match.end()
    return found


def _column(text: str, at: int, kinds: Kinds, otherwise: Kind) -> Column:
    quoted = _QUOTED_NAME.fullmatch(text)
    if quoted is not None and quoted["kind"].lower() in _KINDS:
        return _of(_KINDS[quoted["kind"].lower()], quoted["one"] or quoted["other"] or "", at)
    said = text[1:-1] if text[:1] in "'\"`" and text[-1:] == text[:1] and len(text) > 1 else text
    prefix, dot, name = said.partition(".")
    if dot and prefix.lower() in _KINDS and said == text:
        return _of(_KINDS[prefix.lower()], name, at)
    if said.lower() in _ATTRIBUTES and said == text:
        return Column(Kind.ATTRIBUTE, _ATTRIBUTES[said.lower()])
    known = kinds(said)
    return _of(otherwise if otherwise in known or not known else next(k for k in Kind if k in known), said, at)


def _of(kind: Kind, name: str, at: int) -> Column:
    if kind is Kind.ATTRIBUTE:
        if name.lower() not in _ATTRIBUTES:
            known = ", ".join((*TEXTS, *NUMBERS))
            raise Unreadable(f"A run has no attribute {name!r}. It is at character {at + 1}.", at, f"use {known}.")
        name = _ATTRIBUTES[name.lower()]
    if not name:
        raise Unreadable(f"A name is missing at character {at + 1}.", at, "write it after the dot, as in metrics.auc.")
    return Column(kind, name)
