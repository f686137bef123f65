"""The check of an adapter's file: any damage, any other tensor and any bytes beside are refused."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.errors import Corrupt
from mainspring.registry.lora_file import LoraAdapter, check_lora

LAYER = "base_model.model.layers.0.q_proj"
GOOD: dict[str, tuple[str, tuple[int, ...]]] = {
    f"{LAYER}.lora_A.weight": ("F32", (2, 5)), f"{LAYER}.lora_B.weight": ("F32", (3, 2)),
}  # fmt: skip


def written(tensors: dict[str, tuple[str, tuple[int, ...]]], **changes: Any) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (kind, shape) in tensors.items():
        begin, end = end, end + math.prod(shape) * {"F32": 4, "BF16": 2}.get(kind, 1)
        header[name] = {"dtype": kind, "shape": [*shape], "data_offsets": [begin, end]}
    for name, fields in changes.items():
        header[f"{LAYER}.lora_{name}.weight"] |= fields
    head = json.dumps(header).encode()
    return len(head).to_bytes(8, "little") + head + bytes(end)


def test_a_pair_of_matrices_is_an_adapter() -> None:
    assert check_lora(written(GOOD), "a") == LoraAdapter(2, ("layers.0.q_proj",), 16)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no possible length"), (b"\x80\x04K*." * 4, "no possible length"), (written({}), "no tensors"),
        (written({"lm_head.weight": ("F32", (1, 1))}), "no matrix of LoRA"),
        (written({f"{LAYER}.lora_A.weight": ("F32", (2, 5))}), "no pair"),
        (written({**GOOD, f"{LAYER}.lora_B.weight": ("F32", (3, 4))}), "no pair"),
        (written({**GOOD, **{name.replace("q_proj", "v_proj"): (kind, shape[::-1]) for name, (kind, shape) in
                             GOOD.items()}}), "no pair"),
        (written({**GOOD, f"{LAYER}2.lora_A.weight": ("F32", (1, 5)), f"{LAYER}2.lora_B.weight": ("F32", (3, 1))}),
         "several ranks"),
        (written({**GOOD, f"{LAYER}.lora_A.weight": ("I8", (2, 5))}), "no type"),
        (written({**GOOD, f"{LAYER}.lora_A.weight": ("F32", (10,))}), "a matrix is needed"),
        (written(GOOD, A={"shape": [2, -5]}), "a matrix is needed"), (written(GOOD, A={"shape": [2, True]}), "matrix"),
        (written(GOOD, A={"shape": [2, 6]}), "another size"), (written(GOOD, A={"more": 1}), "no type"),
        (written(GOOD, B={"data_offsets": [0, 24]}), "belong to none or to several"),
        (written(GOOD) + b"pickle", "belong to none or to several"), (written(GOOD)[:-1], "belong to none"),
    ],
)  # fmt: skip
def test_what_is_no_adapter_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(Corrupt, match=said):
        check_lora(content, "adapter.safetensors")


@given(st.integers(0, len(written(GOOD)) - 65), st.integers(0, 255))
def test_a_changed_byte_of_the_header_is_refused_or_changes_nothing(place: int, value: int) -> None:
    content = bytearray(written(GOOD))
    content[place] = value
    try:
        found = check_lora(bytes(content), "a")
    except Corrupt:
        return
    assert (found.rank, found.parameters) == (2, 16)
