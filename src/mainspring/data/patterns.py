"""Translation of Python regular expressions to RE2, DuckDB's dialect; refused if the two would match differently.

They differ in the meaning of digit, letter and space (Unicode in Python), in where `$` matches, and in what RE2 lacks:
without backtracking it has neither back-references nor lookarounds.
"""

from __future__ import annotations

import re

from mainspring.core.errors import Invalid

WHOLE, START, ANYWHERE = "whole", "start", "anywhere"  # as in re.fullmatch, re.match, re.search

# For use inside brackets. Python's definitions: str.isdecimal, str.isalnum or "_", str.isspace.
_CLASSES = {"d": r"\p{Nd}", "w": r"\p{L}\p{N}_", "s": r"\x{9}-\x{d}\x{1c}-\x{20}\x{85}\x{a0}\p{Z}"}
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "a": "\a"}
_HEX = {"x": 2, "u": 4, "U": 8}
_FLAGS = re.compile(r"\(\?([is]+)\)")
_REPEAT = re.compile(r"\{(\d*)(,?)(\d*)\}")
_MOST_REPEATED = 1_000


def to_re2(pattern: str, where: str = WHOLE) -> str:
    """Return an RE2 pattern that finds a match exactly where Python's `pattern` matches in the mode `where`.

    Raises:
        Invalid: The pattern is invalid, or has no RE2 equivalent.
    """
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise Invalid(f"{pattern!r} is not a regular expression: {error}.", fix="correct it.") from None
    translated = _Translation(pattern, where).text()
    begin = "" if where == ANYWHERE else r"\A"
    return f"{begin}{translated}{_END if where == WHOLE else ''}"


_END = r"\z"


class _Translation:
    """Single-pass translation of one pattern."""

    def __init__(self, pattern: str, where: str) -> None:
        self._pattern = pattern
        self._where = where
        self._place = 0
        self._depth = 0

    def text(self) -> str:
        flags = _FLAGS.match(self._pattern)
        if flags is not None:
            self._place = flags.end()
        parts = []
        while self._place < len(self._pattern):
            parts.append(self._next())
        return f"(?{flags[1] if flags else ''}:{''.join(parts)})"

    def _refuse(self, what: str) -> Invalid:
        return Invalid(
            f"The regular expression {self._pattern!r} has {what}, which DuckDB does not support with the same "
            "meaning.",
            fix="rewrite it without, or check it where the data is produced.",
        )

    def _take(self, count: int = 1) -> str:
        taken = self._pattern[self._place : self._place + count]
        self._place += count
        return taken

    def _next(self) -> str:
        sign = self._take()
        if sign == "\\":
            return self._escape(inside=False)
        if sign == "[":
            return self._brackets()
        if sign == "(":
            return self._group()
        if sign == ")":
            self._depth -= 1
            return sign
        if sign == "$":
            return self._end()
        if sign == "^":
            return r"\A"
        if sign in "*+?":
            return sign + self._after_repeat()
        if sign == "{":
            return self._braces()
        return sign if sign in ".|" else _literal(sign)

    def _escape(self, *, inside: bool) -> str:
        sign = self._take()
        if sign in "dws":
            return _CLASSES[sign] if inside else f"[{_CLASSES[sign]}]"
        if sign in "DWS" and not inside:
            return f"[^{_CLASSES[sign.lower()]}]"
        if sign in "AZ" and not inside:
            return r"\A" if sign == "A" else _END
        if sign in _CONTROLS:
            return _literal(_CONTROLS[sign])
        if sign in _HEX:
            return _literal(chr(int(self._take(_HEX[sign]), 16)))
        if sign.isalnum():
            raise self._refuse(f"\\{sign}{' between brackets' if inside else ''}")
        return _literal(sign)

    def _brackets(self) -> str:
        parts = ["["]
        if self._pattern.startswith("^", self._place):
            parts.append(self._take())
        first = True
        while (sign := self._take()) != "]" or first:
            first = False
            if sign == "\\":
                parts.append(self._escape(inside=True))
            else:
                parts.append("-" if sign == "-" else _literal(sign))
        return "".join(parts) + "]"

    def _group(self) -> str:
        self._depth += 1
        if not self._pattern.startswith("?", self._place):
            return "(?:"
        if self._pattern.startswith("?:", self._place):
            self._take(2)
            return "(?:"
        if self._pattern.startswith("?P<", self._place):
            self._place = self._pattern.index(">", self._place) + 1
            return "(?:"
        raise self._refuse(f"({self._take(3)}...")

    def _end(self) -> str:
        rest = self._pattern[self._place :]
        if rest.strip(")") and not (rest.startswith("|") and not self._depth):
            raise self._refuse("$ before its end")
        # Python's $ also matches before a final line feed, which only a full match would have to consume.
        return _END if self._where == WHOLE else r"(?:\x{a}?\z)"

    def _braces(self) -> str:
        found = _REPEAT.match(self._pattern, self._place - 1)
        if found is None or not (found[1] or found[3]):
            if found is not None and found[2]:
                raise self._refuse("{,}")
            return _literal("{")
        if max(int(found[1] or 0), int(found[3] or 0)) > _MOST_REPEATED:
            raise self._refuse(f"more than {_MOST_REPEATED:,} repetitions")
        self._place = found.end()
        return f"{{{found[1] or 0}{found[2]}{found[3]}}}{self._after_repeat()}"

    def _after_repeat(self) -> str:
        if self._pattern.startswith("+", self._place):
            raise self._refuse("a repetition that gives nothing back")
        return self._take() if self._pattern.startswith("?", self._place) else ""


def _literal(sign: str) -> str:
    return sign if sign.isascii() and sign.isalnum() else f"\\x{{{ord(sign):x}}}"
