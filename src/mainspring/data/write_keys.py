"""Keys and marks of writes, as the numbers that a table's log keeps for each name.

A plain key has the number 1 once it was written. Of numbered keys with one name only the newest number is kept, so a
table's log does not grow with each batch of a stream. A mark, such as the offset after a partition's last message, is
kept as its value plus 1, because 0 stands for none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

NUMBERED = "mainspring/numbered/"
MARK = "mainspring/mark/"
LIMB_BITS = 62  # a number of a Delta transaction is signed and has 64 bits
_LOAD_BITS, _ROW_BITS = 10, 21
LAST_LOAD = (1 << _LOAD_BITS) - 1


def numbered(name: str, number: int) -> str:
    """Return the batch id of batch `number`, at least 1, of a sequence whose batches are written in order."""
    return f"{NUMBERED}{name}#{number}"


def stored_as(key: str) -> tuple[str, int]:
    """Return the name and the number under which a key is stored.

    A numbered key is `<batch id>`, `<batch id>.<load>` or `<batch id>.<load>.<row>`; later ones have larger numbers.
    """
    if not key.startswith(NUMBERED):
        return key, 1
    name, _, tail = key.rpartition("#")
    batch, load, row, *_ = (int(part) for part in (*tail.split("."), "0", "0"))
    return name, (batch << _LOAD_BITS | load) << _ROW_BITS | row


def limbs(name: str, mark: int, stored: Callable[[str], int | None]) -> dict[str, int]:
    """Return stored name -> number of a mark; large marks take several, the lowest bits first.

    Args:
        stored: Returns the number that is stored for a name, None if none is.
    """
    value = mark + 1
    found: dict[str, int] = {}
    while value or stored(limb_name(name, len(found))) is not None:
        found[limb_name(name, len(found))] = value & ((1 << LIMB_BITS) - 1)
        value >>= LIMB_BITS
    return found


def limb_name(name: str, index: int) -> str:
    return f"{MARK}{name}/{index}"


def marks_of(names: Iterable[str], stored: Callable[[str], int | None]) -> dict[str, int]:
    """Return the marks of those names that have one."""
    found = {}
    for name in names:
        value = index = 0
        while (limb := stored(limb_name(name, index))) is not None:
            value |= limb << (LIMB_BITS * index)
            index += 1
        if value:
            found[name] = value - 1
    return found
