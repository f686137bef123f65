"""Validation of a CatBoost model file from its bytes: `CBM1`, a FlatBuffer of trees, then the categories' counts.

The layout is that of catboost/libs/model/flatbuffers/model.fbs: `TModelCore` with the format version, the trees, a map
of texts and the names of the parts that follow. Of FlatBuffers (https://flatbuffers.dev/internals) only tables, vectors
and strings are read. Every offset is checked against the end of the buffer. The format cannot carry code, but
CatBoost's own reader crashes on a file with altered numbers (12 of 300 tried). So only files from this project's
training are loaded: `registry.model_file` refuses external ones.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

from mainspring.core.errors import Corrupt

_MAGIC, _VERSION, _PART = b"CBM1", "FlabuffersModel_v1", "static_provider_v1"  # spelt so in the format
_PROBABILITIES = frozenset({"Logloss", "CrossEntropy", "MultiClass"})
_EXPONENTS = frozenset({"Poisson", "Tweedie", "LogLinQuantile"})
_LONGEST = 1_000_000  # bytes of a text, entries of a vector of tables


class Ensemble(msgspec.Struct, frozen=True):
    """Facts read from a CatBoost model file.

    Args:
        numbers: Positions of the numeric columns.
        categories: Positions of the text columns.
        answer: CatBoost's prediction type: Probability, Exponent or RawFormulaVal.
    """

    numbers: tuple[int, ...]
    categories: tuple[int, ...]
    outputs: int
    loss: str
    answer: str

    @property
    def features(self) -> int:
        return len(self.numbers) + len(self.categories)


def check_catboost(content: bytes, name: str = "model.cbm") -> Ensemble:
    """Return the facts of the model in `content`, if it is one complete `.cbm` file with numeric and text columns only.

    Raises:
        Corrupt: The file is not CatBoost's, is truncated, has trailing bytes, or takes text features or embeddings.
    """
    if content[:4] != _MAGIC:
        raise Corrupt(f"{name} is not a CatBoost model: it does not start with {_MAGIC.decode()}.")
    try:
        return _read(content, name)
    except (struct.error, IndexError, ValueError, KeyError, TypeError, msgspec.DecodeError) as error:
        raise Corrupt(f"{name} is truncated or damaged: {error!r} where its trees should be described.") from error


def _read(content: bytes, name: str) -> Ensemble:
    (size,) = struct.unpack_from("<I", content, 4)
    core = _Buffer(content[8 : 8 + size])
    if len(core.content) != size:
        raise Corrupt(f"{name} is truncated: it announces {size} bytes of trees, but has {len(core.content)}.")
    root = core.root()
    version = core.text(root, 0)
    if version != _VERSION:
        raise Corrupt(f"{name} has CatBoost's format {version[:30]!r}; only {_VERSION} is supported.")
    parts = core.texts(root, 3)
    if set(parts) - {_PART}:
        raise Corrupt(f"{name} has the parts {sorted(parts)}; only {_PART} is supported.")
    if not parts and len(content) != 8 + size:
        raise Corrupt(f"{name} has {len(content) - 8 - size} extra bytes after the end of its model.")
    trees = core.table(root, 1)
    for field, what in ((12, "texts"), (13, "estimated features"), (18, "embeddings")):
        if core.length(trees, field):
            raise Corrupt(f"{name} takes {what}, which cannot be a column.")
    categories = tuple(sorted(core.number(each, 1, -1) for each in core.tables(trees, 4)))
    numbers = tuple(sorted(core.number(each, 2, -1) for each in core.tables(trees, 5)))
    if sorted((*numbers, *categories)) != list(range(len(numbers) + len(categories))):
        raise Corrupt(f"{name} does not describe each of its columns.")
    facts = {core.text(each, 0): core.text(each, 1) for each in core.tables(root, 2)}
    params: dict[str, Any] = msgspec.json.decode(facts["params"])
    loss = str(params["loss_function"]["type"])
    outputs = max(1, core.number(trees, 0, 1))
    answer = "Probability" if loss in _PROBABILITIES else "Exponent" if loss in _EXPONENTS else "RawFormulaVal"
    return Ensemble(numbers, categories, outputs, loss, answer)


class _Buffer:
    """One FlatBuffer. A table is an offset into it; a field is known by its number in the schema."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def root(self) -> int:
        return self._at("<I", 0)

    def number(self, table: int, field: int, otherwise: int) -> int:
        place = self._field(table, field)
        return self._at("<i", place) if place else otherwise

    def text(self, table: int, field: int) -> str:
        place = self._field(table, field)
        return self._text(place + self._at("<I", place)) if place else ""

    def texts(self, table: int, field: int) -> list[str]:
        return [self._text(place) for place in self._targets(table, field)]

    def table(self, table: int, field: int) -> int:
        place = self._field(table, field)
        if not place:
            raise ValueError(f"no field {field}")
        return place + self._at("<I", place)

    def tables(self, table: int, field: int) -> list[int]:
        return self._targets(table, field)

    def length(self, table: int, field: int) -> int:
        place = self._field(table, field)
        return self._at("<I", place + self._at("<I", place)) if place else 0

    def _targets(self, table: int, field: int) -> list[int]:
        count = self.length(table, field)
        if count > _LONGEST:
            raise ValueError(f"{count} entries")
        if not count:
            return []
        first = self.table(table, field) + 4
        return [place + self._at("<I", place) for place in range(first, first + 4 * count, 4)]

    def _text(self, place: int) -> str:
        size = self._at("<I", place)
        if size > _LONGEST or place + 4 + size > len(self.content):
            raise ValueError(f"a text of {size} bytes")
        return self.content[place + 4 : place + 4 + size].decode(errors="replace")

    def _field(self, table: int, field: int) -> int:
        """Return the offset of a field's value, 0 if the field is absent."""
        names = table - self._at("<i", table)
        entry = 4 + 2 * field
        if entry >= self._at("<H", names):
            return 0
        offset = self._at("<H", names + entry)
        return table + offset if offset else 0

    def _at(self, kind: str, place: int) -> int:
        if place < 0:
            raise IndexError(place)
        (value,) = struct.unpack_from(kind, self.content, place)
        return int(value)
