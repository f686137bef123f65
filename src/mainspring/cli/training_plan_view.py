"""A plan of a training, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mainspring.cli.tables import show_records, size_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from mainspring.training.planning.plan import LayoutPlan, TrainingPlan

_WIDTH = 60
_PARTS = (("weights", "cyan"), ("gradients", "blue"), ("optimiser", "magenta"), ("activations", "green"),
          ("communication", "yellow"), ("working", "red"), ("runtime", "dim"))  # fmt: skip


def show_plan(console: Console, found: TrainingPlan) -> None:
    """Print a plan: its layouts as a table, the memory of each as a bar, and the reasons."""

    kind = "measured" if found.measured else "described"
    console.print(
        f"[bold]{found.model}[/] ({kind}): {found.parameters:,} parameters, {found.trained:,} trained, "
        f"{found.precision}, {found.optimiser}"
    )
    console.print(f"{found.devices}, {found.batch:,} rows a step; a row is a {found.row}")
    console.print(f"{found.fitting:,} of {found.considered:,} layouts fit\n")
    columns = ("layout", "parts x rows", "memory", "step", "rows/s")
    show_records(console, columns, [_row(each) for each in found.layouts], right=columns[1:])
    console.print("\nmemory of the fullest device", style="dim")
    for each in found.layouts:
        console.print(_bar(each), soft_wrap=True)
    chosen = found.chosen
    if not chosen.fits:
        console.print(
            f"\nNothing fits. The layout that comes nearest, {chosen.said}, misses {chosen.missing_bytes:,} bytes for "
            "each device.",
            style="bold red",
        )
        for help_ in found.helps:
            console.print(f"It would fit with {help_}.")
    console.print(f"\n[bold]{chosen.said}[/]: " + "; ".join(chosen.why))
    for axis in chosen.axes:
        console.print(f"  {axis.axis} {axis.processes} over {axis.link}: {axis.why}")
    for each in found.layouts[1:]:
        console.print(f"{each.said}: " + "; ".join(each.why), style="dim")
    for line in found.assumptions:
        console.print(line, style="dim")
    if found.switches:
        _show_switches(console, found)
    if not chosen.fits:
        return
    parts = f" and accumulate={chosen.accumulate}" if chosen.accumulate > 1 else ""
    console.print(f"\nTrain with [bold]{chosen.layout}[/]{parts}", highlight=False)


def _show_switches(console: Console, found: TrainingPlan) -> None:
    """Print the measured effects of switches, as parts of the memory and time of the training as it is."""
    own = next((each for each in found.switches if each.own), found.switches[0])
    console.print(f"\nswitches, measured in steps of {own.rows:,} rows in one process on this machine", style="dim")
    rows: list[list[str | Text]] = [
        [each.said() + " (as it is)" * each.own, f"{size_text(each.memory)} ({each.memory / own.memory:.2f})",
         f"{_time(each.step_s)} ({each.step_s / own.step_s:.2f})"]
        for each in found.switches
    ]  # fmt: skip
    columns = ("switches", "memory (of as it is)", "step (of as it is)")
    show_records(console, columns, rows, right=columns[1:])


def _row(each: LayoutPlan) -> list[str | Text]:
    from rich.text import Text

    return [
        Text(each.said, "bold" if each.fits else "red"), f"{each.accumulate} x {each.rows}",
        f"{size_text(each.memory.total)} of {size_text(each.memory.limit)}",
        f"{_time(each.step_s.expected)} ({_time(each.step_s.low)}-{_time(each.step_s.high)})", f"{each.rows_s:,.4g}",
    ]  # fmt: skip


def _bar(each: LayoutPlan) -> Text:
    """Return the memory of a layout as a bar, with the device's limit as `|`."""
    from rich.text import Text

    memory = each.memory
    scale = _WIDTH / max(memory.total, memory.limit, 1)
    bar, said = Text(), []
    for part, colour in _PARTS:
        taken = getattr(memory, part)
        bar.append("█" * round(taken * scale), colour)
        if taken:
            said.append(f"{part} {size_text(taken)}")
    bar.append("·" * max(0, _WIDTH - len(bar)), "dim")
    end = min(_WIDTH, round(memory.limit * scale))
    if memory.host:
        said.append(f"in main memory {size_text(memory.host)}")
    return Text.assemble("  ", bar[:end], "|", bar[end:], f" {each.said}: {', '.join(said)}")


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
