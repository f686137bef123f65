"""Validation of an XGBoost model file from its bytes: complete UBJSON (`.ubj`) or JSON with a learner inside.

UBJSON (https://ubjson.org, draft 12) as written by XGBoost: objects, arrays with a type and a count, big-endian
numbers. The parser skips every value by its declared size, so a truncated or padded file is refused.
"""

from __future__ import annotations

from typing import Any

import msgspec

from mainspring.core.errors import Corrupt

_SIZES = {"i": 1, "U": 1, "I": 2, "l": 4, "L": 8, "d": 4, "D": 8, "C": 1}
_FLAT = {"Z", "T", "F", "N"}  # null, true, false, no-op: a type and no bytes
_DEEPEST = 32
_KEPT = {"learner", "learner_model_param", "objective", "attributes", "gradient_booster", "version"}


class Learner(msgspec.Struct, frozen=True):
    """Facts read from an XGBoost model file: features, values per row, objective, booster and best iteration."""

    features: int
    outputs: int
    objective: str
    booster: str
    best_iteration: int | None


def check_xgboost(content: bytes, name: str = "model.ubj") -> Learner:
    """Return the facts of the model in `content`, if it is one complete model file of XGBoost 1.6 or newer.

    Raises:
        Corrupt: The file is neither UBJSON nor JSON, is truncated, has trailing bytes, or holds no learner.
    """
    document = _json(content, name) if _is_json(content) else _Ubjson(content, name).document()
    try:
        learner = document["learner"]
        params = learner["learner_model_param"]
        classes, targets = int(params.get("num_class", 0)), int(params.get("num_target", 1))
        best = learner.get("attributes", {}).get("best_iteration")
        objective = str(learner["objective"]["name"])
        return Learner(
            features=int(params["num_feature"]),
            outputs=1 if objective == "multi:softmax" else max(classes, targets, 1),
            objective=objective,
            booster=str(learner["gradient_booster"]["name"]),
            best_iteration=None if best is None else int(best),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Corrupt(f"{name} is not an XGBoost model: {error!r} where its learner should be described.") from error


def _is_json(content: bytes) -> bool:
    return content[:1] == b"{" and content[1:64].lstrip()[:1] == b'"'


def _json(content: bytes, name: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"{name} is truncated or not JSON: {error}.") from error


class _Ubjson:
    """Parser of one document that keeps only the objects in `_KEPT`."""

    def __init__(self, content: bytes, name: str) -> None:
        self._content = content
        self._name = name
        self._at = 0

    def document(self) -> dict[str, Any]:
        if self._content[:1] != b"{":
            raise Corrupt(f"{self._name} starts neither a UBJSON nor a JSON document, so it is not an XGBoost model.")
        found = self._value(self._type(), 0, kept=True)
        if self._at != len(self._content):
            raise Corrupt(f"{self._name} has {len(self._content) - self._at} extra bytes after the end of its model.")
        return dict(found)

    def _value(self, kind: str, depth: int, *, kept: bool) -> Any:
        if depth > _DEEPEST:
            raise Corrupt(f"{self._name} is nested deeper than {_DEEPEST}.")
        if kind == "{":
            return self._object(depth, kept=kept)
        if kind == "[":
            return self._array(depth)
        if kind in ("S", "H"):
            return self._text()
        if kind in _SIZES:
            return int.from_bytes(self._take(_SIZES[kind]), signed=True)  # floats are skipped, never read
        if kind in _FLAT:
            return None
        raise Corrupt(f"{self._name} is damaged: no UBJSON value starts at byte {self._at}.")

    def _object(self, depth: int, *, kept: bool) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while self._content[self._at : self._at + 1] != b"}":
            key = self._text()
            value = self._value(self._type(), depth + 1, kept=kept and key in _KEPT)
            if key in found:
                raise Corrupt(f"{self._name} has {key[:40]!r} twice; readers differ in which they use.")
            if kept and (depth > 0 or key in _KEPT):
                found[key] = value
        self._at += 1
        return found

    def _array(self, depth: int) -> None:
        kind = ""
        if self._content[self._at : self._at + 1] == b"$":
            self._at += 1
            kind = self._type()
        if self._content[self._at : self._at + 1] == b"#":
            self._at += 1
            count = self._count()
            if kind in _SIZES:
                self._take(count * _SIZES[kind])
            elif kind not in _FLAT:
                for _ in range(count):
                    self._value(kind or self._type(), depth + 1, kept=False)
            return
        while self._content[self._at : self._at + 1] != b"]":
            self._value(self._type(), depth + 1, kept=False)
        self._at += 1

    def _text(self) -> str:
        return self._take(self._count()).decode(errors="replace")

    def _count(self) -> int:
        kind = self._type()
        if kind not in _SIZES or kind in ("d", "D", "C"):
            raise Corrupt(f"{self._name} is damaged: no length starts at byte {self._at}.")
        count = int.from_bytes(self._take(_SIZES[kind]), signed=kind != "U")
        if not 0 <= count <= len(self._content):
            raise Corrupt(f"{self._name} is truncated or damaged: a length of {count} stands at byte {self._at}.")
        return count

    def _type(self) -> str:
        return self._take(1).decode(errors="replace")

    def _take(self, size: int) -> bytes:
        start, self._at = self._at, self._at + size
        if self._at > len(self._content):
            raise Corrupt(f"{self._name} is truncated: a value of {size} bytes starts at byte {start}.")
        return self._content[start : self._at]
