"""Validation of a LightGBM model file from its bytes: the text format, with every tree complete."""

from __future__ import annotations

import json

import msgspec

from mainspring.core.errors import Corrupt

_VERSIONS = ("v2", "v3", "v4")


class Forest(msgspec.Struct, frozen=True):
    """Facts read from a LightGBM model file: number of features, values per row, and objective."""

    features: int
    outputs: int
    objective: str


def check_lightgbm(content: bytes, name: str = "model.txt") -> Forest:
    """Return the facts of the model in `content`, if it is one complete text file of LightGBM.

    Raises:
        Corrupt: The file is not LightGBM's, a tree does not have its declared size, or the parameters are truncated.
    """
    if content[:5] != b"tree\n":
        raise Corrupt(f"{name} is not a LightGBM model: it does not start with the line 'tree'.")
    end = content.find(b"\n\n")
    if end < 0:
        raise Corrupt(f"{name} is truncated: its head has no end.")
    head = dict(line.split("=", 1) for line in content[5:end].decode(errors="replace").splitlines() if "=" in line)
    try:
        if head["version"] not in _VERSIONS:
            raise Corrupt(
                f"{name} has LightGBM's format {head['version'][:20]!r}; supported are {', '.join(_VERSIONS)}."
            )
        objective = head.get("objective", "custom")
        forest = Forest(
            features=int(head["max_feature_idx"]) + 1, outputs=int(head["num_tree_per_iteration"]), objective=objective
        )
        sizes = [int(size) for size in head["tree_sizes"].split()]
    except (KeyError, ValueError) as error:
        raise Corrupt(f"{name} is not a complete LightGBM model: {error!r} in its head.") from error
    _check_trees(content, end + 2, sizes, name)
    return forest


def _check_trees(content: bytes, start: int, sizes: list[int], name: str) -> None:
    for number, size in enumerate(sizes):
        begin = b"Tree=%d\n" % number
        if size < len(begin) or content[start : start + len(begin)] != begin:
            raise Corrupt(f"{name} is truncated or damaged: tree {number} does not start at byte {start}.")
        start += size
    if content[start : start + 12] != b"end of trees":
        raise Corrupt(f"{name} is truncated: its {len(sizes)} trees do not end at byte {start}.")
    tail = content[start:]
    if b"\nend of parameters\n" not in tail:
        raise Corrupt(f"{name} is truncated: its parameters have no end.")
    rest = tail.rpartition(b"\nend of parameters\n")[2].strip()
    if rest:
        key, _, value = rest.partition(b":")
        try:
            json.loads(value)
        except ValueError:
            key = b""
        if key != b"pandas_categorical":
            raise Corrupt(f"{name} is truncated or damaged after its parameters: {rest[:40]!r}.")
