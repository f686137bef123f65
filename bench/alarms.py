"""Are the alarms believed? False ones at a budget, and faults found: on made rows, on a year of flights, in concept.

(a) Independent rows with one column moved (bench/alarms_rows.py). (b, c) The flights' year: false incidents a week at a
budget of one, and the share of faults that are found within two days with the right column first. Everything was tuned
on one list of faults and days; the figures of the other list are the result. (d) Generated concept drift
(bench/alarms_concept.py). (e) Evidently and NannyML on the same year at the same rate of false alarms, on the other
list; `python bench/peers.py evidently nannyml` installs them.

python bench/alarms.py [--quick] [--part year] [--folder FOLDER]   FOLDER keeps the year's table for the next time
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import alarms_peers
from alarms_faults import Fault
from alarms_year import BUDGET, Outcome, Watched, Year, outcome
from report import Case, report

PARTS = {"rows": "alarms_rows", "concept": "alarms_concept"}  # part -> module with `cases(quick)`


def year_cases(folder: Path, quick: bool) -> list[Case]:
    year = Year(folder)
    watched = Watched(year)
    with alarms_peers.running(year, quick=quick) as outcomes:
        tuned, tested = (outcome(year, watched, test=test, quick=quick) for test in (False, True))
        peers = outcomes()
    missing = alarms_peers.absent()
    _print_faults({"tuned": tuned, "tested": tested, **peers})

    def share(gross: bool) -> dict[str, float | None]:
        return {name: peers[name].share(gross=gross) if name in peers else None for name in alarms_peers.NAMES}

    cases = []
    for title, found in (("tuned on", tuned), ("other list and days", tested)):
        others: Callable[[bool], dict[str, float | None]] = share if found is tested else (lambda _: {})
        notes = missing if found is tested else {}
        cases += [
            Case(f"flights, {title}: false incidents at a budget of {BUDGET:g}", "a week", found.false_a_week, 1.2,
                 {name: each.false_a_week for name, each in peers.items()} if found is tested else {}),
            Case(f"flights, {title}: gross faults, right column first", "share", found.share(gross=True), 0.95,
                 others(True), notes, more_is_better=True),
            Case(f"flights, {title}: subtle faults, right column first", "share", found.share(gross=False), 0.5,
                 others(False), notes, more_is_better=True),
            Case(f"flights, {title}: two days with no fault, an alarm", "share", found.placebo, _base(found)),
        ]  # fmt: skip
    return cases


def _base(found: Outcome) -> float:
    """Return the share of pairs of clean days with an alarm, if alarms come by chance."""
    return 1 - (1 - found.false_a_week / 7) ** 2


def _print_faults(found: dict[str, Outcome]) -> None:
    faults: dict[Fault, None] = dict.fromkeys(fault for each in found.values() for fault in each.found)
    print(f"{'fault':58}" + "".join(f"{name:>10}" for name in found))
    for fault in faults:
        column = fault.columns[0] if fault.columns else ""
        name = fault.name if column in fault.name else f"{fault.name} ({column})"
        shares = ("" if fault not in each.found else f"{each.found[fault]:.2f}" for each in found.values())
        print(
            f"{'' if fault.gross else '  subtle: '}{name}"[:58].ljust(58) + "".join(f"{share:>10}" for share in shares)
        )


def cases(parts: Sequence[str], folder: Path, quick: bool) -> list[Case]:
    found: list[Case] = []
    for part in parts:
        began = time.perf_counter()
        if part == "year":
            found += year_cases(folder, quick)
        elif importlib.util.find_spec(PARTS[part]):
            found += importlib.import_module(PARTS[part]).cases(quick)
        print(f"{part}: {time.perf_counter() - began:.0f} s", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer days and windows")
    parser.add_argument("--part", choices=["year", *PARTS], action="append")
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = asked.folder or Path(made)
        report("alarms", cases(asked.part or ["year", *PARTS], folder, asked.quick))


if __name__ == "__main__":
    main()
