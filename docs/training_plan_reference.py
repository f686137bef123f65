"""Writes docs/reference/training-plans.md, plans beside published figures: `python docs/training_plan_reference.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mainspring.core.accelerators import parse_group
from mainspring.llm.sizing.models import read_model
from mainspring.llm.sizing.trained import trained
from mainspring.training.distribution import Distributed
from mainspring.training.planning.layouts import Layout
from mainspring.training.planning.memory import memory
from mainspring.training.planning.model import OPTIMISERS, PRECISIONS
from mainspring.training.planning.plan import RUNTIME
from mainspring.training.planning.timing import GOOD, POOR, USUAL, time
from mainspring.training.planning.topology import of_group

PAGE = Path(__file__).parent / "reference" / "training-plans.md"
SOURCE = "https://github.com/mosaicml/llm-foundry/blob/main/scripts/train/benchmarking/README.md"
# Hidden size, layers and heads; vocabulary of 50,368.
SHAPES = {"1b": (2048, 24, 16), "3b": (2560, 32, 20), "7b": (4096, 32, 32), "13b": (5120, 40, 40),
          "30b": (7168, 48, 56)}  # fmt: skip


class Published(NamedTuple):
    """A training of MPT in bfloat16 on H100, sharded over all of them."""

    model: str
    tokens: int  # of a sequence
    gpus: int
    rows: int  # of a part of a batch
    parts: int
    checkpoints: bool
    rate: float  # tokens a second and GPU


PUBLISHED = [
    Published(*each)
    for each in (
        ("1b", 2048, 8, 14, 1, False, 45455), ("1b", 2048, 64, 20, 1, False, 44402),
        ("3b", 2048, 16, 10, 3, False, 24142), ("3b", 8192, 8, 3, 6, False, 16578),
        ("7b", 2048, 8, 6, 1, False, 10643), ("7b", 4096, 8, 16, 2, True, 8611), ("7b", 8192, 8, 8, 2, True, 6935),
        ("7b", 32768, 8, 2, 2, True, 3318), ("13b", 2048, 8, 2, 1, False, 4792), ("13b", 2048, 64, 2, 1, False, 4800),
        ("13b", 4096, 8, 10, 3, True, 4717), ("30b", 2048, 8, 3, 21, True, 2002), ("30b", 2048, 32, 14, 3, True, 2308),
    )
]  # fmt: skip
# Table 1 of arXiv:1910.02054: GB of states of 7.5 B parameters by processes
STATES = {1: 120.0, 4: 30.0, 16: 7.5, 64: 1.88, 256: 0.47}
_HEAD = """\
# Plans of trainings: formulas and figures

<!-- Written by docs/training_plan_reference.py; a test fails where it is not current. -->

Formulas that [`mainspring train --plan`](../howto/plan-a-training.md) computes with, and its results beside published
figures.

## Formulas

`n` processes of an axis, `m` parts of a batch, `p` stages, `b` rows of a part.

"""
_FORMULAS = [
    [
        "weights, gradients, states",
        "bytes of a parameter by precision and optimiser, over the processes of a shard",
        "ZeRO, arXiv:1910.02054, section 3; 8-bit states with a scale for 256: arXiv:2110.02861",
    ],
    [
        "activations, measured",
        "bytes of the storages that autograd saves, a storage once, in a pass of 2 rows and of a batch",
        "`torch.autograd.graph.saved_tensors_hooks`",
    ],
    [
        "activations, described",
        "those of each operation of a layer; 32 bytes a token and hidden value for GPT in 16 bits, without dropout",
        "arXiv:2205.05198, equation 1, with fused attention: arXiv:2205.14135",
    ],
    [
        "checkpointing",
        "the input of each block, and the activations of one block",
        "arXiv:1604.06174",
    ],
    [
        "pipeline",
        "activations of min(`p` - stage, `m`) parts in the stages from 0",
        "1F1B, arXiv:2104.04473, section 2.2; PipeDream-Flush, arXiv:2006.09503",
    ],
    [
        "copies",
        "gradients stay in DDP's buckets; with `m` > 1 the sums lie beside them",
        "arXiv:2006.15704",
    ],
    [
        "shards",
        "whole weights of what is outside of blocks and of two blocks, gradients of one block before and "
        "in the reduction",
        "FSDP, arXiv:2304.11277",
    ],
    [
        "tensor parallelism",
        "two sums of an activation in a layer, forward and backward",
        "Megatron-LM, arXiv:1909.08053, section 3",
    ],
    [
        "a sum over `n`",
        "2 (`n` - 1) (latency + bytes / `n` / rate); a gather half of it",
        "ring: Thakur et al. 2005; Patarasuk and Yuan 2009",
    ],
    [
        "computing",
        "3 forward passes, 4 for blocks that are computed again, at a share of the datasheet's rate; "
        "attention at 0.6 of that",
        "arXiv:2104.04473, section 3; FlashAttention-2, arXiv:2307.08691",
    ],
    [
        "bubble",
        "(`p` - 1) parts' computing",
        "arXiv:2104.04473, section 2.2",
    ],
    [
        "overlap",
        "communication of shards and copies counts as far as it exceeds a share of the computing beside it",
        "arXiv:2006.15704, arXiv:2304.11277",
    ],
    [
        "optimiser",
        "bytes of weights, states and gradients over the memory's rate; in main memory 8 GB/s",
        "roofline, doi:10.1145/1498765.1498785",
    ],
]


class Row(NamedTuple):
    """A published training, and what a plan expects: tokens a second and GPU, GiB."""

    published: Published
    low: float
    expected: float
    high: float
    gib: float


def rows() -> Iterator[Row]:
    """Yield each published training with its plan."""
    for each in PUBLISHED:
        hidden, layers, heads = SHAPES[each.model]
        text = f"model_type=gpt2,n_embd={hidden},n_layer={layers},n_head={heads},vocab_size=50368"
        model = trained(
            read_model(f"{text},n_positions={each.tokens}"), each.tokens, PRECISIONS["amp"], OPTIMISERS["adamw"]
        )
        told = Distributed(
            processes=8, machines=each.gpus // 8, shard=each.gpus, checkpoint_activations=each.checkpoints
        )
        layout, here = Layout(told, each.parts, each.rows), of_group(parse_group(f"{each.gpus}xH100"))
        tokens = each.tokens * each.rows * each.parts
        rates = [tokens / time(model, layout, here, at).total for at in (POOR, USUAL, GOOD)]
        yield Row(each, *rates, memory(model, layout, RUNTIME).total / 2**30)


def states(processes: int) -> float:
    """Return GB of weights, gradients and Adam's states of 7.5 B parameters on one of so many processes."""
    bits = PRECISIONS["bf16-master"]
    each = bits.weight + bits.gradient + bits.master + OPTIMISERS["adam"].bytes_of(bits)
    return 7.5 * each / processes


def _table(head: list[str], body: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def page() -> str:
    """Return the page."""
    found = list(rows())
    ratios = sorted(row.expected / row.published.rate for row in found)
    inside = sum(row.low <= row.published.rate <= row.high for row in found)
    times = [
        [row.published.model, f"{row.published.tokens:,}", str(row.published.gpus),
         f"{row.published.parts} x {row.published.rows}", "yes" if row.published.checkpoints else "no",
         f"{row.published.rate:,.0f}", f"{row.expected:,.0f} ({row.low:,.0f} to {row.high:,.0f})",
         f"{row.expected / row.published.rate:.2f}", f"{row.gib:.0f}"]
        for row in found
    ]  # fmt: skip
    head = ["model", "tokens", "H100", "parts x rows", "checkpointing", "published", "expected", "ratio", "GiB"]
    zero = [[str(count), f"{published:g}", f"{states(count):.2f}"] for count, published in STATES.items()]
    most = max(row.gib for row in found)
    return (
        _HEAD
        + _table(["term", "formula", "source"], _FORMULAS)
        + "\n## Speeds beside published ones\n\n"
        + f"Tokens a second and GPU of [MPT]({SOURCE}) in mixed precision, sharded over all GPUs. {inside} of "
        + f"{len(found)} lie in the interval; the expected speed is {ratios[0]:.2f} to {ratios[-1]:.2f} of the "
        + f"published one. All of these trainings fitted 80 GB (74.5 GiB); plans say up to {most:.0f} GiB. Here, the "
        + "loss is not fused.\n\n"
        + _table(head, times)
        + "\n## States beside the ZeRO paper\n\n"
        + "GB for a process, 7.5 B parameters, mixed precision and Adam (Table 1).\n\n"
        + _table(["processes", "published", "computed"], zero)
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
