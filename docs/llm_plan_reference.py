"""Writes docs/reference/llm-sizing.md, plans beside published figures: `python docs/llm_plan_reference.py`."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from mainspring.core.accelerators import parse_group, shipped
from mainspring.cost.catalogue.offers import gpu_hour
from mainspring.llm.sizing.layout import Layout, Sized
from mainspring.llm.sizing.models import families, read_model
from mainspring.llm.sizing.plan import NETWORK_GB_S
from mainspring.llm.sizing.precision import PRECISIONS
from mainspring.llm.sizing.roofline import GOOD, POOR, USUAL, served, speed

HERE = Path(__file__).parent
PAGE = HERE / "reference" / "llm-sizing.md"
PUBLISHED: dict[str, Any] = tomllib.loads((HERE / "llm_published.toml").read_text(encoding="utf-8"))
_HEAD = """\
# Sizes and speeds of language models

<!-- Written by docs/llm_plan_reference.py; a test fails where it is not current. -->

Facts that [`mainspring llm plan`](../howto/plan-a-language-model.md) computes with, and its results beside published
figures.
"""
_SPEEDS = """
## Speeds beside published ones

Tokens of answers a second, prompts included, with tensor parallelism over the GPUs. The source published either the
number of sequences at once, or that the load was as high as the engine admits: then as many as fit, at most 2,048
(8,192 for Qwen3-235B). The shares of the datasheets' rates were set in advance, with two figures of the first rows in
view, and are the same for all.

"""


class Row(NamedTuple):
    """One published throughput, and what a plan expects."""

    model: str
    gpus: str
    dtype: str
    prompt: int
    answer: int
    sequences: int
    published: float
    low: float
    expected: float
    high: float
    source: str

    @property
    def ratio(self) -> float:
        return self.expected / self.published

    @property
    def within(self) -> bool:
        return self.low <= self.published <= self.high


def throughputs() -> Iterator[Row]:
    """Yield each published throughput beside its estimate."""
    for table in PUBLISHED["throughput"]:
        model, group = read_model(table["model"]), parse_group(table["gpus"])
        expert = group.count if model.feed_forward.experts else 1
        layout = Layout(group.count, 1, 1, expert)
        sized = Sized(model, PRECISIONS[table["dtype"]], table.get("cache", "fp8"), group, layout)
        for prompt, answer, sequences, published in table["rows"]:
            batch = sequences or min(table["most"], sized.most_sequences(prompt + answer // 2))
            low, expected, high = (served(sized, batch, prompt, answer, at, NETWORK_GB_S) for at in (POOR, USUAL, GOOD))
            yield Row(
                table["model"], table["gpus"], table["dtype"], prompt, answer, batch, published, low, expected, high,
                table["source"],
            )  # fmt: skip


def latencies() -> Iterator[Row]:
    """Yield each published time to the first token beside its estimate, in ms."""
    for table in PUBLISHED["latency"]:
        for name, gpus, prompt, published in table["rows"]:
            group = parse_group(gpus)
            sized = Sized(read_model(name), PRECISIONS[table["dtype"]], "fp8", group, Layout(group.count, 1, 1, 1))
            low, expected, high = (
                1e3 * speed(sized, 1, prompt, prompt, at, NETWORK_GB_S).first for at in (GOOD, USUAL, POOR)
            )
            yield Row(name, gpus, table["dtype"], prompt, 1, 1, published, low, expected, high, table["source"])


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *("--:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _families() -> str:
    rows = []
    for name, fields in families().items():
        model = read_model(name)
        rows.append([
            f"`{name}`", fields["repository"], f"{fields['published']:,}", f"{model.total() / fields['published']:.4f}",
            f"{model.active() / 1e9:.2f}", f"{model.cached(1) * 2:,}",
        ])  # fmt: skip
    head = ["family", "configuration of", "published parameters", "computed / published", "of one token (10^9)",
            "bytes of cache a token"]  # fmt: skip
    papers = [f"- `{name}`: {fields['source']}." for name, fields in families().items() if "arXiv" in fields["source"]]
    return (
        "\n## Families\n\nConfigurations and parameters are those of the repositories at huggingface.co, or of:\n\n"
        + "\n".join(papers) + "\n\n" + _table(head, rows)
    )  # fmt: skip


def _gpus() -> str:
    rows = []
    for name, gpu in shipped().items():
        flops = ", ".join(f"{kind} {value:g}" for kind, value in gpu.tflops.items())
        listed = gpu_hour(name)
        price = "" if listed is None else f"{listed[0]:g} ({listed[1]})"
        rows.append([f"`{name}`", f"{gpu.memory_mib / 1024:.1f}", f"{gpu.bandwidth_gb_s:g}", flops,
                     f"{gpu.link}, {gpu.link_gb_s:g}", price, gpu.source])  # fmt: skip
    head = ["GPU", "GiB", "GB/s", "dense TFLOPS", "link, GB/s in a direction", "$ an hour", "source"]
    return "\n## GPUs\n\n" + _table(head, rows)


def _files() -> str:
    rows = []
    for table in PUBLISHED["files"]:
        model = read_model(table["model"])
        for dtype, size in table["sizes"].items():
            computed = sum(PRECISIONS[dtype].weights(model).values()) / 1e9
            rows.append([table["model"], f"`{dtype}`", f"{size:g}", f"{computed:.2f}", f"{computed / size:.3f}",
                         table["source"]])  # fmt: skip
    head = ["model", "type", "published GB", "computed GB", "ratio", "source"]
    return "\n## Sizes of quantised files\n\n" + _table(head, rows)


def _speeds() -> str:
    found = list(throughputs())
    ratios = sorted(row.ratio for row in found)
    mean = math.exp(sum(math.log(ratio) for ratio in ratios) / len(ratios))
    missed = [row for row in found if not row.within]
    summary = (
        f"{len(found)} figures: the ratio of expected to published is {median(ratios):.2f} in the median, {mean:.2f} "
        f"in the geometric mean, and from {ratios[0]:.2f} to {ratios[-1]:.2f}; {len(found) - len(missed)} lie in the "
        "interval of the plan. "
    )
    misses = "; ".join(
        f"{row.model} on {row.gpus}, {row.prompt}/{row.answer}: {row.published:,.0f} published, {row.low:,.0f} to "
        f"{row.high:,.0f} planned" for row in missed
    )  # fmt: skip
    rows = [
        [row.model, row.gpus, f"`{row.dtype}`", f"{row.prompt}/{row.answer}", f"{row.sequences:,}",
         f"{row.published:,.0f}", f"{row.expected:,.0f} ({row.low:,.0f} to {row.high:,.0f})", f"{row.ratio:.2f}",
         row.source]
        for row in found
    ]  # fmt: skip
    head = ["model", "GPUs", "type", "prompt/answer", "sequences", "published", "expected", "ratio", "source"]
    sources = "\n".join(f"- {name}: {said}" for name, said in PUBLISHED["sources"].items() if name != "lambda")
    return f"{_SPEEDS}{summary}Missed: {misses}.\n\n{sources}\n\n" + _table(head, rows)


def _latencies() -> str:
    found = list(latencies())
    missed = [f"{row.model} on {row.gpus}, {row.prompt} tokens" for row in found if not row.within]
    rows = [
        [row.model, row.gpus, f"`{row.dtype}`", f"{row.prompt:,}", f"{row.published:g}",
         f"{row.expected:.1f} ({row.low:.1f} to {row.high:.1f})", f"{row.ratio:.2f}"]
        for row in found
    ]  # fmt: skip
    head = ["model", "GPUs", "type", "prompt", "published ms", "expected ms", "ratio"]
    return (
        "\n## Times to the first token\n\nOf a prompt that comes alone (trt09). "
        f"{len(found) - len(missed)} of {len(found)} lie in the interval. Missed: {'; '.join(missed) or 'none'}.\n\n"
        + _table(head, rows)
    )


def _fits() -> str:
    rows = [[table["model"], f"`{table['dtype']}`", f"{table['context']:,}", ", ".join(table["yes"]),
             ", ".join(table["no"])] for table in PUBLISHED["fits"]]  # fmt: skip
    return (
        f"\n## What fits\n\nOne sequence of that length, by {PUBLISHED['sources']['lambda']}. Plans say the same; "
        "a test compares them.\n\n" + _table(["model", "type", "context", "fits on", "does not fit on"], rows)
    )


def page() -> str:
    """Return the whole page."""
    return _HEAD + _families() + _files() + _fits() + _speeds() + _latencies() + _gpus()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
