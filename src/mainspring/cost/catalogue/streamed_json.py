"""Members of a JSON document that is larger than memory: one at a time, decoded by the standard parser."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any, TextIO, TypeAlias

from mainspring.core.errors import Invalid

_CHUNK = 1 << 20
_MOST = 16 << 20  # characters of one member
_IN_NUMBERS = ".eE+-"  # after the digits that are read
_LONGEST_CUT = 4
_SPACE = " \t\r\n"
_OPENING = ("{", "[")

Path: TypeAlias = tuple[str, ...]


def members(file: TextIO, wanted: Collection[Path], name: str) -> Iterator[tuple[Path, str, Any]]:
    """Yield each member of the objects and arrays at the wanted paths, as path, key and value.

    Memory is bounded by the largest member. Documents that follow one another are read one by one: pages in one file.
    The elements of a document that is an array are at the path `()`; an element's key is empty.

    Raises:
        Invalid: The text is no JSON, or a member has over 16 million characters.
    """
    text = _Text(file, name)
    try:
        while text.peek():
            yield from _walk(text, (), frozenset(wanted))
    except RecursionError:
        raise Invalid(f"{name} is nested too deep near character {text.at:,}.") from None


def _walk(text: _Text, at: Path, wanted: frozenset[Path]) -> Iterator[tuple[Path, str, Any]]:
    opening = text.peek()
    if opening not in _OPENING:
        text.value()
        return
    closing = "}" if opening == "{" else "]"
    text.take(opening)
    if text.peek() == closing:
        text.take(closing)
        return
    while True:
        key = ""
        if opening == "{":
            key = text.name()
            text.take(":")
        child = (*at, key)
        if opening == "{" and text.peek() in _OPENING and any(path[: len(child)] == child for path in wanted):
            yield from _walk(text, child, wanted)
        elif opening == "{" and not at and text.peek() in _OPENING:
            for _ in _walk(text, child, wanted):  # unwanted, and may be large
                pass
        elif at in wanted and not (opening == "{" and not at):
            yield at, key, text.value()
        else:
            text.value()
        if text.peek() == closing:
            text.take(closing)
            return
        text.take(",")


class _Text:
    """A window on the file that moves on."""

    def __init__(self, file: TextIO, name: str) -> None:
        self._file, self._name = file, name
        self._buffer, self._position, self._before = "", 0, 0
        self._decode = json.JSONDecoder().raw_decode

    @property
    def at(self) -> int:
        return self._before + self._position

    def peek(self) -> str:
        while True:
            buffer, position = self._buffer, self._position
            while position < len(buffer) and buffer[position] in _SPACE:
                position += 1
            self._position = position
            if position < len(buffer):
                return buffer[position]
            if not self._fill():
                return ""

    def take(self, char: str) -> None:
        if self.peek() != char:
            raise self._wrong(f"{char!r} is missing")
        self._position += 1

    def value(self) -> Any:
        self.peek()
        while True:
            try:
                value, end = self._decode(self._buffer, self._position)
            except json.JSONDecodeError as error:
                if len(self._buffer) - self._position > _MOST:
                    raise self._wrong(f"no value ends within {_MOST:,} characters") from None
                if not self._fill():
                    raise self._wrong(error.msg) from None
                continue
            near = end + _LONGEST_CUT > len(self._buffer)
            if near and not self._buffer[end:].strip(_IN_NUMBERS) and self._fill():  # a number may go on
                continue
            self._position = end
            return value

    def name(self) -> str:
        found = self.value()
        if not isinstance(found, str):
            raise self._wrong("a member's name is no text")
        return found

    def _fill(self) -> bool:
        chunk = self._file.read(_CHUNK)
        self._before += self._position
        self._buffer, self._position = self._buffer[self._position :] + chunk, 0
        return bool(chunk)

    def _wrong(self, what: str) -> Invalid:
        return Invalid(f"{self._name} is no JSON near character {self.at:,}: {what}.")
