"""Merkle trees over a list that only grows: hashes, appends, roots, proofs and their verification.

The tree is that of RFC 6962, section 2.1: SHA-256, a prefix of 0x00 for leaves and of 0x01 for nodes, and the left
subtree of n leaves has the largest power of two below n. A *frontier* is the list of the roots of the complete subtrees
that a tree of some size consists of, the largest first; it is all that an append needs. Everything here is a function
on hashes, 32 bytes each.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

EMPTY_ROOT = sha256(b"").digest()

Range = tuple[int, int]  # leaves from the first number to before the second


def leaf_hash(content: bytes) -> bytes:
    """Return the hash of a leaf."""
    return sha256(b"\x00" + content).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node."""
    return sha256(b"\x01" + left + right).digest()


def extend(frontier: Sequence[bytes], size: int, added: Sequence[bytes]) -> tuple[list[bytes], list[list[bytes]]]:
    """Append leaves to a tree, or complete subtrees of one height to a tree of such.

    Args:
        frontier: Frontier of the tree.
        size: Number of its leaves.
        added: Hashes of leaves.

    Returns:
        The new frontier; and for each height from 0 on, the roots of the subtrees that this append completed, from
        the left.
    """
    left = list(frontier)
    right: list[bytes] = []  # of the new frontier, the smallest first
    completed: list[list[bytes]] = []
    level = list(added)
    while level or size:
        completed.append(level)
        if size & 1:
            level = [left.pop(), *level]
        if len(level) & 1:
            right.append(level[-1])
        nodes = iter(level)
        level = [sha256(b"\x01" + each + other).digest() for each, other in zip(nodes, nodes, strict=False)]
        size >>= 1
    return left + right[::-1], completed


def root(frontier: Sequence[bytes]) -> bytes:
    """Return the root of the tree with this frontier."""
    if not frontier:
        return EMPTY_ROOT
    found = frontier[-1]
    for each in frontier[-2::-1]:
        found = node_hash(each, found)
    return found


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """Return the ranges of leaves whose roots prove that a leaf is in a tree, the nearest first (RFC 6962, 2.1.1)."""
    begin, end = 0, size
    found: list[Range] = []
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            found.append((middle, end))
            end = middle
        else:
            found.append((begin, middle))
            begin = middle
    return found[::-1]


def consistency_ranges(old: int, new: int) -> list[Range]:
    """Return the ranges of leaves whose roots prove that a tree is the beginning of another (RFC 6962, 2.1.2).

    Of an empty tree, and of one of the same size, nothing has to be proved.
    """
    if old in (0, new):
        return []
    begin, end, whole = 0, new, True  # whether the old tree has all leaves before `begin` as one subtree
    found: list[Range] = []
    while end != old:
        middle = begin + _split(end - begin)
        if old <= middle:
            found.append((middle, end))
            end = middle
        else:
            found.append((begin, middle))
            begin, whole = middle, False
    if not whole:
        found.append((begin, end))
    return found[::-1]


def _split(leaves: int) -> int:
    """Return the largest power of two below a number of leaves above one."""
    return 1 << (leaves - 1).bit_length() - 1


def includes(root: bytes, size: int, index: int, leaf: bytes, proof: Sequence[bytes]) -> bool:
    """Return whether a proof shows that a leaf is in the tree (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    at, last, found = index, size - 1, leaf
    for each in proof:
        if last == 0:
            return False
        if at & 1 or at == last:
            found = node_hash(each, found)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            found = node_hash(found, each)
        at, last = at >> 1, last >> 1
    return last == 0 and found == root


def extends(old_root: bytes, old: int, new_root: bytes, new: int, proof: Sequence[bytes]) -> bool:
    """Return whether a proof shows that a tree is the beginning of another (RFC 9162, 2.1.4.2)."""
    if not 0 <= old <= new:
        return False
    if old == new:
        return not proof and old_root == new_root
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    path = list(proof) if old & old - 1 else [old_root, *proof]
    if not path:
        return False
    at, last = old - 1, new - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    before = after = path[0]
    for each in path[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            before, after = node_hash(each, before), node_hash(each, after)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            after = node_hash(after, each)
        at, last = at >> 1, last >> 1
    return last == 0 and before == old_root and after == new_root
