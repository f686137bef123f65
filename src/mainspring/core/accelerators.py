"""GPUs that a plan can use: the shipped table, and descriptions by a file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from mainspring.core.errors import Invalid, NotFound
from mainspring.core.json_content import decoded

_PER_NODE = 8
_GROUP = re.compile(r"(?:(?P<nodes>\d{1,9})x)?(?P<count>\d{1,9})x(?P<name>.+)", re.IGNORECASE)
_MOST_GPUS = 4096
_MOST_BYTES = 1 << 20
_PAGES = "docs/howto/plan-a-training.md and plan-a-language-model.md"


class Gpu(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A GPU: memory in MiB, rates in 10^9 bytes a second, dense TFLOPS by type, dollars an hour."""

    memory_mib: float
    bandwidth_gb_s: float
    tflops: dict[str, float]
    link: str = "PCIe 4 x16"
    link_gb_s: float = 32.0
    name: str = ""
    names: tuple[str, ...] = ()
    price: float | None = None
    priced: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        rates = (self.memory_mib, self.bandwidth_gb_s, self.link_gb_s, *self.tflops.values())
        if not self.tflops or not all(0 < rate < 1e12 for rate in rates):
            raise ValueError("memory, bandwidth, link and tflops must be above 0, and tflops name a type")
        if self.price is not None and not 0 <= self.price < 1e6:
            raise ValueError("the price must be dollars an hour")

    @property
    def memory(self) -> float:
        """Bytes of memory."""
        return self.memory_mib * 2**20

    def flops(self, computes: str) -> float:
        """Operations a second on operands of a type; a type that it lacks is expanded to 16 bits."""
        for each in (computes, "bf16", "fp16"):
            if each in self.tflops:
                return self.tflops[each] * 1e12
        return max(self.tflops.values()) * 1e12


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """GPUs of one kind: `nodes` machines with `per_node` each."""

    gpu: Gpu
    nodes: int
    per_node: int

    @property
    def count(self) -> int:
        return self.nodes * self.per_node

    @property
    def said(self) -> str:
        each = f"{self.per_node}x{self.gpu.name}"
        return each if self.nodes == 1 else f"{self.nodes}x{each}"


@cache
def shipped() -> dict[str, Gpu]:
    """Return the shipped table."""
    read = tomllib.loads(Path(__file__).with_name("gpus.toml").read_text(encoding="utf-8"))
    return {name: msgspec.convert({**fields, "name": name}, Gpu) for name, fields in read.items()}


def parse_group(text: str) -> Group:
    """Return the GPUs that a text names: `H100`, `8xH100`, `2x8xH100` (2 nodes of 8), `4x./gpu.toml`.

    Raises:
        Invalid: The text, the numbers or the description are wrong.
        NotFound: No such GPU or file.
    """
    found = _GROUP.fullmatch(text.strip())
    name = found["name"] if found else text.strip()
    count, nodes = (int(found["count"]), int(found["nodes"] or 0)) if found else (1, 0)
    if found and not nodes:
        nodes = max(1, -(-count // _PER_NODE))
        if count % nodes:
            raise Invalid(f"{count} GPUs are not whole nodes of {_PER_NODE}.", fix="name nodes: 2x6xH100.")
        count //= nodes
    nodes = max(1, nodes)
    if not 0 < count * nodes <= _MOST_GPUS:
        raise Invalid(
            f"{text!r} is {count * nodes:,} GPUs; a plan has 1 to {_MOST_GPUS:,}.",
            fix="write the number first: 8xH100, or 2x8xH100 for two machines.",
        )
    return Group(gpu=_gpu(name), nodes=nodes, per_node=count)


def kind_of(name: str) -> str:
    """Return the shipped table's name of a GPU that a driver or a person names; empty if it has none."""
    wanted = re.sub(r"[\s_]+", "-", name).lower().removeprefix("nvidia-").removeprefix("tesla-")
    return next((known for known, gpu in shipped().items() if wanted in (known.lower(), *gpu.names)), "")


def _gpu(name: str) -> Gpu:
    if kind := kind_of(name):
        return shipped()[kind]
    if name.endswith((".toml", ".json")):
        return _described(Path(name))
    raise NotFound(
        f"There is no GPU {name!r}; known are {', '.join(shipped())}.",
        fix="write a number and one of them, 8xH100, or describe it in a file: 4x./gpu.toml "
        "(docs/howto/plan-a-language-model.md).",
    )


def _described(path: Path) -> Gpu:
    try:
        fields = read_fields(path)
        return msgspec.convert({"name": path.stem, **fields}, Gpu, strict=False)
    except msgspec.ValidationError as error:
        raise Invalid(f"{path} does not describe a GPU: {error}.") from error


def read_fields(path: Path) -> Mapping[str, Any]:
    """Return the fields of a TOML or JSON file.

    Raises:
        NotFound: There is no such file.
        Invalid: It is too large, damaged, or no object.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise NotFound(
            f"{path} cannot be read: {error.strerror}.", fix=f"name a TOML or JSON file; {_PAGES} have examples."
        ) from error
    if len(content) > _MOST_BYTES:
        raise Invalid(f"{path} has over {_MOST_BYTES:,} bytes.", fix=f"name a description; {_PAGES} have examples.")
    try:
        fields: Any = tomllib.loads(content.decode()) if path.suffix == ".toml" else decoded(content, object)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise Invalid(
            f"{path} cannot be read: {error}.", fix="correct it there; .toml is read as TOML, others as JSON."
        ) from error
    if not isinstance(fields, dict):
        raise Invalid(f"{path} holds no object.", fix=f"write one with fields; {_PAGES} have examples.")
    return fields
