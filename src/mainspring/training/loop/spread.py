"""Tensors of a checkpoint that several ranks store: each writes a part, and any number of ranks reads them again.

A tensor is stored as chunks, each in the file of one rank. PyTorch's planners (torch.distributed.checkpoint) say which
chunks of a sharded tensor a rank holds, and which chunks a rank of another layout reads; the files and the messages
between ranks are this package's own, as PyTorch's use pickle.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mainspring.core.errors import Corrupt, Invalid
from mainspring.training.loop.tensors import ITEMS, import_torch

_TOGETHER = 16 << 20  # bytes: tensors that all ranks have, if no more, are stored with the first one
_SMALL = 64 << 10  # bytes of such a tensor that is stored with the first rank in any case
_SHA256_HEX = 64


Like = Callable[[str], Any]  # a tensor that the one at a path of a checkpoint is to be sharded like, or `None`


def no_tensor(_path: str) -> None:
    """Return that a tensor is to be whole."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A box of a tensor: its first element's position, and its size in each dimension."""

    tensor: str
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def key(self) -> str:
        """Name of the chunk in a file."""
        return f"{self.tensor}[{','.join(map(str, self.offsets))}]"

    def rows(self, begin: int, end: int) -> Chunk:
        """Return those of the chunk's first dimension from `begin` to `end`."""
        offsets = (self.offsets[0] + begin, *self.offsets[1:])
        return Chunk(self.tensor, offsets, (end - begin, *self.sizes[1:]))


@dataclass(frozen=True, slots=True)
class Spread:
    """A tensor that is stored in chunks, each in one of the checkpoint's files."""

    dtype: str
    shape: tuple[int, ...]
    chunks: tuple[tuple[tuple[int, ...], tuple[int, ...], int], ...]  # offsets, sizes, number of the file

    def boxes(self, name: str) -> list[tuple[Chunk, int]]:
        return [(Chunk(name, offsets, sizes), file) for offsets, sizes, file in self.chunks]


@dataclass(frozen=True, slots=True)
class Part:
    """A file of chunks: its name, its size in bytes, and the SHA-256 of its content."""

    file: str
    bytes: int
    sha256: str


def held(tensors: Mapping[str, Any]) -> dict[Chunk, Any]:
    """Return the chunks that this rank holds: of a sharded tensor its shards, any other as a whole."""
    if not any(map(is_sharded, tensors.values())):
        return {Chunk(name, (0,) * each.dim(), tuple(each.shape)): each for name, each in tensors.items()}
    from torch.distributed.checkpoint import DefaultSavePlanner

    planner = DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    planner.set_up_planner(dict(tensors), is_coordinator=True)
    found = {}
    for item in planner.create_local_plan().items:
        box = item.tensor_data.chunk
        whole = math.prod(item.tensor_data.size)
        if math.prod(box.sizes) or not whole:
            found[Chunk(item.index.fqn, tuple(box.offsets), tuple(box.sizes))] = planner.resolve_data(item)
    return found


def is_sharded(tensor: Any) -> bool:
    """Return whether a tensor is a DTensor, of which a rank holds a shard or a copy."""
    return hasattr(tensor, "device_mesh")


@dataclass(frozen=True, slots=True)
class Offer:
    """A chunk that a rank could write, and its bytes."""

    chunk: Chunk
    bytes: int
    dtype: str
    shape: tuple[int, ...]


def offers(tensors: Mapping[str, Any], chunks: Iterable[Chunk]) -> list[list[Any]]:
    """Return chunks as JSON for the other ranks."""
    return [
        [each.tensor, each.offsets, each.sizes, math.prod(each.sizes) * tensors[each.tensor].element_size(),
         str(tensors[each.tensor].dtype).removeprefix("torch."), list(tensors[each.tensor].shape)]
        for each in chunks
    ]  # fmt: skip


def offered(values: Iterable[Sequence[Any]]) -> list[Offer]:
    """Return what `offers` of a rank said."""
    return [
        Offer(Chunk(name, tuple(offsets), tuple(sizes)), size, dtype, tuple(shape))
        for name, offsets, sizes, size, dtype, shape in values
    ]


def shared_out(every: Sequence[Sequence[Offer]]) -> tuple[set[str], dict[Chunk, int], dict[str, Spread]]:
    """Decide, alike on every rank, who writes which chunk: each is written once, and all ranks about as many bytes.

    Args:
        every: The chunks of each rank.

    Returns:
        Tensors to store whole with the first rank; the rank of each other chunk; and these by tensor.
    """
    holders: dict[Chunk, list[int]] = {}
    about: dict[Chunk, Offer] = {}
    for rank, offered_chunks in enumerate(every):
        for each in offered_chunks:
            holders.setdefault(each.chunk, []).append(rank)
            about[each.chunk] = each
    whole = {chunk for chunk in holders if chunk.sizes == about[chunk].shape and holders[chunk][0] == 0}
    all_whole = sum(about[chunk].bytes for chunk in whole) <= _TOGETHER
    first = {chunk.tensor for chunk in whole if all_whole or about[chunk].bytes <= _SMALL}
    written: dict[Chunk, int] = {}
    spread: dict[str, list[Chunk]] = {}
    loads = [0] * len(every)
    for chunk in sorted(holders.keys() - {each for each in whole if each.tensor in first},
                        key=lambda each: (-about[each].bytes, each.key)):  # fmt: skip
        for piece, rank in _cut(chunk, holders[chunk], about[chunk].bytes, loads):
            written[piece] = rank
            loads[rank] += about[chunk].bytes * math.prod(piece.sizes) // max(1, math.prod(chunk.sizes))
            spread.setdefault(chunk.tensor, []).append(piece)
    kinds = {chunk.tensor: offer for chunk, offer in about.items()}
    for name, chunks in spread.items():
        if sum(math.prod(each.sizes) for each in chunks) != math.prod(kinds[name].shape):
            raise Invalid(f"The parts of {name!r} that the ranks hold are not all of it, or some of it twice.")
    files = {rank: number for number, rank in enumerate(sorted(set(written.values())))}
    return first, written, {
        name: Spread(kinds[name].dtype, kinds[name].shape,
                     tuple((each.offsets, each.sizes, files[written[each]]) for each in chunks))
        for name, chunks in spread.items()
    }  # fmt: skip


def _cut(chunk: Chunk, ranks: list[int], size: int, loads: Sequence[int]) -> list[tuple[Chunk, int]]:
    """Return who writes a chunk: all ranks that hold it, each some of its rows, or of a small one a single rank."""
    rows = chunk.sizes[0] if chunk.sizes else 0
    if len(ranks) == 1 or rows < len(ranks) or size <= _SMALL:
        return [(chunk, min(ranks, key=lambda rank: (loads[rank], rank)))]
    bounds = [rows * number // len(ranks) for number in range(len(ranks) + 1)]
    return [(chunk.rows(bounds[number], bounds[number + 1]), rank) for number, rank in enumerate(ranks)]


def cut_out(chunks: Mapping[Chunk, Any], pieces: Iterable[Chunk]) -> dict[str, Any]:
    """Return pieces by their keys, each some rows of one of the chunks that a rank holds."""
    found = {}
    tensors: dict[str, list[Chunk]] = {}
    for chunk in chunks:
        tensors.setdefault(chunk.tensor, []).append(chunk)
    for piece in pieces:
        for chunk in tensors[piece.tensor]:
            begin = piece.offsets[0] - chunk.offsets[0] if piece.offsets else 0
            inside = chunk == piece or (
                chunk.offsets[1:] == piece.offsets[1:] and begin >= 0 and begin + piece.sizes[0] <= chunk.sizes[0]
            )
            if inside:
                found[piece.key] = chunks[chunk] if chunk == piece else chunks[chunk][begin : begin + piece.sizes[0]]
    return found


def merged(trees: Sequence[Any]) -> Any:
    """Return one tree of those of all ranks: what only some have is added to what the first has."""
    whole = trees[0]
    for tree in trees[1:]:
        whole = _with(whole, tree)
    return whole


def _with(whole: Any, other: Any) -> Any:
    if not isinstance(whole, dict) or not isinstance(other, dict):
        return whole
    if whole.keys() == other.keys() == {ITEMS}:  # a dict whose keys are no texts, such as the numbers of parameters
        pairs = [{json.dumps(key): value for key, value in each[ITEMS]} for each in (whole, other)]
        return {ITEMS: [[json.loads(key), value] for key, value in _with(*pairs).items()]}
    return {key: _with(whole[key], other.get(key)) if key in whole else other[key] for key in {**whole, **other}}


def digest_of(tree: Any) -> str:
    """Return the SHA-256 of a tree of JSON."""
    return hashlib.sha256(json.dumps(tree).encode()).hexdigest()


def described(spread: Mapping[str, Spread], parts: Iterable[Part]) -> dict[str, Any]:
    """Return the part of a checkpoint's text that names its other files and what they hold."""
    return {
        "parts": [{"file": each.file, "bytes": each.bytes, "sha256": each.sha256} for each in parts],
        "spread": {name: [each.dtype, each.shape, each.chunks] for name, each in spread.items()},
    }


def parsed(text: Mapping[str, Any], allowed: Callable[[str], bool]) -> tuple[dict[str, Spread], list[Part]]:
    """Return what `described` returned.

    Raises:
        Corrupt: It is not of that form, or names a file that is not `allowed`.
    """
    try:
        parts = [Part(each["file"], int(each["bytes"]), each["sha256"]) for each in text.get("parts", ())]
        spread = {
            str(name): Spread(str(dtype), tuple(map(int, shape)), tuple(
                (tuple(map(int, offsets)), tuple(map(int, sizes)), int(file)) for offsets, sizes, file in chunks))
            for name, (dtype, shape, chunks) in text.get("spread", {}).items()
        }  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Corrupt(f"A checkpoint does not say what its parts hold: {type(error).__name__}: {error}.") from error
    if not all(allowed(each.file) and len(each.sha256) == _SHA256_HEX for each in parts):
        raise Corrupt(f"A checkpoint names the parts {[each.file for each in parts]!r}, which are not its own.")
    for name, each in spread.items():
        covered = sum(math.prod(sizes) for _, sizes, _ in each.chunks)
        if covered != math.prod(each.shape) or any(not 0 <= file < len(parts) for *_, file in each.chunks):
            raise Corrupt(f"The chunks of {name!r} in a checkpoint are not all of it.")
    return spread, parts


def read_spread(
    whole: dict[str, Any], spread: dict[str, Spread], files: Callable[[int], Path], like: Like
) -> dict[str, Any]:
    """Return the tensors, each sharded as `like` says and if it has that shape, else whole and on the CPU.

    Only the chunks that this rank needs are read.

    Args:
        whole: Tensors that are not spread.
        files: Returns the files of the chunks, verified.

    Raises:
        Corrupt: A file lacks a chunk.
    """
    torch = import_torch()
    cut = {name: each for name, each in whole.items() if _shards(like(name), tuple(each.shape))}
    if not cut and not spread:
        return whole
    from safetensors import SafetensorError

    boxes = Boxes(cut, spread, files)
    wanted = {name: _target(torch, each, like(name)) for name, each in boxes.spread.items()}
    try:
        _read_planned(wanted, boxes)
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise Corrupt(f"Parts of a checkpoint cannot be read: {type(error).__name__}: {error}.") from error
    return {**whole, **wanted}


class Boxes:
    """Chunks of a checkpoint, in memory or in files, of which boxes are read."""

    def __init__(self, cut: Mapping[str, Any], spread: Mapping[str, Spread], files: Callable[[int], Path]) -> None:
        self.spread = {**spread, **{name: _one_chunk(each) for name, each in cut.items()}}
        self._cut, self._files = cut, files
        self._where = {chunk.key: file for name, each in self.spread.items() for chunk, file in each.boxes(name)}
        self._opened: dict[int, Any] = {}

    def read(self, name: str, at: Sequence[int], offsets: Sequence[int], sizes: Sequence[int]) -> Any:
        """Return a box, `offsets` and `sizes` within the chunk that begins at `at`."""
        from safetensors import safe_open

        slices = tuple(slice(begin, begin + size) for begin, size in zip(offsets, sizes, strict=True))
        if name in self._cut:
            return self._cut[name][slices]
        key = Chunk(name, tuple(at), ()).key
        number = self._where[key]
        if number not in self._opened:
            self._opened[number] = safe_open(self._files(number), framework="pt")
        return self._opened[number].get_slice(key)[slices] if slices else self._opened[number].get_tensor(key)


def _one_chunk(tensor: Any) -> Spread:
    shape = tuple(tensor.shape)
    return Spread(str(tensor.dtype).removeprefix("torch."), shape, (((0,) * len(shape), shape, 0),))


def _read_planned(wanted: dict[str, Any], boxes: Boxes) -> None:
    """Fill tensors of this rank's layout from the chunks that overlap them."""
    from torch.distributed.checkpoint import DefaultLoadPlanner, metadata

    stored: dict[str, Any] = {
        name: metadata.TensorStorageMetadata(
            metadata.TensorProperties(wanted[name].dtype),
            wanted[name].shape,
            [metadata.ChunkStorageMetadata(type(wanted[name].shape)(at), type(wanted[name].shape)(sizes))
             for at, sizes, _ in each.chunks],
        )
        for name, each in boxes.spread.items()
    }  # fmt: skip
    planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    planner.set_up_planner(wanted, metadata.Metadata(stored), is_coordinator=True)
    for item in planner.finish_plan(planner.create_local_plan()).items:
        index = item.storage_index
        target = planner.resolve_tensor(item).detach()
        target.copy_(boxes.read(index.fqn, index.offset or (), item.storage_offsets, item.lengths))
        planner.commit_tensor(item, target)


def _target(torch: Any, stored: Spread, like: Any) -> Any:
    dtype = getattr(torch, stored.dtype)
    if not _shards(like, stored.shape):
        return torch.empty(stored.shape, dtype=dtype)
    return torch.empty_like(like, dtype=dtype, requires_grad=False)


def _shards(like: Any, shape: tuple[int, ...]) -> bool:
    return is_sharded(like) and tuple(like.shape) == shape
