"""Reading of an external model file: its format is recognised by content and by name, and both must be allowed."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from mainspring.core.errors import Invalid, NotFound
from mainspring.registry.flavours import FLAVOURS

LARGEST = 2 * 1024**3  # bytes: the limit of one protobuf message, and so of one ONNX file

_TO_ONNX = "export it to ONNX, or keep the model of XGBoost or LightGBM in its own format."
_BY_NAME: dict[str, str] = {
    ".onnx": "model.onnx",
    ".ubj": "model.ubj",
    ".json": "model.json",
    ".txt": "model.txt",
}
_REFUSED_NAMES: dict[str, str] = {
    **dict.fromkeys(
        (".pkl", ".pickle", ".p", ".joblib", ".dill", ".cloudpickle"), "a pickle, which runs code when it loads"
    ),
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".bin"), "PyTorch's format, a pickle, which runs code when it loads"),
    **dict.fromkeys((".keras", ".h5", ".hdf5"), "Keras's format, whose layers can carry code"),
    ".pb": "TensorFlow's format",
    ".tflite": "TensorFlow Lite's format",
    ".safetensors": "weights without a model",
    ".gguf": "weights without a model",
    ".npz": "arrays without a model",
    ".npy": "arrays without a model",
    ".pmml": "PMML",
    ".cbm": "CatBoost's format",
    ".zip": "an archive",
    ".gz": "an archive",
    ".tar": "an archive",
}
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89HDF\r\n", "an HDF5 file, Keras's older format, whose layers can carry code"),
    (0, b"PK\x03\x04", "a zip archive, as PyTorch's and Keras's files are, which can carry code"),
    (0, b"\x1f\x8b", "compressed"),
    (0, b"BZh", "compressed"),
    (0, b"\xfd7zXZ", "compressed"),
    (0, b"\x28\xb5\x2f\xfd", "compressed"),
    (0, b"\x93NUMPY", "a NumPy array without a model"),
    (0, b"GGUF", "weights without a model"),
    (0, b"CBM1", "CatBoost's format"),
    (0, b"binf", "XGBoost's old binary format, which it no longer writes"),
    (4, b"TFL3", "TensorFlow Lite's format"),
    (0, b"ZF\x01", "joblib's, a pickle, which runs code when it loads"),
)


def read_model(path: Path, *, largest: int = LARGEST) -> tuple[str, str, bytes]:
    """Return a model file's flavour, its name in a bundle, and its content, read completely and checked.

    Raises:
        NotFound: The file does not exist.
        Invalid: The file is a link, a folder or a pipe, is empty or too large, or has a format that is not served.
        Corrupt: The file is truncated or damaged, or refers to external data or to custom operators.
    """
    refused = _REFUSED_NAMES.get(path.suffix.lower())
    if refused is not None:
        raise Invalid(f"{path.name} is {refused}, so it cannot be served.", fix=_TO_ONNX)
    content = _read(path, largest)
    _check_content(path.name, content)
    name = _BY_NAME.get(path.suffix.lower())
    if name is None:
        raise Invalid(
            f"{path.name} has a name that does not identify its format.",
            fix="name it .onnx, .ubj or .json (XGBoost), or .txt (LightGBM).",
        )
    flavour, kind = next((flavour, kind) for flavour, kind in FLAVOURS.items() if name in kind.files)
    if kind.check is not None:
        kind.check(content, path.name)
    return flavour, name, content


def open_plain(path: Path, what: str = "file") -> BinaryIO:
    """Open a regular file for reading, without blocking on a pipe or a device.

    Raises:
        NotFound: The file does not exist.
        Invalid: The path is a link, a folder, a pipe or a device.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would block
    except FileNotFoundError:
        raise NotFound(f"There is no file {path}.", fix=f"name the {what}.") from None
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        raise Invalid(f"{path} is a link or not a regular file.", fix="name the file itself.") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Invalid(f"{path} is not a regular file.", fix="name a file.")
    return os.fdopen(descriptor, "rb")


def _read(path: Path, largest: int) -> bytes:
    with open_plain(path, "model's file") as file:
        size = os.fstat(file.fileno()).st_size
        if size > largest:
            raise Invalid(f"{path.name} has {size:,} bytes; the maximum for a model is {largest:,}.")
        content = file.read(largest)
    if not content:
        raise Invalid(f"{path.name} is empty.")
    return content


def _check_content(name: str, content: bytes) -> None:
    for place, magic, what in _MAGIC:
        if content[place : place + len(magic)] == magic:
            raise Invalid(f"{name} is {what}, so it cannot be served, whatever its name.", fix=_TO_ONNX)
    if _is_pickle(content):
        raise Invalid(f"{name} is a pickle, which runs code when it loads, so it cannot be served.", fix=_TO_ONNX)


def _is_pickle(content: bytes) -> bool:
    """Return whether the bytes look like a pickle: protocol 2 or newer (PROTO opcode), or one of the text protocols."""
    if content[:1] == b"\x80" and len(content) > 2 and content[1] in range(2, 6):
        return True
    return content[:1] in (b"(", b"c", b"]", b"}") and content.rstrip()[-1:] == b"." and content[:5] != b"tree\n"
