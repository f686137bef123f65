"""Lists of records: a table where the terminal is wide enough for it, else a block of lines for each record."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_GAP = 2  # between columns
_FOLDED = 24  # the least width of a column that may continue in the next line
_NANOS = 9  # decimals, at most: amounts of money have no more


def show_records(
    console: Console,
    columns: Sequence[str],
    rows: Sequence[Sequence[str | Text]],
    *,
    right: Collection[str] = (),
    folded: Collection[str] = (),
) -> None:
    """Print records so that nothing of them is cut off.

    Args:
        columns: The first names a record where it is a block.
        rows: A text may have a style of its own, as `rich.text.Text`.
        right: Columns of numbers.
        folded: Columns of long texts, which may continue in the next line.
    """
    from rich.table import Table
    from rich.text import Text

    texts = [[Text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    widths = [
        max(line.cell_len for cell in (Text(name), *cells) for line in cell.split(allow_blank=True))
        for name, *cells in zip(columns, *texts, strict=True)
    ]
    least = [min(width, _FOLDED) if name in folded else width for name, width in zip(columns, widths, strict=True)]
    if sum(least) + _GAP * (len(columns) - 1) > console.width:
        _show_blocks(console, columns, texts)
        return
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, _GAP, 0, 0))
    for name in columns:
        table.add_column(
            name, justify="right" if name in right else "left", no_wrap=name not in folded, overflow="fold"
        )
    for row in texts:
        table.add_row(*row)
    console.print(table)


def _show_blocks(console: Console, columns: Sequence[str], rows: Sequence[Sequence[Text]]) -> None:
    from rich.table import Table
    from rich.text import Text

    first, *names = columns
    for number, (title, *cells) in enumerate(rows):
        if number:
            console.print()
        console.print(Text.assemble(f"{first} ", (title.plain, "bold")), soft_wrap=True)
        block = Table(box=None, show_header=False, pad_edge=False, padding=(0, _GAP, 0, 0))
        block.add_column(style="dim", no_wrap=True)
        block.add_column(overflow="fold")
        for name, cell in zip(names, cells, strict=True):
            if cell:
                block.add_row(f"  {name}", cell)
        console.print(block)


def figure(value: float, digits: int = 4) -> str:
    """Return a number with its whole integer part, and as many decimals as `digits` significant digits take.

    There is no exponent, so that the numbers of a column line up: `12,346`, `0.7412`, `0.00001359`.
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = min(max(0, digits - 1 - math.floor(math.log10(abs(value)))), _NANOS)
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if decimals else text


def in_column(values: Sequence[float | None]) -> list[str]:
    """Return the numbers of a column with equally many decimals, 2 or more if all are small: sizes can be compared.

    `None` is an empty cell.
    """
    largest = max((abs(each) for each in values if each), default=0.0)
    decimals = min(max(2, 4 - math.floor(math.log10(largest))), _NANOS) if largest else 2
    return ["" if each is None else f"{each:,.{decimals}f}" for each in values]


def size_text(count: float) -> str:
    """Return bytes with a unit."""
    for unit, power in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(count) >= power:
            return f"{count / power:.1f} {unit}"
    return f"{count:.0f} B"
