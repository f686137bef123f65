"""NumPy arrays as the protocol's tensors: bytes after the JSON, or values in the JSON for other servers.

The binary tensor data extension: little-endian, row-major, without padding; an element of BYTES is its length in four
bytes, and its content.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from mainspring.core.errors import Invalid

_DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}
_DTYPES = {datatype: np.dtype(name).newbyteorder("<") for name, datatype in _DATATYPES.items()}
Array = np.ndarray[Any, Any]


def datatype_of(array: Array, name: str) -> str:
    """Return the protocol's datatype of an array.

    Raises:
        Invalid: There is none.
    """
    if array.dtype.kind in "OSU":
        return "BYTES"
    found = _DATATYPES.get(array.dtype.name)
    if found is None:
        raise Invalid(
            f"Input {name!r} is an array of {array.dtype}, which the protocol does not support.",
            fix=f"convert it with `astype`, to one of {', '.join(_DATATYPES)}, or text.",
        )
    return found


def binary(inputs: Mapping[str, Array]) -> tuple[list[dict[str, Any]], bytes]:
    """Return the JSON of the inputs, and the bytes that follow it."""
    heads, parts = [], []
    for name, value in inputs.items():
        array = np.asarray(value)
        datatype = datatype_of(array, name)
        part = _texts(array, name) if datatype == "BYTES" else array.astype(_DTYPES[datatype], copy=False).tobytes()
        parameters = {"binary_data_size": len(part)}
        heads.append({"name": name, "datatype": datatype, "shape": list(array.shape), "parameters": parameters})
        parts.append(part)
    return heads, b"".join(parts)


def in_json(inputs: Mapping[str, Array]) -> list[dict[str, Any]]:
    """Return the inputs with their data as flat lists.

    Raises:
        Invalid: One is FP16, which has no JSON form in this protocol, or contains bytes that are not UTF-8 text.
    """
    made = []
    for name, value in inputs.items():
        array = np.asarray(value)
        datatype = datatype_of(array, name)
        if datatype == "FP16":
            raise Invalid(
                f"Input {name!r} is FP16, and the server does not accept binary tensors.", fix="send float32."
            )
        data = array.ravel().tolist()
        if datatype == "BYTES":
            data = [each.decode() if isinstance(each, bytes) else str(each) for each in data]
        made.append({"name": name, "datatype": datatype, "shape": list(array.shape), "data": data})
    return made


def arrays(outputs: list[dict[str, Any]], content: memoryview) -> dict[str, Array]:
    """Return a reply's outputs by name. Binary outputs are read-only views of `content`.

    Raises:
        ValueError: The sizes do not add up.
    """
    found: dict[str, Array] = {}
    at = 0
    for each in outputs:
        size = (each.get("parameters") or {}).get("binary_data_size")
        if size is None:
            found[each["name"]] = _of_json(each)
            continue
        if at + size > len(content):
            raise ValueError(f"output {each['name']!r} ends beyond the body")
        found[each["name"]] = _of_bytes(each, content[at : at + size])
        at += size
    return found


def _of_json(tensor: Mapping[str, Any]) -> Array:
    if tensor["datatype"] != "BYTES":
        return np.array(tensor["data"], _DTYPES[tensor["datatype"]]).reshape(tensor["shape"])
    texts = np.array(tensor["data"], object).reshape(tensor["shape"])
    for place, text in np.ndenumerate(texts):
        texts[place] = text.encode() if isinstance(text, str) else text
    return texts


def _of_bytes(tensor: Mapping[str, Any], content: memoryview) -> Array:
    if tensor["datatype"] != "BYTES":
        return np.frombuffer(content, _DTYPES[tensor["datatype"]]).reshape(tensor["shape"])
    texts, at = [], 0
    while at < len(content):
        (size,) = struct.unpack_from("<I", content, at)
        texts.append(bytes(content[at + 4 : at + 4 + size]))
        at += 4 + size
    made = np.empty(len(texts), object)
    made[:] = texts
    return made.reshape(tensor["shape"])


def _texts(array: Array, name: str) -> bytes:
    parts = []
    for each in array.ravel().tolist():
        if not isinstance(each, (str, bytes)):
            raise Invalid(f"Input {name!r} contains a {type(each).__name__} among texts.")
        content = each.encode() if isinstance(each, str) else each
        parts.append(struct.pack("<I", len(content)) + content)
    return b"".join(parts)
