"""The audit log's tree against RFC 6962's own definition, computed by its recursion over all leaves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.security.merkle import (
    EMPTY_ROOT,
    consistency_ranges,
    extend,
    extends,
    includes,
    inclusion_ranges,
    leaf_hash,
    root,
)

# The tests' data of Certificate Transparency's own implementations, and the roots of its first leaves.
_VECTORS = ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
_ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


def largest_power_below(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def mth(leaves: Sequence[bytes]) -> bytes:
    """MTH of section 2.1, on hashes of leaves."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = largest_power_below(len(leaves))
    return sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH of section 2.1.1."""
    if len(leaves) == 1:
        return []
    k = largest_power_below(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m: int, leaves: Sequence[bytes], whole: bool) -> list[bytes]:
    """SUBPROOF of section 2.1.2."""
    n = len(leaves)
    if m == n:
        return [] if whole else [mth(leaves)]
    k = largest_power_below(n)
    if m <= k:
        return [*subproof(m, leaves[:k], whole), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


def hashes(count: int) -> list[bytes]:
    return [leaf_hash(str(number).encode()) for number in range(count)]


def mutations(proof: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Yield proofs that are no proofs: a bit changed, a hash left out, doubled, added, two in another order."""
    for at, each in enumerate(proof):
        yield [*proof[:at], bytes([each[0] ^ 1, *each[1:]]), *proof[at + 1 :]]
        yield [*proof[:at], *proof[at + 1 :]]
        yield [*proof[: at + 1], *proof[at:]]
    yield [*proof, bytes(32)]
    for at in range(len(proof) - 1):
        yield [*proof[:at], proof[at + 1], proof[at], *proof[at + 2 :]]


def test_known_vectors() -> None:
    leaves = [leaf_hash(bytes.fromhex(text)) for text in _VECTORS]
    assert [root(extend([], 0, leaves[: size + 1])[0]).hex() for size in range(len(leaves))] == list(_ROOTS)
    assert EMPTY_ROOT == root([]) == mth([])


@given(st.lists(st.integers(0, 600), max_size=6))
def test_appends_in_any_parts_make_the_tree_of_the_definition(parts: list[int]) -> None:
    leaves = hashes(sum(parts))
    frontier: list[bytes] = []
    subtrees: dict[int, list[bytes]] = {}
    size = 0
    for part in parts:
        frontier, completed = extend(frontier, size, leaves[size : size + part])
        size += part
        for height, roots in enumerate(completed):
            subtrees.setdefault(height, []).extend(roots)
    assert root(frontier) == mth(leaves)
    assert len(frontier) == size.bit_count()
    for height, roots in subtrees.items():
        width = 1 << height
        assert len(roots) == size >> height
        assert roots[-1:] == [mth(leaves[at - width : at]) for at in [(size >> height) * width] if at]


@pytest.mark.parametrize("size", range(1, 34))
def test_proofs_are_those_of_the_definition_and_none_other_passes(size: int) -> None:
    leaves = hashes(size)
    whole = mth(leaves)
    for index in range(size):
        proof = [mth(leaves[begin:end]) for begin, end in inclusion_ranges(index, size)]
        assert proof == path(index, leaves)
        assert includes(whole, size, index, leaves[index], proof)
        assert not includes(whole, size, index, leaf_hash(b"another"), proof)
        assert not any(includes(whole, size, other, leaves[index], proof) for other in range(size) if other != index)
        assert not any(includes(whole, size, index, leaves[index], each) for each in mutations(proof))
    for old in range(1, size):
        before = mth(leaves[:old])
        proof = [mth(leaves[begin:end]) for begin, end in consistency_ranges(old, size)]
        assert proof == subproof(old, leaves, True)
        assert extends(before, old, whole, size, proof)
        assert not extends(mth([*leaves[: old - 1], bytes(32)]), old, whole, size, proof)
        assert not extends(before, old, mth([*leaves[:-1], bytes(32)]), size, proof)
        assert not any(extends(before, old, whole, size, each) for each in mutations(proof))


@given(st.data())
def test_proofs_in_larger_trees(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 1_500))
    leaves = hashes(size)
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    inclusion = [mth(leaves[begin:end]) for begin, end in inclusion_ranges(index, size)]
    assert inclusion == path(index, leaves)
    assert includes(mth(leaves), size, index, leaves[index], inclusion)
    proof = [mth(leaves[begin:end]) for begin, end in consistency_ranges(old, size)]
    assert proof == subproof(old, leaves, True)
    assert extends(mth(leaves[:old]), old, mth(leaves), size, proof)


def test_degenerate_proofs() -> None:
    leaves = hashes(2)
    assert extends(EMPTY_ROOT, 0, mth(leaves), 2, [])
    assert not extends(bytes(32), 0, mth(leaves), 2, [])
    assert not extends(EMPTY_ROOT, 0, mth(leaves), 2, [bytes(32)])
    assert extends(mth(leaves), 2, mth(leaves), 2, [])
    assert not extends(mth(leaves), 2, bytes(32), 2, [])
    assert not extends(mth(leaves), 2, leaves[0], 1, [])
    assert not includes(mth(leaves), 2, 2, leaves[1], [leaves[0]])
    assert not includes(mth(leaves), 2, -1, leaves[1], [leaves[0]])
    assert not includes(EMPTY_ROOT, 0, 0, leaves[0], [])
