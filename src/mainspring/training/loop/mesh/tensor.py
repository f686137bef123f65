"""Layers spread over processes that have the same rows: tensor parallelism (arXiv:1909.08053, section 3).

Of two matrices in a row, the first is cut by columns and the second by rows, so that between them each process has
some of the hidden units and no message is needed. The sum after the second is the one message of a pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import partial
from types import MethodType
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.training.loop.tensors import import_torch

COLUMNS, ROWS, HEADS = "columns", "rows", "heads"

# Names of the linear layers that a block's forward pass puts one after the other: cut by columns, and then by rows.
_PAIRS = (
    (("linear1",), "linear2"),  # torch.nn.TransformerEncoderLayer
    (("q_proj", "k_proj", "v_proj"), "o_proj"),  # transformers: Llama, Mistral, Qwen
    (("gate_proj", "up_proj"), "down_proj"),
    (("fc1",), "fc2"),
    (("c_fc",), "c_proj"),  # transformers: GPT-2
)
_ELEMENTWISE = (
    "ReLU",
    "GELU",
    "SiLU",
    "Tanh",
    "Sigmoid",
    "ELU",
    "LeakyReLU",
    "Softplus",
    "Mish",
    "Dropout",
    "Identity",
)


def plan_of(module: Any, parts: int, given: Mapping[str, str] | None = None, stage: Any = None) -> dict[str, str]:
    """Return how each layer that is spread is cut: "columns", "rows", or "heads" of a MultiheadAttention.

    Args:
        given: A plan by patterns of names, such as `{"layers.*.up": "columns", "layers.*.down": "rows"}`.
        stage: The module with the weights of one stage of a pipeline alone: layers of others are left out.

    Raises:
        Invalid: No layer of the module can be spread, or a pattern fits none.
    """
    found = _derived(module, module, parts) if given is None else _fitting(module, parts, given)
    if found and stage is not None:
        layers = dict(stage.named_modules())
        planned = _derived(stage, module, parts) if given is None else found
        return {name: how for name, how in planned.items() if _own(layers[name])}
    if not found:
        names = ", ".join(f"{name} ({type(each).__name__})" for name, each in module.named_modules() if _own(each))
        raise Invalid(
            f"No layer can be spread over {parts} processes. The module has {names or 'no layers'}.",
            fix='say it by ms.Distributed(tensor_plan={"first": "columns", "second": "rows"}), or use shard instead.',
        )
    return found


def left_whole(module: Any, plan: Mapping[str, str]) -> str:
    """Return which layers a plan leaves whole, by their kinds and with their share of the weights; "" for none.

    Vectors, as of normalisations and biases, are not counted.
    """
    found: dict[str, int] = {}
    known: set[int] = set()  # one that is in two places counts once
    for name, layer in module.named_modules():
        own = {id(each): each.numel() for each in layer.parameters(recurse=False) if each.ndim > 1}
        matrices = sum(count for key, count in own.items() if key not in known)
        known |= own.keys()
        if matrices and name not in plan:
            found[type(layer).__name__] = found.get(type(layer).__name__, 0) + matrices
    every = sum(each.numel() for each in module.parameters())
    shown = sorted(found.items(), key=lambda each: -each[1])
    return ", ".join(f"{kind} ({count / every:.0%} of the weights)" for kind, count in shown)


def _own(module: Any) -> bool:
    return any(True for _ in module.parameters(recurse=False))


def _fitting(module: Any, parts: int, given: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    layers = dict(module.named_modules())
    for pattern, how in given.items():
        names = [name for name in layers if fnmatchcase(name, pattern)]
        if not names or how not in (COLUMNS, ROWS, HEADS):
            raise Invalid(
                f"tensor_plan has {pattern!r}: {how!r}.", fix='use names of layers, and "columns", "rows" or "heads".'
            )
        for name in names:
            _check(name, layers[name], how, parts)
            found[name] = how
            if how == HEADS:
                found[f"{name}.out_proj"] = ROWS
    return found


def _check(name: str, layer: Any, how: str, parts: int) -> None:
    nn = import_torch().nn
    width = 0
    if how == HEADS and isinstance(layer, nn.MultiheadAttention):
        width = layer.num_heads if _plain(layer) else 0
    elif how != HEADS and _is_matrix(layer):
        width = _widths(layer)[how == COLUMNS]
    elif how == ROWS and isinstance(layer, nn.Embedding):
        width = layer.num_embeddings
    if not width or width % parts:
        raise Invalid(
            f"Layer {name!r}, a {type(layer).__name__} of {width}, cannot be cut by {how} into {parts} parts."
        )


def _derived(module: Any, whole: Any, parts: int) -> dict[str, str]:
    nn = import_torch().nn
    tied = _tied(whole)
    found: dict[str, str] = {}
    for at, parent in module.named_modules():
        dot = f"{at}." if at else ""
        children = {name: each for name, each in parent.named_children() if not _ids(each) & tied}
        pairs = [*_PAIRS, *_in_sequence(children)] if isinstance(parent, nn.Sequential) else _PAIRS
        for firsts, second in pairs:
            layers = [children.get(name) for name in (*firsts, second)]
            names = {f"{dot}{name}" for name in (*firsts, second)}
            if not names & found.keys() and all(_is_matrix(each) and _own(each) for each in layers):
                widths = [*(_widths(each)[1] for each in layers[:-1]), _widths(layers[-1])[0]]
                heads = getattr(parent, "head_dim", 1)
                if all(width % (parts * heads) == 0 for width in widths):
                    found.update({f"{dot}{name}": COLUMNS for name in firsts}, **{f"{dot}{second}": ROWS})
        if _is_fused(parent, children) and parent.num_heads % parts == 0:
            found.update({f"{dot}c_attn": HEADS, f"{dot}c_proj": ROWS})
        for name, each in children.items():
            if isinstance(each, nn.MultiheadAttention) and _own(each) and _plain(each) and each.num_heads % parts == 0:
                found.update({f"{dot}{name}": HEADS, f"{dot}{name}.out_proj": ROWS})
            elif (
                type(each) is nn.Embedding and _own(each) and each.max_norm is None and each.num_embeddings % parts == 0
            ):
                found[f"{dot}{name}"] = ROWS
    return found if module is not whole or set(found.values()) != {ROWS} else {}  # an embedding alone is no plan


def _is_matrix(layer: Any) -> bool:
    return isinstance(layer, import_torch().nn.Linear) or _is_transposed(layer)


def _is_transposed(layer: Any) -> bool:
    """Return if a layer is transformers' Conv1D: a linear one whose matrix has the shape (inputs, outputs)."""
    return type(layer).__name__ == "Conv1D" and hasattr(layer, "nf")


def _widths(layer: Any) -> tuple[int, int]:
    """Return the inputs and the outputs of a linear layer."""
    if _is_transposed(layer):
        return layer.weight.shape[0], layer.weight.shape[1]
    return layer.in_features, layer.out_features


def _is_fused(parent: Any, children: Mapping[str, Any]) -> bool:
    """Return if a module is GPT-2's attention of a sequence to itself: queries, keys and values by one matrix."""
    first, second = children.get("c_attn"), children.get("c_proj")
    if not (_is_transposed(first) and _is_transposed(second) and _own(first) and _own(second)):
        return False
    width = getattr(parent, "split_size", 0)
    return hasattr(parent, "num_heads") and hasattr(parent, "head_dim") and _widths(first)[1] == 3 * width


def _in_sequence(children: Mapping[str, Any]) -> Iterator[tuple[tuple[str], str]]:
    """Yield linear layers of a Sequential between which all is by element; none is in two pairs."""
    linear = import_torch().nn.Linear
    before: str | None = None
    for name, each in children.items():
        if isinstance(each, linear):
            if before is not None:
                yield (before,), name
            before = None if before is not None else name
        elif type(each).__name__ not in _ELEMENTWISE:
            before = None


def _ids(module: Any) -> set[int]:
    return {id(each) for each in module.parameters()}


def _tied(module: Any) -> set[int]:
    """Return the parameters that are in two places: they are left whole."""
    every = [id(each) for _, each in module.named_parameters(remove_duplicate=False)]
    return {each for each in every if every.count(each) > 1}


def _plain(attention: Any) -> bool:
    return attention._qkv_same_embed_dim and attention.bias_k is None and not attention.add_zero_attn


def spread(module: Any, mesh: Any, plan: Mapping[str, str]) -> None:
    """Spread a module's layers over the processes of a mesh."""
    torch = import_torch()
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    layers = dict(module.named_modules())
    styles: dict[str, Any] = {}
    for name, how in plan.items():
        layer = layers[name]
        if not _own(layer):  # of another stage
            continue
        if _is_transposed(layer):
            _spread_transposed(layer, mesh, how, layers[name.rpartition(".")[0]])
        elif how == HEADS:
            width = layer.embed_dim
            for key, shape in (("in_proj_weight", (3, width, width)), ("in_proj_bias", (3, width))):
                whole = getattr(layer, key)
                if whole is not None:  # queries, keys and values apart, so that each is cut by heads
                    spread_ = distribute_tensor(whole.detach().reshape(shape), mesh, [Shard(1)], src_data_rank=None)
                    setattr(layer, key, torch.nn.Parameter(spread_, whole.requires_grad))
            layer.forward = MethodType(partial(_attend, mesh), layer)
        elif how == COLUMNS:
            styles[name] = ColwiseParallel()
        else:
            inputs = {"input_layouts": Replicate()} if isinstance(layer, torch.nn.Embedding) else {}
            styles[name] = RowwiseParallel(**inputs)
    if styles:
        parallelize_module(module, mesh, styles)


def _spread_transposed(layer: Any, mesh: Any, how: str, parent: Any) -> None:
    """Spread a Conv1D; with `HEADS`, that of queries, keys and values, whose attention has then fewer heads."""
    torch = import_torch()
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    weight, bias = layer.weight, layer.bias
    shapes: tuple[Any, Any] = (weight.shape, bias.shape)
    places: tuple[Any, Any] = (Shard(1), Shard(0)) if how == COLUMNS else (Shard(0), Replicate())
    if how == HEADS:  # apart, so that each is cut by heads
        shapes = (len(weight), 3, weight.shape[1] // 3), (3, len(bias) // 3)
        places = Shard(2), Shard(1)
        parent.num_heads //= mesh.size()
        parent.split_size //= mesh.size()
    for key, whole, shape, place in zip(("weight", "bias"), (weight, bias), shapes, places, strict=True):
        spread_ = distribute_tensor(whole.detach().reshape(shape), mesh, [place], src_data_rank=None)
        setattr(layer, key, torch.nn.Parameter(spread_, whole.requires_grad))
    layer.forward = MethodType(partial(_transposed, mesh, how), layer)


def _transposed(mesh: Any, how: str, self: Any, rows: Any) -> Any:
    """Return this process's columns, all three parts of its heads, or the sum over processes."""
    from torch.distributed.tensor import DTensor, Replicate, Shard

    given = DTensor.from_local(rows, mesh, [Shard(rows.ndim - 1) if how == ROWS else Replicate()], run_check=False)
    if how == HEADS:
        parts = [(given @ self.weight[:, part] + self.bias[part]).to_local() for part in range(3)]
        return import_torch().cat(parts, -1)
    made = given @ self.weight
    return (made.redistribute(placements=[Replicate()]) if how == ROWS else made).add(self.bias).to_local()


def _attend(
    mesh: Any, self: Any, query: Any, key: Any, value: Any, key_padding_mask: Any = None, need_weights: bool = True,
    attn_mask: Any = None, average_attn_weights: bool = True, is_causal: bool = False,
) -> tuple[Any, None]:  # fmt: skip
    """Attend as `torch.nn.MultiheadAttention` does, with this process's heads; weights are not returned."""
    del need_weights, average_attn_weights, is_causal  # a mask is given where that is true
    torch = import_torch()
    from torch.distributed.tensor import DTensor, Replicate

    own = self.num_heads // mesh.size()
    begin = own * mesh.get_local_rank()
    rows = [each if self.batch_first or each.ndim == 2 else each.transpose(0, 1) for each in (query, key, value)]
    rows = [each if query.ndim == 3 else each.unsqueeze(0) for each in rows]
    parts = []
    for number, each in enumerate(rows):
        bias = None if self.in_proj_bias is None else self.in_proj_bias[number]
        same = DTensor.from_local(each, mesh, [Replicate()], run_check=False)
        made = torch.nn.functional.linear(same, self.in_proj_weight[number], bias).to_local()
        parts.append(made.unflatten(-1, (own, self.head_dim)).transpose(1, 2))
    mask = _mask(attn_mask, parts[0].dtype)
    if mask is not None and mask.ndim == 3:
        mask = mask.unflatten(0, (-1, self.num_heads))[:, begin : begin + own]
    padding = _mask(key_padding_mask, parts[0].dtype)
    if padding is not None:
        padding = padding.reshape(-1, 1, 1, padding.shape[-1])
        mask = padding if mask is None else mask + padding
    dropped = self.dropout if self.training else 0.0
    found = torch.nn.functional.scaled_dot_product_attention(*parts, mask, dropped)
    made = self.out_proj(found.transpose(1, 2).flatten(2))
    made = made if query.ndim == 3 else made.squeeze(0)
    return (made if self.batch_first or made.ndim == 2 else made.transpose(0, 1)), None


def _mask(mask: Any, kind: Any) -> Any:
    """Return a mask that is added: -inf where a mask of booleans is true."""
    torch = import_torch()
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=kind, device=mask.device).masked_fill(mask, float("-inf"))
