"""Measurement of a PyTorch module for a plan: saved tensors, operations and passing memory, by part.

A copy of the module runs one forward and one backward pass of a small and of a whole batch. Its tensors are PyTorch's
"fake" ones, which have shapes and a device but no bytes; where the module does not allow that, it runs on the processor
with few rows. In both, tensors live and die as in a training, so that their bytes can be counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.training.loop.mesh.cut import cut
from mainspring.training.loop.mesh.outline import Outline, bare
from mainspring.training.loop.mesh.tensor import ROWS, left_whole, plan_of
from mainspring.training.loop.tensors import import_torch
from mainspring.training.planning.counting import Parts, Seen, alive
from mainspring.training.planning.model import OPTIMISERS, PRECISIONS, Model, Optimiser, Part
from mainspring.training.planning.subject import Subject, copied, optimiser_like

_MOST_PARTS = 64  # of a layer
_FEW = 2  # rows; one alone would be refused by batch normalisation
_ON_PROCESSOR = 8  # rows of the larger batch where tensors have bytes


def measured(subject: Subject, rows: int) -> Model:
    """Return the model of a module that is trained with `rows` rows a step.

    Raises:
        Invalid: The module has no weights to train.
    """
    torch = import_torch()
    if not any(each.requires_grad for each in subject.module.parameters()):
        raise Invalid(f"The module of {subject.name!r} has no weights to train.")
    weight = next(each for each in subject.module.parameters() if each.requires_grad)
    precision = PRECISIONS[_precision(weight.element_size(), subject.amp)]
    with torch.random.fork_rng(devices=[]):
        few, many, count, where = _passes(torch, subject, max(rows, _FEW + 1))
    parts = [_part(name, few[name], many[name], count, (_working(few, name), _working(many, name))) for name in many]
    twin = bare(subject.module)
    cuts = _cut_layers(twin)
    parts = [_spread(part, many[part.name], twin, cuts) for part in parts]
    return Model(
        name=subject.name,
        parts=tuple(parts),
        precision=precision,
        optimiser=_optimiser(torch, subject),
        heads=_most_parts(twin) if cuts else 0,
        chained=_is_chained(subject),
        measured=True,
        norms=sum(isinstance(each, torch.nn.modules.batchnorm._BatchNorm) for each in subject.module.modules()),
        largest=max(each.numel() for each in subject.module.parameters()),
        notes=(f"Tensors were counted in passes of {_FEW} and {count} rows on {where}.", *_uncut(twin, cuts)),
    )


def _precision(width: int, amp: bool) -> str:
    return "amp" if amp else {2: "bf16", 4: "fp32", 8: "fp64"}[width]


def _passes(torch: Any, subject: Subject, rows: int) -> tuple[dict[str, Seen], dict[str, Seen], int, str]:
    """Return what was seen with few and with many rows, the number of the latter, and where."""
    try:
        return _faked(torch, subject, _FEW), _faked(torch, subject, rows), rows, "tensors without bytes"
    except (ImportError, NotImplementedError, RuntimeError, TypeError, ValueError):
        pass  # it looks at values, or has an operation that is not known by shapes alone
    many = min(rows, _ON_PROCESSOR)
    return _real(torch, subject, _FEW), _real(torch, subject, many), many, "the processor"


def _faked(torch: Any, subject: Subject, rows: int) -> dict[str, Seen]:
    from torch._subclasses.fake_tensor import FakeTensorMode

    device = next(each.device for each in subject.module.parameters())
    kind = "cpu" if device.type == "meta" else str(device)
    inputs, targets = subject.batch(_FEW)

    def made(tensor: Any) -> Any:
        return torch.empty((rows, *tensor.shape[1:]), dtype=tensor.dtype, device=kind)

    with FakeTensorMode():
        module = copied(subject.module, lambda each: torch.empty(each.shape, dtype=each.dtype, device=kind))
        return _pass(torch, subject, module, tuple(made(each) for each in inputs), made(targets))


def _real(torch: Any, subject: Subject, rows: int) -> dict[str, Seen]:
    return _pass(torch, subject, copied(subject.module, lambda each: each.detach().cpu().clone()), *subject.batch(rows))


def _pass(torch: Any, subject: Subject, module: Any, inputs: tuple[Any, ...], targets: Any) -> dict[str, Seen]:
    parts = Parts(module)
    excluded = {each.untyped_storage()._cdata for each in (*module.parameters(), *module.buffers(), *inputs, targets)}
    living = alive(torch)(excluded, parts)
    kind = next(each.device.type for each in module.parameters())
    hooks = torch.autograd.graph.saved_tensors_hooks(parts.pack(excluded), parts.unpack)
    parts.seen["inputs"].batch = sum(each.untyped_storage().nbytes() for each in (*inputs, targets))
    with parts.followed(inputs), living, parts.counted(torch):
        with hooks, subject.forward(kind):
            value = subject.loss(_left(module(*inputs), parts), targets)
        parts.stop_counting()
        living.backward = True
        value.backward()
    return parts.seen


def _left(outputs: Any, parts: Parts) -> Any:
    """Return the outputs; what is saved from here on is the loss's."""
    parts.enter("loss", outputs if hasattr(outputs, "element_size") else None)
    return outputs


def _working(seen: dict[str, Seen], name: str) -> int:
    """Bytes that were there while a part's backward pass went on, beside saved tensors and gradients."""
    names = list(seen)
    place = names.index(name)
    saved = sum(seen[each].saved for each in names[: place + 1])
    gradients = sum(
        weight.numel() * weight.element_size()
        for each in names[place:] for weight in seen[each].parameters if weight.requires_grad
    )  # fmt: skip
    return max(0, seen[name].most - saved - int(gradients))


def _part(name: str, few: Seen, many: Seen, rows: int, working: tuple[int, int]) -> Part:
    """Return a part, with what grows by rows apart from what does not."""
    more = rows - _FEW
    slope, rise = (many.saved - few.saved) / more, max(0.0, (working[1] - working[0]) / more)
    parameters = sum(each.numel() for each in many.parameters)
    return Part(
        name=name,
        parameters=parameters,
        trained=sum(each.numel() for each in many.parameters if each.requires_grad),
        saved=slope + many.batch / rows,
        saved_cut=many.spread / many.saved if many.saved else 0.0,
        fixed=max(0.0, many.saved - slope * rows),
        working=rise,
        working_fixed=max(0.0, working[1] - rise * rows),
        entrance=many.entrance / rows,
        flops=many.flops / rows,
        sums=2,
        block=name not in ("inputs", "outputs", "loss"),
    )


def _cut_layers(twin: Any) -> dict[str, str]:
    """Return which layers tensor parallelism would spread over two processes, and how."""
    try:
        return plan_of(twin, 2)
    except Invalid:
        return {}


def _uncut(twin: Any, cuts: dict[str, str]) -> tuple[str, ...]:
    left = left_whole(twin, cuts) if cuts else ""
    return (f"Tensor parallelism leaves whole in each process: {left}.",) if left else ()


def _most_parts(twin: Any) -> int:
    """Return the power of two into which every layer can be cut that two processes would cut."""
    found, wanted = 2, _cut_layers(twin).keys()
    while found < _MOST_PARTS:
        try:
            if plan_of(twin, found * 2).keys() != wanted:
                return found
        except Invalid:
            return found
        found *= 2
    return found


def _spread(part: Part, seen: Seen, twin: Any, cuts: Mapping[str, str]) -> Part:
    """Return a part with the shares of it that tensor parallelism spreads."""
    names = dict(twin.named_parameters(remove_duplicate=False))
    cut = sum(
        names[name].numel()
        for name in seen.names
        if name.rpartition(".")[0] in cuts and not (name.endswith("bias") and cuts[name.rpartition(".")[0]] == ROWS)
    )
    share = cut / part.parameters if part.parameters else 0.0
    return replace(part, cut=share, saved_cut=part.saved_cut if share else 0.0, sums=2 if share else 0)


def _is_chained(subject: Subject) -> bool:
    """Return whether a pipeline can cut the module."""
    inputs, _ = subject.batch(_FEW)
    try:
        cut(Outline(subject.module), tuple(each.cpu() for each in inputs), 2)
    except Invalid:
        return False
    return True


def _optimiser(torch: Any, subject: Subject) -> Optimiser:
    """Return the memory of an optimiser, measured in one step on the `meta` device."""
    given = subject.optimiser
    name = type(given).__name__.lower()
    weights = [
        torch.nn.Parameter(torch.empty_like(each, device="meta"))
        for group in given.param_groups for each in group["params"] if each.requires_grad
    ]  # fmt: skip
    known = OPTIMISERS.get(name, OPTIMISERS["adam"])
    try:
        made = optimiser_like(given, weights)
        for each in weights:
            each.grad = torch.empty_like(each)
        made.step()
    except (NotImplementedError, RuntimeError, TypeError, ValueError):
        return replace(known, name=name)
    numbers = sum(
        value.numel()
        for state in made.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor) and value.ndim
    )
    return replace(known, name=name, states=numbers / sum(each.numel() for each in weights), bits=0.0)
