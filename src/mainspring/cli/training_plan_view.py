"""A plan of a training, for people."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from mainspring.cli.tables import show_records, size_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from mainspring.training.planning.plan import LayoutPlan, TrainingPlan

_WIDTH = 60  # of a bar
_JOINT = "\N{NO-BREAK SPACE}"  # between a number and its unit, until lines are broken
_LINE = 80  # the longest line of text, in a file too
_PARTS = (("weights", "cyan"), ("gradients", "blue"), ("optimiser", "magenta"), ("activations", "green"),
          ("communication", "yellow"), ("working", "red"), ("runtime", "dim"))  # fmt: skip


def show_plan(console: Console, found: TrainingPlan) -> None:
    """Print a plan: its layouts as a table, the memory of each as a bar, and the reasons."""
    kind = "measured" if found.measured else "described"
    trained = "all" if found.trained == found.parameters else f"{found.trained:,}"
    title = f"{found.model} ({kind})"
    _say(console, f"{title}: {found.parameters:,} parameters, {trained} trained, {found.precision}, {found.optimiser}",
         bold=found.model)  # fmt: skip
    row = "" if found.row == "row" else f"; a row is a {found.row}"
    _say(console, f"{found.devices}, {found.batch:,} rows a step{row}")
    _say(console, f"{found.fitting:,} of {found.considered:,} layouts fit")
    console.print()
    columns = ("layout", "parts x rows", "memory", "step", "rows/s")
    show_records(console, columns, [_row(each) for each in found.layouts], right=columns[1:], folded=columns[:1])
    console.print("\nmemory of the fullest device", style="dim")
    for each in found.layouts:
        _show_memory(console, each)
    chosen = found.chosen
    if not chosen.fits:
        console.print()
        nearest = (
            f"The layout that comes nearest, {chosen.said}, misses {chosen.missing_bytes:,} bytes for each device."
        )
        _say(console, f"Nothing fits. {nearest}", "bold red")
        for help_ in found.helps:
            _say(console, f"It would fit with {help_}.")
    console.print()
    _say(console, f"{chosen.said}: {'; '.join(chosen.why)}", bold=chosen.said)
    for axis in chosen.axes:
        _say(console, f"  {axis.axis} {axis.processes} over {axis.link}: {axis.why}")
    for each in found.layouts[1:]:
        _say(console, f"{each.said}: {'; '.join(each.why)}", "dim")
    for line in found.assumptions:
        _say(console, line, "dim")
    if found.switches:
        _show_switches(console, found)
    if not chosen.fits:
        return
    parts = f" and accumulate={chosen.accumulate}" if chosen.accumulate > 1 else ""
    console.print(f"\nTrain with [bold]{chosen.layout}[/]{parts}", highlight=False, soft_wrap=True)


def _say(console: Console, said: str, style: str = "", *, bold: str = "") -> None:
    """Print a sentence in lines of at most `_LINE` characters; `bold` is its beginning."""
    from rich.text import Text

    own = " " * (len(said) - len(said.lstrip()))
    lines = textwrap.wrap(
        said.strip(), min(console.width, _LINE), initial_indent=own, subsequent_indent=f"{own}  ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    text = Text("\n".join(lines).replace(_JOINT, " "), style)
    if bold:
        text.stylize("bold", 0, len(bold))
    console.print(text, soft_wrap=True)


def _show_switches(console: Console, found: TrainingPlan) -> None:
    """Print the measured effects of switches, as parts of the memory and time of the training as it is."""
    own = next((each for each in found.switches if each.own), found.switches[0])
    console.print(f"\nswitches, measured in steps of {own.rows:,} rows in one process on this machine", style="dim")
    rows: list[list[str | Text]] = [
        [each.said() + " (as it is)" * each.own, f"{size_text(each.memory)} ({each.memory / own.memory:.2f})",
         f"{_time(each.step_s)} ({each.step_s / own.step_s:.2f})"]
        for each in found.switches
    ]  # fmt: skip
    columns = ("switches", "memory (part)", "step (part)")
    show_records(console, columns, rows, right=columns[1:], folded=columns[:1])


def _row(each: LayoutPlan) -> list[str | Text]:
    from rich.text import Text

    step = each.step_s
    unit, scale = ("s", 1.0) if step.expected >= 1 else ("ms", 1000.0)
    taken, limit = each.memory.total, each.memory.limit
    bytes_, power = ("GB", 1e9) if limit >= 1e9 else ("MB", 1e6)
    return [
        Text(each.said, "bold" if each.fits else "red"), f"{each.accumulate} x {each.rows}",
        f"{taken / power:.1f} of {limit / power:.1f} {bytes_}",
        f"{_short(step.expected * scale, 3)} {unit} ({_short(step.low * scale, 2)}-{_short(step.high * scale, 2)})",
        _short(each.rows_s, 4),
    ]  # fmt: skip


def _show_memory(console: Console, each: LayoutPlan) -> None:
    """Print the memory of a layout as a bar, with the device's limit as `|`, and its parts."""
    from rich.text import Text

    memory = each.memory
    scale = _WIDTH / max(memory.total, memory.limit, 1)
    bar, said = Text(), []
    for part, colour in _PARTS:
        taken = getattr(memory, part)
        bar.append("█" * round(taken * scale), colour)
        if taken:
            said.append(f"{part} {_joined(taken)}")
    bar.append("·" * max(0, _WIDTH - len(bar)), "dim")
    end = min(_WIDTH, round(memory.limit * scale))
    if memory.host:
        said.append(f"in main memory {_joined(memory.host)}")
    console.print(Text.assemble("  ", bar[:end], "|", bar[end:]), soft_wrap=True)
    _say(console, f"  {each.said}: {', '.join(said)}")


def _joined(count: int) -> str:
    return size_text(count).replace(" ", _JOINT)


def _time(seconds: float) -> str:
    return f"{_short(seconds, 3)} s" if seconds >= 1 else f"{_short(seconds * 1000, 3)} ms"


def _short(value: float, digits: int) -> str:
    """Return a number with so many digits that count, without an exponent."""
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.0f}" if rounded >= 10 ** (digits - 1) else f"{value:.{digits}g}"
