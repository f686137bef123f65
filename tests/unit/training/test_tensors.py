"""State dicts as JSON and safetensors: what comes back is what went in, and the library reads what we write."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.depth import examples
from kit.later import later
from mainspring.core.errors import Corrupt, Invalid
from mainspring.training.loop.tensors import pieces, places, put_together, read_tensors, take_apart, write_tensors
from mainspring.training.loop.writing import Image

torch = later("torch")
KINDS = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")


def random(shape: list[int], seed: int) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
some_tensors = st.builds(
    lambda kind, *drawn: random(*drawn).to(getattr(torch, kind)),
    st.sampled_from(KINDS), st.lists(st.integers(0, 4), max_size=3), st.integers(0, 99),
)  # fmt: skip
keys = st.one_of(st.integers(), st.text(max_size=6), st.sampled_from(["$tensor", "$tuple", "a/b"]))
trees = st.recursive(
    st.one_of(leaves, some_tensors),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.lists(inner, max_size=3).map(tuple), st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=10,
)


def same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, torch.Tensor):
        bits = [each.contiguous().reshape(-1).view(torch.uint8) for each in (one, other) if each.numel()]
        return one.dtype == other.dtype and one.shape == other.shape and (not bits or torch.equal(*bits))
    return bool(one == other) or (isinstance(one, float) and math.isnan(one) and math.isnan(other))


def written(path: Path, tensors: dict[str, Any], text: str = "", *, copied: bool = False) -> None:
    found = places(tensors)
    image = Image(tensors, found)
    image.take(tensors)
    write_tensors(path, found, image.pieces() if copied else pieces(tensors, found), text)


@settings(
    deadline=None, max_examples=examples(gate=20, deep=60), suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tree=trees, copied=st.booleans())
def test_what_comes_back_is_what_went_in(tree: Any, copied: bool, tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    path.unlink(missing_ok=True)
    text, tensors = take_apart(tree)
    written(path, tensors, json.dumps(text), copied=copied)
    content = path.read_bytes()
    assert content[-32:] == hashlib.sha256(content[:-32]).digest()
    found, said = read_tensors(path)
    assert same(put_together(json.loads(said), found), tree)


@pytest.mark.parametrize("copied", [True, False])
def test_every_type_and_a_tensor_that_is_a_view(copied: bool, tmp_path: Path) -> None:
    tensors = {kind: torch.arange(12).reshape(3, 4).to(getattr(torch, kind)).T for kind in KINDS}
    tensors["scalar"] = torch.tensor(3.5)
    written(tmp_path / "t", tensors, copied=copied)
    found, _ = read_tensors(tmp_path / "t")
    assert all(same(found[name], each.contiguous()) for name, each in tensors.items())


def test_the_optimisers_state_survives() -> None:
    module = torch.nn.Linear(3, 2)
    optimiser = torch.optim.Adam(module.parameters(), lr=0.1, betas=(0.8, 0.9))
    module(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    text, tensors = take_apart(optimiser.state_dict())
    assert same(put_together(json.loads(json.dumps(text)), tensors), optimiser.state_dict())


def test_what_is_neither_is_named() -> None:
    with pytest.raises(Invalid, match=r"'/schedule/0' is a function"):
        take_apart({"schedule": [lambda: 0]})
    with pytest.raises(Invalid, match="sparse"):
        places({"s": torch.eye(2).to_sparse()})


def test_a_file_of_another_format_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"PK\x03\x04 a zip of pickles")
    with pytest.raises(Corrupt):
        read_tensors(tmp_path / "t")
