"""Processes that each have a part of a module: shards, parts of layers, stages, and copies of these, on one mesh.

Axes from the outermost: stages, copies, shards, parts of layers. Neighbouring ranks, which a machine's fastest links
join, have parts of the same layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.training.distribution import Distributed
from mainspring.training.loop.batch_norm import Counting, synchronised
from mainspring.training.loop.blocks import blocks, recomputed, size
from mainspring.training.loop.mesh.outline import sharing
from mainspring.training.loop.mesh.state import boxed, copy, in_boxes, is_spread, local, parts_of, placed, united, whole
from mainspring.training.loop.mesh.tensor import plan_of, spread
from mainspring.training.loop.parallel import Example, Forward, Loss, Part, Voting, Weights
from mainspring.training.loop.signals import Interrupted
from mainspring.training.loop.tensors import import_torch
from mainspring.training.loop.world import World

_OLDEST = (2, 7)  # version of PyTorch whose functions are used


class Meshed(Voting):
    """A module spread over the processes by FSDP2 and by parts of layers, each axis of any length."""

    def __init__(self, world: World, distributed: Distributed, device: Any, amp: bool = False) -> None:
        super().__init__(world)
        version = self._torch.__version__
        if tuple(map(int, version.split(".")[:2])) < _OLDEST:
            raise Invalid(
                f"PyTorch {version} cannot spread a module.", fix='pip install "torch>=2.7", or use copies alone.'
            )
        from torch.distributed.device_mesh import init_device_mesh

        self.declared, self.device, self.amp = distributed, device, amp
        copies = world.size // (distributed.shard * distributed.tensor * distributed.pipeline)
        self.lengths = (distributed.pipeline, copies, distributed.shard, distributed.tensor)
        self.mesh = init_device_mesh(
            device.type, self.lengths, mesh_dim_names=("pipeline", "copies", "shard", "tensor")
        )
        self.stage, copied, sharded, _ = self.mesh.get_coordinate()
        self.sharers = copies * distributed.shard  # processes that have different rows
        self.place = copied * distributed.shard + sharded
        grid = self._torch.arange(world.size).reshape(self.lengths)
        self.rows_group = self._group(grid.flatten(1, 2).transpose(1, 2).reshape(-1, self.sharers))
        self.loss_group = self._group(grid.reshape(-1, distributed.tensor).T)
        self.stage_group = self.mesh.get_group("pipeline")
        self.trained: Any = None
        self._own: Any = None  # the copy of the module that has this process's part of it
        self._forward: Forward = nullcontext
        self._counting = Counting()
        self._shared: dict[str, Any] = {}  # group of the stages that have a weight, where there are several

    def _group(self, ranks: Any) -> Any:
        """Return this process's group of those in `ranks`, shape (groups, ranks)."""
        found = None
        for each in ranks.tolist():
            group = self._torch.distributed.new_group(each)
            found = group if self.world.rank in each else found
        return found

    @property
    def stream(self) -> int:
        return int(self.stage * self.sharers + self.place)

    @contextmanager
    def training(self, module: Any, optimiser: Any, forward: Forward, example: Example) -> Iterator[Any]:
        self._forward = forward
        self._names = _names(module, optimiser)
        self._shapes = {name: each.shape for name, each in module.named_parameters(remove_duplicate=False)}
        state = optimiser.state_dict()
        self._tied = _tied(module)
        self._own = own = sharing(module)
        with ExitStack() as stack:
            stack.enter_context(_slow_paths())
            if self.sharers > 1 or self.declared.pipeline > 1:
                stack.enter_context(synchronised(own, self._counting, self.rows_group))
            self.trained = self._built(own, module, example, stack)
            before = self._take(module, optimiser)
            self._load_optimiser(optimiser, state)
            try:
                yield self.trained
            except Interrupted:  # on all ranks
                self._give_back(module, optimiser, before)
                raise
            self._give_back(module, optimiser, before)
        self.trained = self._own = None

    def _built(self, own: Any, module: Any, example: Any, stack: ExitStack) -> Any:  # noqa: ARG002
        """Spread the copy of a module that shares its weights; return the module to train."""
        if self.declared.tensor > 1:
            plan = plan_of(own, self.declared.tensor, self.declared.tensor_plan)
            spread(own, self.mesh["tensor"], plan)
        parts = blocks(own)
        stack.enter_context(recomputed(parts.values(), self.declared.checkpoint_activations))
        self._sharded(parts, own)
        return own

    def _sharded(self, parts: dict[str, Any], root: Any) -> None:
        """Shard parts of a module, and what else is in `root`, which contains them."""
        if self.sharers == 1:
            return
        from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

        copies = self.lengths[1]
        policies = {
            "mesh": self.mesh["copies", "shard"] if copies > 1 else self.mesh["shard"],
            "reshard_after_forward": self.declared.pipeline == 1,  # else kept between the parts of a batch
            "offload_policy": CPUOffloadPolicy(self.device.type == "cuda")
            if self.declared.offload
            else OffloadPolicy(),
            "mp_policy": self._precision(root),
        }
        every = [id(each) for _, each in root.named_parameters(remove_duplicate=False)]
        for each in parts.values():
            inside = [id(one) for _, one in each.named_parameters(remove_duplicate=False)]
            if inside and all(
                every.count(one) == inside.count(one) for one in inside
            ):  # weights of others stay together
                fully_shard(each, **policies)
        if size(root):
            fully_shard(root, **policies)

    def _precision(self, root: Any) -> Any:
        """Return in which type weights are gathered and gradients summed: with `amp`, in bfloat16 and in float32.

        Weights in float64 stay, as `torch.autocast` leaves them.
        """
        from torch.distributed.fsdp import MixedPrecisionPolicy

        torch = self._torch
        if not self.amp or any(each.dtype != torch.float32 for each in root.parameters()):
            return MixedPrecisionPolicy()
        if self.device.type == "cpu":
            norms = (torch.nn.LayerNorm, torch.nn.GroupNorm)
            for each in root.modules():
                if isinstance(each, norms) and each.weight is not None:
                    each.register_forward_pre_hook(_as_weights)
        return MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)

    def named(self) -> Weights:
        """Return this process's weights by the names of the whole module, by each that they have there."""
        own = dict(self._own.named_parameters(remove_duplicate=False))
        for names in self._tied:
            found = next((own[name] for name in names if name in own), None)
            if found is not None:
                own.update(dict.fromkeys(names, found))
        return own

    def share(self, numbers: Any) -> Any:
        return self._torch.tensor_split(numbers, self.sharers)[self.place]

    def gradients(self, parts: Iterable[Part], count: int, loss: Loss) -> Any:  # noqa: ARG002
        summed: Any = 0.0
        for part in parts:
            self._counting.rows = len(part.inputs[0]) if part.weight else 0
            with self._forward():
                value = loss(self.trained(*part.inputs), part.targets)
            (value * (part.weight * self.sharers)).backward()  # shards are averaged
            summed = summed + value.detach() * part.weight
        self._settled()
        return summed

    def _settled(self) -> None:
        """Bring each gradient to where its weights are."""
        for each in self.named().values():
            if each.grad is not None and is_spread(each) and each.grad.placements != each.placements:
                each.grad = each.grad.redistribute(placements=each.placements)

    def outputs(self, inputs: tuple[Any, ...]) -> Any:
        with self._forward():
            return self.trained(*inputs)

    def clip(self, parameters: list[Any], norm: float) -> None:
        torch = self._torch
        held = self.sharers * self.declared.tensor
        stages = {id(each): self._stages(name) for name, each in self.named().items()}
        found = [each for each in parameters if each.grad is not None]
        squares = torch.zeros((), dtype=torch.float64, device=self.world.device)
        for each in found:
            square = local(each.grad).detach().to(torch.float64).square().sum()
            squares += square.to(squares.device) / (parts_of(held, each) * stages[id(each)])
        torch.distributed.all_reduce(squares)
        share = float(norm / (squares.sqrt() + 1e-6))
        if share < 1:
            for each in found:
                local(each.grad).mul_(share)

    def _stages(self, name: str) -> int:
        group = self._shared.get(name)
        return 1 if group is None else self._torch.distributed.get_world_size(group)

    def finite(self, parameters: list[Any]) -> bool:
        own = [self._torch.isfinite(local(each)).all() for each in parameters if not each.is_meta]
        return all(self.world.gather(all(bool(each) for each in own)))

    def total(self, value: Any) -> Any:
        summed = self._torch.as_tensor(value, dtype=self._torch.float64, device=self.world.device).clone()
        self._torch.distributed.all_reduce(summed, group=self.loss_group)
        return summed

    def gathered(self, outputs: Any) -> Any:
        if self.sharers == 1:
            return outputs
        return self._torch.cat(self.world.gather_tensors(outputs, self.rows_group))

    def weights(self, module: Any) -> Weights:  # noqa: ARG002
        return dict(self._own.state_dict())

    def _whole(self, weights: Weights) -> Weights:
        found = {name: whole(each, self._shapes.get(name, each.shape)) for name, each in weights.items()}
        return united(found, self.world, self.stage_group) if self.declared.pipeline > 1 else found

    def stored(self, weights: Weights) -> Weights:
        return {name: boxed(each, self._shapes.get(name, each.shape)) for name, each in weights.items()}

    def state(self, weights: Weights, optimiser: Any) -> dict[str, Any]:
        return {"module": self.stored(weights), "optimiser": self._optimiser(optimiser, boxed)}

    def like(self, path: str) -> Any:
        _, part, name = path.split("/", 2)
        if part == "optimiser":
            number = name.removeprefix("state/").partition("/")[0]
            name = self._names[int(number)] if number.isdecimal() and int(number) < len(self._names) else ""
        found = self.named().get(name) if part in ("module", "best", "optimiser") else None
        alike = found is not None and in_boxes(found) and found.shape == self._shapes[name]
        return found if alike else None

    def load(self, module: Any, weights: Weights) -> None:
        own = self.weights(module)
        for name in own.keys() & weights.keys():
            copy(weights[name], own[name])

    def restore(self, module: Any, optimiser: Any, state: dict[str, Any]) -> None:
        self.load(module, state["module"])
        self._load_optimiser(optimiser, state["optimiser"])

    def _optimiser(self, optimiser: Any, form: Callable[[Any, Any], Any]) -> dict[str, Any]:
        """Return the optimiser's state with the names of one process, of this process's weights."""
        found = optimiser.state_dict()
        own = self.named()
        states = {}
        for number, name in enumerate(self._names):
            if name in own and number in found["state"]:
                states[number] = {
                    key: form(each, self._shapes[name]) if _shaped(each, own[name].shape) else each
                    for key, each in found["state"][number].items()
                }
        return {**found, "state": states}

    def _load_optimiser(self, optimiser: Any, state: dict[str, Any]) -> None:
        own = self.named()
        states = {}
        for number, entry in state["state"].items():
            name = self._names[int(number)]
            if name in own:
                states[int(number)] = {
                    key: placed(each, own[name]) if _shaped(each, self._shapes[name]) else each
                    for key, each in entry.items()
                }
        optimiser.load_state_dict({**state, "state": states})

    def _take(self, module: Any, optimiser: Any) -> list[Any]:
        """Give the optimiser this process's weights, and free those of the module; return the optimiser's before."""
        own, given = self.named(), dict(module.named_parameters(remove_duplicate=False))
        nn = self._torch.nn
        before = [each for group in optimiser.param_groups for each in group["params"]]
        optimiser.state.clear()
        names = iter(self._names)
        for group in optimiser.param_groups:
            group["params"] = [
                own[name] if name in own else nn.Parameter(self._torch.empty_like(each, device="meta"))
                for each, name in zip(group["params"], names, strict=False)
            ]
        kept = {id(each) for each in own.values()}
        for each in {id(each): each for each in given.values()}.values():
            if id(each) not in kept:
                _exchange(each, nn.Parameter(self._torch.empty_like(each, device="meta"), each.requires_grad))
        return before

    def _give_back(self, module: Any, optimiser: Any, before: list[Any]) -> None:
        """Give the module all weights and the optimiser its parameters; with `offload`, in the first process alone."""
        found = self._whole(self.weights(module))
        state = self._optimiser(optimiser, whole)
        if self.declared.pipeline > 1:
            state["state"] = dict(sorted(united(state["state"], self.world, self.stage_group).items()))
        if self.declared.offload and self.device.type == "cuda" and not self.world.first:
            found, state["state"] = {}, {}
        done: set[int] = set()
        with self._torch.no_grad():
            for name, each in module.named_parameters(remove_duplicate=False):
                if name in found and id(each) not in done:
                    value = found.pop(name).detach().to(self.device)
                    _exchange(each, self._torch.nn.Parameter(value, each.requires_grad))
                    done.add(id(each))
            for name, each in module.named_buffers():
                if name in found:
                    each.copy_(found[name])
        rest = iter(before)
        for group in optimiser.param_groups:
            group["params"] = [next(rest) for _ in group["params"]]
        optimiser.state.clear()
        optimiser.load_state_dict(state)


def _names(module: Any, optimiser: Any) -> list[str]:
    """Return the names of the optimiser's parameters, in their order."""
    names = {id(each): name for name, each in module.named_parameters()}
    every = [each for group in optimiser.param_groups for each in group["params"]]
    other = [tuple(each.shape) for each in every if id(each) not in names]
    if other:
        raise Invalid(
            f"The optimiser has a parameter of shape {other[0]} that the module has not.",
            fix="make it a parameter of the module, or train without shard, tensor and pipeline.",
        )
    return [names[id(each)] for each in every]


def _tied(module: Any) -> list[list[str]]:
    """Return the names of each parameter that has several."""
    names: dict[int, list[str]] = {}
    for name, each in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(each), []).append(name)
    return [each for each in names.values() if len(each) > 1]


@contextmanager
def _slow_paths() -> Iterator[None]:
    """Switch off the fast path of attention, which reads matrices past the modules that have parts of them."""
    switch = import_torch().backends.mha
    before = switch.get_fastpath_enabled()
    switch.set_fastpath_enabled(False)
    try:
        yield
    finally:
        switch.set_fastpath_enabled(before)


def _as_weights(norm: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Give a normalisation its input in the type of its weights, as autocast does on a GPU alone."""
    return (args[0].to(norm.weight.dtype), *args[1:])


def _shaped(value: Any, shape: Any) -> bool:
    return bool(getattr(value, "shape", None) == shape)


def _exchange(tensor: Any, other: Any) -> None:
    """Exchange what two tensors are, so that all who have the one see the other."""
    if tensor.grad is not None:
        tensor.grad = None
    import_torch().utils.swap_tensors(tensor, other)
