"""Measurement of a PyTorch module for a plan: saved tensors, operations and passing memory, by part.

A copy of the module runs one forward and one backward pass of a small and of a whole batch. Its tensors are PyTorch's
"fake" ones, which have shapes and a device but no bytes; where the module does not allow that, it runs on the processor
with few rows. In both, tensors live and die as in a training, so that their bytes can be counted.
"""

from __future__ import annotations

import copy
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from math import log
from typing import TYPE_CHECKING, Any

from mainspring.core.errors import Invalid
from mainspring.training.loop.blocks import blocks, size
from mainspring.training.loop.mesh.cut import cut
from mainspring.training.loop.mesh.outline import Outline, bare
from mainspring.training.loop.mesh.tensor import ROWS, plan_of
from mainspring.training.loop.tensors import import_torch
from mainspring.training.planning.model import OPTIMISERS, PRECISIONS, Model, Optimiser, Part

if TYPE_CHECKING:
    from mainspring.training.loop.loop import Loop

_MOST_PARTS = 64  # of a layer
_FEW = 2  # rows; one alone would be refused by batch normalisation
_ON_PROCESSOR = 8  # rows of the larger batch where tensors have bytes
_TIMED_S = 0.3
_MOST_TIMED = 256  # rows of a pass whose time is taken


@dataclass(frozen=True, slots=True)
class Subject:
    """A module and how it is trained.

    Attributes:
        batch: Returns `(inputs, targets)` of so many rows, inputs as a tuple.
        amp: Whether the forward pass computes in bfloat16 where PyTorch considers it safe.
    """

    name: str
    module: Any
    optimiser: Any
    loss: Callable[[Any, Any], Any]
    batch: Callable[[int], tuple[tuple[Any, ...], Any]]
    amp: bool = False


@dataclass(slots=True)
class _Seen:
    """Bytes and operations of a part in one pass."""

    saved: int = 0
    spread: int = 0  # of `saved`, those whose last dimension is not that of the part's input
    entrance: int = 0
    batch: int = 0  # bytes of the rows themselves, inputs and targets
    flops: int = 0
    most: int = 0  # live bytes while its backward pass goes on
    parameters: list[Any] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


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
        largest=max(each.numel() for each in subject.module.parameters()),
        notes=(f"Tensors were counted in passes of {_FEW} and {count} rows on {where}.",),
    )


def _precision(width: int, amp: bool) -> str:
    return "amp" if amp else {2: "bf16", 4: "fp32", 8: "fp64"}[width]


def _passes(torch: Any, subject: Subject, rows: int) -> tuple[dict[str, _Seen], dict[str, _Seen], int, str]:
    """Return what was seen with few and with many rows, the number of the latter, and where."""
    try:
        return _faked(torch, subject, _FEW), _faked(torch, subject, rows), rows, "tensors without bytes"
    except (ImportError, NotImplementedError, RuntimeError, TypeError, ValueError):
        pass  # it looks at values, or has an operation that is not known by shapes alone
    many = min(rows, _ON_PROCESSOR)
    return _real(torch, subject, _FEW), _real(torch, subject, many), many, "the processor"


def _faked(torch: Any, subject: Subject, rows: int) -> dict[str, _Seen]:
    from torch._subclasses.fake_tensor import FakeTensorMode

    device = next(each.device for each in subject.module.parameters())
    kind = "cpu" if device.type == "meta" else str(device)
    inputs, targets = subject.batch(_FEW)

    def made(tensor: Any) -> Any:
        return torch.empty((rows, *tensor.shape[1:]), dtype=tensor.dtype, device=kind)

    with FakeTensorMode():
        module = _copied(subject.module, lambda each: torch.empty(each.shape, dtype=each.dtype, device=kind))
        return _pass(torch, subject, module, tuple(made(each) for each in inputs), made(targets))


def _real(torch: Any, subject: Subject, rows: int) -> dict[str, _Seen]:
    return _pass(
        torch, subject, _copied(subject.module, lambda each: each.detach().cpu().clone()), *subject.batch(rows)
    )


def _pass(torch: Any, subject: Subject, module: Any, inputs: tuple[Any, ...], targets: Any) -> dict[str, _Seen]:
    parts = _Parts(module)
    excluded = {each.untyped_storage()._cdata for each in (*module.parameters(), *module.buffers(), *inputs, targets)}
    alive = _alive(torch)(excluded, parts)
    kind = next(each.device.type for each in module.parameters())
    forward: AbstractContextManager[Any] = torch.autocast(kind, dtype=torch.bfloat16) if subject.amp else nullcontext()
    hooks = torch.autograd.graph.saved_tensors_hooks(parts.pack(excluded), parts.unpack)
    parts.seen["inputs"].batch = sum(each.untyped_storage().nbytes() for each in (*inputs, targets))
    with parts.followed(inputs), alive, parts.counted(torch):
        with hooks, forward:
            value = subject.loss(_left(module(*inputs), parts), targets)
        parts.stop_counting()
        alive.backward = True
        value.backward()
    return parts.seen


def _left(outputs: Any, parts: _Parts) -> Any:
    """Return the outputs; what is saved from here on is the loss's."""
    parts.enter("loss", outputs if hasattr(outputs, "element_size") else None)
    return outputs


def _copied(module: Any, made: Callable[[Any], Any]) -> Any:
    """Return a copy without gradients, whose tensors `made` returns; the module's own bytes are not copied."""
    parameter = import_torch().nn.Parameter
    memo: dict[int, Any] = {id(each): made(each) for each in module.buffers()}
    memo.update({id(each): parameter(made(each), each.requires_grad) for each in module.parameters()})
    return copy.deepcopy(module, memo).train()


class _Parts:
    """Parts of a module, and the one that is under way."""

    def __init__(self, module: Any) -> None:
        self.seen: dict[str, _Seen] = {}
        self._module = module
        self._blocks = [(name, each) for name, each in blocks(module).items() if size(each)]
        self._counter: Any = None
        self._before = 0
        self._last_dimension = -1
        self._assigned: set[int] = set()
        self._names = {id(each): name for name, each in module.named_parameters()}
        self.now = ""
        self.enter("inputs", None)

    def enter(self, name: str, entrance: Any) -> None:
        """Begin a part, with its first input."""
        if self._counter is not None:
            total = self._counter.get_total_flops()
            self.seen[self.now].flops += total - self._before
            self._before = total
        self.now = name
        seen = self.seen.setdefault(name, _Seen())
        if entrance is not None:
            seen.entrance = max(seen.entrance, entrance.numel() * entrance.element_size())
            self._last_dimension = entrance.shape[-1] if entrance.ndim else -1

    @contextmanager
    def followed(self, inputs: tuple[Any, ...]) -> Iterator[None]:
        """Follow which part is under way in the forward pass, and which weights it has."""
        first = self.seen["inputs"]
        first.entrance = sum(each.numel() * each.element_size() for each in inputs)
        handles = []
        names = {id(block): name for name, block in self._blocks}
        inside = {id(sub) for _, block in self._blocks for sub in block.modules()}
        for sub in self._module.modules():
            if id(sub) in names:
                handles.append(sub.register_forward_pre_hook(self._entering(names[id(sub)])))
                handles.append(sub.register_forward_hook(self._leaving(names[id(sub)])))
            elif id(sub) not in inside and any(True for _ in sub.parameters(recurse=False)):
                handles.append(sub.register_forward_pre_hook(lambda module, _: self._owns(module, recurse=False)))
        try:
            yield
        finally:
            for each in handles:
                each.remove()
        for each in self._module.parameters():  # used without a call of their module
            if id(each) not in self._assigned:
                first.parameters.append(each)
                first.names.append(self._names[id(each)])

    def _entering(self, name: str) -> Callable[..., None]:
        def entering(module: Any, inputs: tuple[Any, ...]) -> None:
            self.enter(name, next((each for each in inputs if hasattr(each, "element_size")), None))
            self._owns(module, recurse=True)

        return entering

    def _leaving(self, name: str) -> Callable[..., None]:
        last = self._blocks[-1][0]

        def leaving(_module: Any, _inputs: Any, outputs: Any) -> None:
            if name == last:
                self.enter("outputs", outputs if hasattr(outputs, "element_size") else None)

        return leaving

    def _owns(self, module: Any, *, recurse: bool) -> None:
        for each in module.parameters(recurse=recurse):
            if id(each) not in self._assigned:
                self._assigned.add(id(each))
                self.seen[self.now].parameters.append(each)
                self.seen[self.now].names.append(self._names[id(each)])

    def pack(self, excluded: set[int]) -> Callable[[Any], tuple[str, Any]]:
        """Return the hook that counts a tensor which the backward pass needs; a storage counts once."""
        known = set(excluded)

        def packed(tensor: Any) -> tuple[str, Any]:
            storage = tensor.untyped_storage()
            if storage._cdata not in known:
                known.add(storage._cdata)
                seen = self.seen[self.now]
                seen.saved += storage.nbytes()
                if tensor.ndim and tensor.shape[-1] != self._last_dimension:
                    seen.spread += storage.nbytes()
            return self.now, tensor

        return packed

    def unpack(self, packed: tuple[str, Any]) -> Any:
        """Return a saved tensor: the backward pass has reached its part."""
        self.now = packed[0]
        return packed[1]

    def stop_counting(self) -> None:
        """Give the operations since the last part began to it; those of the backward pass are not counted."""
        self.enter(self.now, None)
        self._counter = None

    @contextmanager
    def counted(self, torch: Any) -> Iterator[None]:
        """Count operations."""
        from torch.utils.flop_counter import FlopCounterMode

        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # which the counter does not know
        with FlopCounterMode(display=False, custom_mapping={fused: _attended}) as self._counter:
            yield
        self._counter = None


def _attended(queries: Any, keys: Any, values: Any, *_: Any, **__: Any) -> int:
    """Operations of attention, from shapes (rows, heads, tokens, width)."""
    rows, heads, tokens, width = queries
    return int(2 * rows * heads * tokens * keys[-2] * (width + values[-1]))


def _alive(torch: Any) -> Any:
    """Return the class of a mode that counts the bytes of tensors that live."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Alive(TorchDispatchMode):  # type: ignore[misc]
        def __init__(self, excluded: set[int], parts: _Parts) -> None:
            super().__init__()
            self.bytes, self.backward = 0, False
            self._known, self._parts = set(excluded), parts

        def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
            found = operation(*arguments, **(named or {}))
            for each in tree_leaves(found):
                if isinstance(each, torch.Tensor):
                    self._follow(each.untyped_storage())
            if self.backward:
                seen = self._parts.seen[self._parts.now]
                seen.most = max(seen.most, self.bytes)
            return found

        def _follow(self, storage: Any) -> None:
            key, size = storage._cdata, storage.nbytes()
            if key not in self._known:
                self._known.add(key)
                self.bytes += size
                weakref.finalize(storage, self._gone, key, size)

        def _gone(self, key: int, size: int) -> None:
            self._known.discard(key)
            self.bytes -= size

    return Alive


def _working(seen: dict[str, _Seen], name: str) -> int:
    """Bytes that were there while a part's backward pass went on, beside saved tensors and gradients."""
    names = list(seen)
    place = names.index(name)
    saved = sum(seen[each].saved for each in names[: place + 1])
    gradients = sum(
        weight.numel() * weight.element_size()
        for each in names[place:] for weight in seen[each].parameters if weight.requires_grad
    )  # fmt: skip
    return max(0, seen[name].most - saved - int(gradients))


def _part(name: str, few: _Seen, many: _Seen, rows: int, working: tuple[int, int]) -> Part:
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


def _spread(part: Part, seen: _Seen, twin: Any, cuts: Mapping[str, str]) -> Part:
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
        made = type(given)(weights, **{key: value for key, value in given.defaults.items() if key != "differentiable"})
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


def timed(model: Model, subject: Subject, rows: int, cores: int) -> Model:
    """Return the model with the time that its passes take on this machine's processor, with one thread and with all."""
    torch = import_torch()
    before = torch.get_num_threads()
    points: dict[int, tuple[float, float]] = {}
    module = _copied(subject.module, lambda each: each.detach().cpu().clone())
    many = max(_FEW + 1, min(rows, _MOST_TIMED))
    try:
        with torch.random.fork_rng(devices=[]):
            for threads in sorted({1, cores}):
                torch.set_num_threads(threads)
                small, large = (_seconds(torch, subject, module, count) for count in (_FEW, many))
                each = max(0.0, (large - small) / (many - _FEW))
                points[threads] = max(0.0, small - _FEW * each), each
    finally:
        torch.set_num_threads(before)

    def seconds(count: float, processes: int) -> float:
        fixed, each = points[1]
        one = fixed + count * each
        if cores == 1:
            return one
        every = points[cores][0] + count * points[cores][1]
        power = log(max(every, 1e-9) / max(one, 1e-9)) / log(cores)
        return float(one * max(1, cores // processes) ** power)

    return replace(model, seconds=seconds)


def _seconds(torch: Any, subject: Subject, module: Any, rows: int) -> float:
    """Least seconds of a forward and a backward pass."""
    inputs, targets = subject.batch(rows)
    best, ends = float("inf"), time.perf_counter() + _TIMED_S
    forward = torch.autocast("cpu", dtype=torch.bfloat16) if subject.amp else nullcontext()
    while True:
        begun = time.perf_counter()
        with forward:
            value = subject.loss(module(*inputs), targets)
        value.backward()
        now = time.perf_counter()
        best = min(best, now - begun)
        module.zero_grad(set_to_none=True)
        if now > ends:
            return best


def subject_of(name: str, training: Loop) -> Subject:
    """Return the subject of a training that is looked at, with rows from the first ones in stored order."""
    torch = import_torch()
    try:
        inputs, targets = next(training.rows.in_order(min(_MOST_TIMED, training.batch_size), torch.device("cpu")))
    finally:
        training.rows.close()

    def batch(count: int) -> tuple[tuple[Any, ...], Any]:
        numbers = torch.arange(count) % len(targets)
        return tuple(each[numbers] for each in inputs), targets[numbers]

    return Subject(name, training.module, training.optimiser, training.loss, batch, training.amp)
