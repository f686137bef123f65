"""`mainspring llm`: language models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group
from mainspring.cli.tables import show_records, size_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from mainspring.llm.sizing import Interval, Plan, Variant

_WIDTH = 40
_PARTS = (("weights", "cyan"), ("cache", "green"), ("activations", "yellow"), ("runtime", "magenta"))


@click.group("llm", cls=Group)
def command() -> None:
    """Language models: what they need and used, and their calls of tools that wait for a person."""


@make("plan")
@click.argument("language_model", metavar="MODEL")
@click.option("--gpus", required=True, help="GPUs: 8xH100, 2x8xH100 for two nodes, 4x./gpu.toml for another kind.")
@click.option("--context", type=click.IntRange(1), help="Tokens of a sequence; by default 8192 or what it can.")
@click.option("--concurrency", type=click.IntRange(1), default=64, show_default=True, help="Sequences at once.")
@click.option("--prompt", type=click.IntRange(1), help="Tokens of a prompt; by default three quarters of the context.")
@click.option(
    "--dtype", "dtypes", multiple=True, help="Type of weights: bf16, fp8, int8, awq, gguf-q4_k_m; repeatable."
)
@click.option("--cache", default="bf16", show_default=True, help="Type of the cache: bf16 or fp8.")
@click.option("--gpu-hour", type=float, help="Dollars an hour for one GPU; by default a dated list price.")
@click.option("--network", type=float, default=50.0, show_default=True, help="GB/s between nodes, for each GPU.")
def plan(
    call: Call,
    *,
    language_model: str,
    gpus: str,
    context: int | None,
    concurrency: int,
    prompt: int | None,
    dtypes: tuple[str, ...],
    cache: str,
    gpu_hour: float | None,
    network: float,
) -> None:
    """Plan GPUs, speed and cost of serving MODEL: a folder with config.json, a known family, or its fields.

    Reads no weights and runs nothing. Speeds are estimates from the GPUs' datasheets, with an interval.
    """
    from mainspring.llm.sizing import Wanted, parse_group, read_model
    from mainspring.llm.sizing import plan as plan_model

    architecture = read_model(language_model)
    found = plan_model(
        architecture,
        parse_group(gpus),
        Wanted(
            context=context or min(8192, architecture.longest or 8192),
            concurrency=concurrency,
            prompt=prompt,
            dtypes=dtypes,
            cache=cache,
            price=gpu_hour,
            network_gb_s=network,
        ),
    )
    call.result(found, lambda console: _show(console, found))


@make("usage", reads_only=True)
@click.option("--by", type=click.Choice(["key", "team", "model", "upstream"]), default="key", show_default=True)
@click.option("--since", default="30d", show_default=True, help="Age of the first day that counts.")
def usage(call: Call, *, by: str, since: str) -> None:
    """Show tokens, cost and speed of language models, the dearest first."""
    from mainspring.core.time import DAY, parse_duration
    from mainspring.operations.llm_usage import usage as used

    first = call.project.wall.now() - parse_duration(since)
    found = used(call.project, by, first - first % DAY)

    def show(console: Console) -> None:
        if not found:
            console.print("No language model was asked.")
            return
        rows = [
            (each.who or "-", f"{each.requests:,}", f"{each.cached:,}", f"{each.prompt:,}", f"{each.completion:,}",
             f"{each.cost:,.6g}", "-" if each.first_token_s is None else f"{each.first_token_s:.3g} s",
             "-" if each.tokens_per_s is None else f"{each.tokens_per_s:,.1f}")
            for each in found
        ]  # fmt: skip
        columns = (by, "requests", "cached", "prompt", "completion", "cost", "first token", "tokens/s")
        show_records(console, columns, rows, right=columns[1:])

    call.result(found, show)


@make("approvals", reads_only=True)
@click.option("--all", "all_", is_flag=True, help="Also calls that were decided, of the last 30 days.")
def approvals(call: Call, *, all_: bool) -> None:
    """List calls of tools that wait for a person, the oldest first."""
    from mainspring.operations.held_calls import described, held_calls

    found = held_calls(call.project, all_=all_)

    def show(console: Console) -> None:
        if not found:
            console.print("No call waits.")
        for each in map(described, found):
            columns = ("id", "model", "tool", "caller", "status", "asked")
            row = (each["id"], each["model"], each["tool"], each["caller"], each["status"], each["asked_at"])
            show_records(console, columns, [row])
            console.print(f"  {each['arguments']}", markup=False, highlight=False)

    call.result([described(each) for each in found], show)


@make("approve")
@click.argument("held", metavar="CALL")
def approve(call: Call, *, held: str) -> None:
    """Approve CALL: who asked for it may make it once, within a day."""
    _decide(call, held, approve=True)


@make("deny")
@click.argument("held", metavar="CALL")
@click.option("--reason", default="", help="Kept in the audit log.")
def deny(call: Call, *, held: str, reason: str) -> None:
    """Deny CALL."""
    _decide(call, held, approve=False, reason=reason)


def _decide(call: Call, held: str, *, approve: bool, reason: str = "") -> None:
    from mainspring.operations.held_calls import decide, described

    found = decide(call.project, held, approve=approve, reason=reason)
    told = f"{held} ({found.tool} of {found.model}) is {found.status} by {found.decided_by}."
    call.result(described(found), lambda console: console.print(told, markup=False))


def _show(console: Console, found: Plan) -> None:

    console.print(
        f"[bold]{found.model}[/]: {_count(found.total)} parameters, {_count(found.active)} for a token, "
        f"{size_text(found.cache_bytes_per_token)} of cache a token"
    )
    console.print(
        f"{found.gpus}, {found.concurrency:,} sequences of {found.context:,} tokens "
        f"({found.prompt:,} of prompt, {found.answer:,} of answer)\n"
    )
    most = max(found.parameters.values())
    for kind, count in found.parameters.items():
        bar = "█" * max(1, round(_WIDTH * count / most))
        console.print(f"{kind:<13}[cyan]{bar:<{_WIDTH}}[/] {_count(count):>9} {count / found.total:>6.1%}")
    console.print()
    columns = ("dtype", "weights", "GPUs", "sequences", "longest", "prompts/s", "answers/s", "first token",
               "next token", "$/M prompt", "$/M answer")  # fmt: skip
    show_records(console, columns, [_row(each) for each in found.variants], right=columns[1:])
    console.print("\nmemory of the fullest GPU", style="dim")
    for each in found.variants:
        console.print(_bar(each))
    for each in found.variants:
        for note in each.notes:
            console.print(f"{each.dtype}: {note}", style="dim")
    first = next((each for each in found.variants if each.fits), None)
    if first is None:
        first = max(found.variants, key=lambda each: each.most_sequences)
        console.print(
            f"\nNothing fits. {first.dtype} comes nearest: {size_text(first.missing_bytes)} a GPU are missing; "
            f"{first.most_sequences:,} sequences of {found.context:,} tokens would fit.",
            style="bold red",
        )
    console.print(f"\n[bold]{first.dtype}[/]: " + "; ".join(first.placement.reasons))
    for line in found.assumptions:
        console.print(line, style="dim")
    if found.price is not None:
        console.print(f"Price: ${found.price:g} an hour a GPU; {found.priced or 'as given'}.", style="dim")
    else:
        console.print("No price of this GPU is known: give --gpu-hour.", style="dim")


def _row(each: Variant) -> list[str | Text]:
    from rich.text import Text

    placed = each.placement
    axes = [("TP", placed.tensor), ("PP", placed.pipeline), ("EP", placed.expert), ("DP", placed.replicas)]
    layout = " ".join(f"{name}{size}" for name, size in axes if size > 1) or "1"
    cost = each.dollars_per_million
    return [
        Text(each.dtype, "bold" if each.fits else "red"), size_text(each.weights_bytes), layout,
        f"{each.most_sequences:,}", f"{each.longest_context:,}",
        _rate(each.prefill), _rate(each.decode), _time(each.first_token_ms), _time(each.next_token_ms),
        _dollars(cost.prompt if cost else None), _dollars(cost.answer if cost else None),
    ]  # fmt: skip


def _bar(each: Variant) -> Text:
    """Return the memory of a variant as a bar: what each part takes, or by how much it is too large."""
    from rich.text import Text

    memory = each.memory
    scale = _WIDTH / max(memory.total, memory.total - memory.free)
    bar, said = Text(), []
    for part, colour in _PARTS:
        size = getattr(memory, part)
        bar.append("█" * round(size * scale), colour)
        said.append(f"{part} {size_text(size)}")
    bar.append("·" * max(0, _WIDTH - len(bar)), "dim")
    end = min(_WIDTH, round(memory.total * scale))
    line = Text.assemble(f"  {each.dtype:<12} ", bar[:end], "|", bar[end:], f" {', '.join(said)}")
    if each.fits:
        return line.append(f", free {size_text(memory.free)}")
    return line.append(f"; {size_text(each.missing_bytes)} more than the {size_text(memory.total)} of a GPU", "red")


def _rate(value: Interval | None) -> str:
    return "-" if value is None else f"{value.expected:,.0f} ({value.low:,.0f}-{value.high:,.0f})"


def _time(value: Interval | None) -> str:
    return "-" if value is None else f"{value.expected:,.0f} ms" if value.expected >= 10 else f"{value.expected:.1f} ms"


def _dollars(value: Interval | None) -> str:
    return "-" if value is None else f"{value.expected:.3g} ({value.low:.2g}-{value.high:.2g})"


def _count(count: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= size:
            return f"{count / size:.4g}{unit}"
    return str(count)


for _command in (plan, usage, approvals, approve, deny):
    command.add_command(_command)
