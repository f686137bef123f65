"""Trainings on meshes of processes: run by test_meshes.py in each rank, not a test itself.

`python mesh_cases.py RANKS FOLDER CASE...`, where a case is `NAME:shard=2,tensor=2`: a case of `parallel_cases`, and
axes of the mesh.
`dry-stopped` and `dry-resumed` drop no units. `kept-NAME:AXES:N` is a case with checkpoints that stops after N calls of
its loss; 0: never.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import torch
import torch.distributed.fsdp
import torch.distributed.pipelining
import torch.distributed.tensor.parallel

from kit import parallel_cases, ranks
from kit.networks import Transformer
from kit.parallel_cases import MORE, ROWS, TARGETS, WORDS
from mainspring.core.errors import Invalid
from mainspring.training.distribution import Distributed
from mainspring.training.loop.fit import fit_torch
from mainspring.training.loop.signals import Interrupted
from mainspring.training.loop.world import launched


class Skipping(torch.nn.Module):
    """A network whose last layer also gets the output of the first, or that cannot be copied."""

    def __init__(self, lock: bool = False) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(6, 6) for _ in range(4))
        self.last = torch.nn.Linear(6, 1)
        self.lock = threading.Lock() if lock else None

    def forward(self, rows: Any) -> Any:
        found = first = self.layers[0](rows)
        for layer in self.layers[1:]:
            found = layer(found)
        return self.last(found + first).sigmoid()


def dropping() -> Any:
    """Return a network that drops units which all processes of a tensor group have."""
    nn = torch.nn
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6), nn.Dropout(0.4), nn.Linear(6, 1), nn.Sigmoid())


class Single(torch.nn.Module):
    """A network in float32, which mixed precision needs, between rows in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))

    def double(self) -> Any:
        return self

    def forward(self, rows: Any) -> Any:
        return self.layers(rows.float()).double().sigmoid()


class SingleWords(Transformer):
    """A transformer in float32."""

    def __init__(self) -> None:
        super().__init__(words=20, width=16, hidden=32, heads=2, layers=2)

    def double(self) -> Any:
        return self


class Gpt2(torch.nn.Module):
    """A tiny GPT-2 with random weights, and experts of one tensor after it, which no plan can cut."""

    def __init__(self) -> None:
        from transformers import GPT2Config, GPT2LMHeadModel

        super().__init__()
        made = GPT2Config(vocab_size=20, n_embd=16, n_layer=2, n_head=4, n_positions=8, resid_pdrop=0.0,
                          embd_pdrop=0.0, attn_pdrop=0.0, tie_word_embeddings=False,
                          bos_token_id=None, eos_token_id=None)  # fmt: skip
        self.inner = GPT2LMHeadModel(made)
        self.experts = torch.nn.Parameter(torch.randn(3, 20, 20) / 5)

    def forward(self, words: Any) -> Any:
        found = self.inner(words, use_cache=False).logits
        return torch.einsum("bti,eio->bot", found, self.experts)


def refused(name: str, distributed: Distributed) -> str:
    """Return why a training is refused."""
    torch.manual_seed(3)
    module = Skipping(lock=name == "lock").double()
    weights = [*module.parameters(), *([torch.nn.Parameter(torch.zeros(3))] if name == "other" else [])]
    try:
        fit_torch(module, (ROWS, TARGETS), torch.nn.functional.binary_cross_entropy, epochs=1,
                  optimiser=torch.optim.SGD(weights, lr=0.1), distributed=distributed)  # fmt: skip
    except Invalid as error:
        return str(error)
    return ""


def declared(text: str) -> Distributed:
    given = {key: value for key, _, value in (each.partition("=") for each in text.split(",")) if key}
    return Distributed(
        shard=int(given.get("shard", 1)), tensor=int(given.get("tensor", 1)), pipeline=int(given.get("pipeline", 1)),
        checkpoint_activations="again" in given, offload="offload" in given,
    )  # fmt: skip


entropy = torch.nn.functional.binary_cross_entropy
MORE["dropping"] = (dropping, (ROWS, TARGETS), entropy, {})
MORE["mixed"] = (Single, (ROWS, TARGETS), entropy, {"amp": True})
MORE["gpt2"] = (Gpt2, (WORDS, WORDS.roll(1, 1)), torch.nn.functional.cross_entropy, {})
MORE["mixed-words"] = (SingleWords, (WORDS, WORDS.roll(1, 1)), torch.nn.functional.cross_entropy, {"amp": True})


def settings(name: str) -> dict[str, Any]:
    """Return the settings of a case by which one process trains alike: a pipeline has a batch in parts."""
    few = {"epochs": 2}  # steps on a mesh are dear, and each has all that a step can have
    if "pipeline" not in name:
        return few
    return {**few, "batch_size": 15, "accumulate": 2} if name.startswith("convolutional") else {**few, "accumulate": 4}


def one(folder: Path, name: str) -> Any:
    case, _, text = name.partition(":")
    act = case.removeprefix("dry-")
    if act in ("stopped", "resumed", "undisturbed"):
        at = 9 if act == "stopped" and launched().rank == launched().size - 1 else None
        part = "dry" if act != case else "others" if act == "undisturbed" else "checkpoints"
        given = {"accumulate": 2, "dropout": 0.0 if act != case else 0.3}
        return parallel_cases.train_stopping(folder / text, at, part, distributed=declared(text), **given)
    if case.startswith("kept-"):
        axes, _, calls = text.partition(":")
        parallel_cases.STOP.at = int(calls)
        try:
            return parallel_cases.train(case.removeprefix("kept-"), distributed=declared(axes), **settings(name),
                                        checkpoints=folder / f"kept:{axes}")  # fmt: skip
        except Interrupted as stopped:
            return stopped.number
    if case.startswith("refused"):
        return refused(case.removeprefix("refused-"), declared(text))
    return parallel_cases.train(case, distributed=declared(text), **settings(name))


def leave_groups() -> None:
    """End the groups of a case: each has threads that wake a hundred times a second."""
    distributed = torch.distributed
    if distributed.is_initialized():
        distributed.barrier()
        for group in list(distributed.distributed_c10d._world.pg_map):
            if group is not distributed.group.WORLD:
                distributed.destroy_process_group(group)


def main(folder: Path, names: list[str]) -> None:
    for name in names:
        torch.save(one(folder, name), folder / f"{name}-{launched().rank}.pt")
        leave_groups()


if __name__ == "__main__":
    torch.set_num_threads(1)
    ranks.fork(int(sys.argv[1]), Path(sys.argv[2]), lambda: main(Path(sys.argv[2]), sys.argv[3:]))
