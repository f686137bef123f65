"""Validation of an ONNX file from its bytes alone: no external data, no custom operators.

A process without the `onnx` package can check a file before it passes the file to a runtime. `onnx_wire` ensures that
the runtime parses the same messages.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mainspring.core.errors import Corrupt
from mainspring.registry.onnx_wire import DEEPEST, SCHEMA, fields

OPERATOR_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})

# Domains with operators of ONNX Runtime's own, which may replace a model's function of the same name.
_RUNTIME_DOMAINS = ("com.microsoft", "com.ms", "org.pytorch", "ai.onnx.")

_GRAPH = 7
_FUNCTION = {1: "name", 10: "domain"}
_NODE = {4: "name", 7: "domain"}
_OPERATOR_SET_DOMAIN = 1
_TENSOR_NAME, _TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 8, 13, 14
_ORT_FORMAT = slice(4, 8), b"ORTM"  # signature of ONNX Runtime's own format


@dataclass
class _Found:
    """Operators referenced by a file, as (domain, name)."""

    name: str
    functions: set[tuple[str, str]] = field(default_factory=set)
    called: set[tuple[str, str]] = field(default_factory=set)
    imported: set[str] = field(default_factory=set)  # domains


def check_onnx(content: bytes, name: str = "model.onnx") -> None:
    """Raise if `content` is not one complete ONNX model of standard operators with all its data inside.

    Functions that the file defines are allowed in a domain that no runtime uses; the operators inside them must be
    standard.

    Raises:
        Corrupt: The file is not a canonical protobuf message, holds no graph, refers to external data, or uses other
            operators.
    """
    where, mark = _ORT_FORMAT
    if content[where] == mark:
        raise Corrupt(f"{name} has ONNX Runtime's own format, which is not accepted.")
    found = _Found(name)
    if _GRAPH not in _walk(memoryview(content), "Model", found, 0):
        raise Corrupt(f"{name} contains no ONNX graph.")
    own = {domain for domain, _ in found.functions}
    foreign = sorted(domain for domain, _ in found.called - found.functions if domain not in OPERATOR_DOMAINS)
    foreign += sorted(found.imported - own - OPERATOR_DOMAINS)
    foreign += sorted(domain for domain in own - OPERATOR_DOMAINS if domain.startswith(_RUNTIME_DOMAINS))
    if foreign:
        raise Corrupt(f"{name} uses operators of the domain {foreign[0]!r}, which is not a standard ONNX domain.")


def _walk(message: memoryview, kind: str, found: _Found, depth: int) -> set[int]:
    """Collect the operators of a message and of those nested in it; return the numbers of its fields."""
    if depth > DEEPEST:
        raise Corrupt(f"{found.name} nests messages deeper than {DEEPEST}.")
    operator = {"name": "", "domain": ""}
    names = _FUNCTION if kind == "Function" else _NODE if kind == "Node" else {}
    numbers: set[int] = set()
    tensor, outside = "", False
    for number, each, value in fields(message, kind, found.name):
        numbers.add(number)
        if isinstance(value, str):
            if number in names:
                operator[names[number]] = value
            elif kind == "OperatorSetId" and number == _OPERATOR_SET_DOMAIN:
                found.imported.add(value)
            elif kind == "Tensor" and number == _TENSOR_NAME:
                tensor = value
        elif kind == "Tensor" and number in (_TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION):
            outside |= value != 0  # an unknown location is refused as well
        elif each.kind in SCHEMA and isinstance(value, memoryview):
            _walk(value, each.kind, found, depth + 1)
    if outside:
        raise Corrupt(
            f"{found.name} stores the tensor {tensor!r} in another file; a bundle's model must contain all its data."
        )
    if names:
        (found.called if kind == "Node" else found.functions).add((operator["domain"], operator["name"]))
    return numbers
