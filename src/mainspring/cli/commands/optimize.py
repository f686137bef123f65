"""`mainspring optimize`: variants of a version, measured; the chosen one becomes a version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.operations.optimise.model import OptimiseReport, VariantReport


@make("optimize", charges=True)
@click.argument("version", metavar="MODEL[:VERSION]")
@click.option(
    "--for", "target", type=click.Choice(("cpu", "cuda", "edge")), default="cpu", show_default=True,
    help="The fastest for one row (cpu) or a batch on a GPU (cuda), or the smallest (edge).",
)  # fmt: skip
@click.option("--only", multiple=True, metavar="VARIANT", help="Make this variant; repeatable. By default all.")
@click.option("--retrain", is_flag=True, help="Also prune the network, and train it further by its training function.")
@click.option("--epochs", type=int, metavar="N", help="Epochs of that; by default half of the function's own.")
@click.option(
    "--rows",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Rows of a model of tensors (JSON), or texts of an encoder, one a line.",
)
@click.option("--within", default=0.01, show_default=True, help="Largest loss of the metric, a share of the parent's.")
@click.option("--choose", "chosen", metavar="VARIANT", help="Register this variant, whatever it loses.")
@click.option("--dry-run", is_flag=True, help="Measure only; record no run and register no version.")
@click.option("--no-memory", is_flag=True, help="Do not measure the memory, which takes seconds for each variant.")
@click.option(
    "--device-memory", default=256, show_default=True, metavar="MIB", help="Memory of a device of --for edge."
)
def command(
    call: Call,
    *,
    version: str,
    target: str,
    only: tuple[str, ...],
    retrain: bool,
    epochs: int | None,
    rows: Path | None,
    within: float,
    chosen: str | None,
    dry_run: bool,
    no_memory: bool,
    device_memory: int,
) -> None:
    """Make variants of a version (INT8, INT4, FP16, fewer trees or neurons), measure them here, and register the best
    within its gates as a version."""
    from mainspring.operations.optimise.optimising import optimise
    from mainspring.operations.optimise.subject import Wish

    wish = Wish(
        target, only, retrain=retrain, epochs=epochs, memory=not no_memory, device_memory=device_memory << 20, rows=rows
    )
    with call.progress() as progress:
        report = optimise(
            call.project,
            version,
            wish,
            within=within,
            chosen=chosen,
            dry_run=dry_run,
            progress=lambda stage, share: progress.update(version, round(share * 100), 100, stage),
        )
        progress.finish(version, report.chosen or "no variant chosen")
    call.result(report, lambda console: _show(console, report))


def _show(console: Console, report: OptimiseReport) -> None:
    from mainspring.cli.tables import show_records

    _line(console, f"{report.model}:{report.version} for {report.target}, on {report.machine}")
    _line(console, f"Judged on {report.judged_on}. Energy: {report.energy}.")
    columns = ("variant", report.metric, "worse by", "p50", "p99", "batch", "rows/s", "size", "memory", "load", "note")
    rows = [_row(each) for each in report.variants if each.cost is not None]
    filled = [at for at, name in enumerate(columns) if any(row[at] for row in rows)]  # `memory` may not be measured
    shown, cells = [columns[at] for at in filled], [[row[at] for at in filled] for row in rows]
    show_records(console, shown, cells, right=columns[1:-1], folded=("note",))
    for each in report.variants:
        if each.cost is None:
            _line(console, f"No {each.name}: {each.why_not}")
        elif each.kept:
            _line(console, f"{each.name}: {each.kept}.")
    chosen = f"{report.chosen} is chosen" if report.chosen else f"{report.model}:{report.version} stays"
    _line(console, f"{chosen}. {report.why}")
    if report.registered:
        reference = f"{report.model}:{report.registered}"
        _line(console, f"It is registered as {reference}. Next: mainspring promote {report.model} {report.registered}")


def _row(each: VariantReport) -> tuple[str, ...]:
    quality, cost = each.quality, each.cost
    if quality is None or cost is None:
        return (each.name, *[""] * 10)
    loss, *most = quality.losses
    worse = "" if each.name == "parent" else f"{loss} (at most {most[0]})" if most else loss
    memory = "" if cost.memory_bytes is None else f"{cost.memory_bytes / 1e6:.1f} MB"
    return (
        each.name,
        f"{quality.value:.4f}",
        worse,
        _time(cost.p50_us),
        _time(cost.p99_us),
        _time(cost.batch_p50_us),
        f"{cost.rows_a_second:,.0f}",
        f"{cost.bytes / 1e3:,.1f} kB",
        memory,
        f"{cost.load_ms:.1f} ms",
        _note(each),
    )


def _time(microseconds: float) -> str:
    """Return a duration of three places."""
    return f"{microseconds:.3g} µs" if microseconds < 999.5 else f"{microseconds / 1000:.3g} ms"


def _note(each: VariantReport) -> str:
    if each.why_not:
        return f"refused: {each.why_not}"
    words = ["chosen"] if each.chosen else ["on the front"] if each.front else []
    cosine = [] if each.cosine is None else [f"cosine {each.cosine:.4f}"]
    spent = None if each.cost is None else each.cost.energy_uj_a_row
    energy = [] if spent is None else [f"{spent:.3g} µJ/row"]
    return "; ".join([*words, *cosine, *energy, *(f"gate: {gate}" for gate in each.gates_failed[:1])])


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=not console.is_terminal)
