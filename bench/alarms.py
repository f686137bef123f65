"""Are the alarms believed? False ones at a budget, and faults found: on made rows, on a year of flights, in concept.

rows      Independent rows with one column moved, and four peers on the same columns.
year      A year of flights: false incidents a week at a budget of one, and the share of faults found within two days
          with the right column first. Two lists of faults were tuned on; a third, drawn by a seed, is the result.
          Evidently and NannyML get the third list at the same rate of false alarms.
ranking   Whether the expected effect of an incident orders incidents by what they do to the Brier score.
concept   Generated changes of meaning: what sees them, and what is blind to them.

`python bench/peers.py evidently nannyml alibi-detect whylogs` installs the peers. The year's table is made once and
kept in build/alarms.

python bench/alarms.py [--parts rows,year] [--lists first,second] [--quick] [--faults]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

import alarms_concept
import alarms_peers
import alarms_ranking
import alarms_rows
from alarms_concept import KEPT
from alarms_faults import Fault
from alarms_year import BUDGET, Outcome, Watched, Year, outcome, plans
from report import Case, report

PARTS = ("year", "ranking", "rows", "concept")
LISTS = ("first", "second", "third")
_QUESTIONS = {
    "year": "A year of flights: are alarms few, and are faults found within two days with the right column first?",
    "ranking": "Does an incident's expected effect order incidents by their harm?",
    "rows": "Independent rows, one column of 30 moved: in which share of windows is it flagged?",
    "concept": "The meaning changes and the inputs do not: what sees it?",
}
_console = Console(width=150)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def year_cases(folder: Path, lists: Sequence[str], quick: bool, faults: bool) -> list[Case]:
    year = Year(folder)
    say("year: rows read, model fitted")
    watched = Watched(year)
    say("year: half a year of clean days judged")
    known = plans(year, quick=quick)
    with alarms_peers.running(year, known[lists[-1]], known["first"], quick=quick) as outcomes:
        found = {name: outcome(year, watched, known[name], say) for name in lists}
        say("year: waiting for the peers")
        peers = outcomes()
    missing = alarms_peers.absent()
    if faults:
        _print_faults({**found, **peers})
    last = lists[-1]  # beside which the peers stand
    return [
        case
        for name, ours in found.items()
        for case in _cases(known[name].title, ours, *((peers, missing) if name == last else ({}, {})))
    ]


def _cases(title: str, ours: Outcome, peers: dict[str, Outcome], notes: dict[str, str]) -> list[Case]:
    def case(what: str, unit: str, value: Callable[[Outcome], float], wanted: float, more: bool) -> Case:
        theirs = {peer: value(each) for peer, each in peers.items()}
        return Case(f"{title}: {what}", unit, value(ours), wanted, theirs, notes, more_is_better=more)

    return [
        case(f"false incidents, budget {BUDGET:g}", "a week", lambda each: each.false_a_week, 1.2, False),
        case("gross faults found", "share", lambda each: each.share(gross=True), 0.95, True),
        case("subtle faults found", "share", lambda each: each.share(gross=False), 0.5, True),
        Case(f"{title}: an alarm in two days without a fault", "share", ours.placebo, _base(ours)),
    ]


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
        label = f"{'' if fault.gross else '  subtle: '}{name}"[:58]
        print(label.ljust(58) + "".join(f"{share:>10}" for share in shares))


def show(part: str, cases: Sequence[Case]) -> None:
    """Print for each case what was tried, wanted and got."""
    peers = list(dict.fromkeys(peer for case in cases for peer in case.peers))
    table = Table(title=_QUESTIONS[part], box=box.SIMPLE_HEAD, title_justify="left")
    for heading in ("what was tried", "wanted", "got", "", *peers):
        table.add_column(heading, justify="left" if heading in ("what was tried", "") else "right")
    for case in cases:
        wanted, met = "", ""
        if case.floor is not None and case.ours is not None:
            is_met = case.ours >= case.floor if case.more_is_better else case.ours <= case.floor
            wanted, met = f"{'>=' if case.more_is_better else '<='} {_plain(case.floor)}", "met" if is_met else "missed"
        theirs = (_plain(case.peers.get(peer)) for peer in peers)
        table.add_row(case.case, wanted, f"{_plain(case.ours)} {case.unit}", met, *theirs)
    _console.print(table)
    for note in sorted({f"{who}: {why}" for case in cases for who, why in case.notes.items() if part != "concept"}):
        _console.print(f"  {note}", highlight=False, markup=False)


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer days and windows")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--lists", default=",".join(LISTS), help=f"of the year: some of {','.join(LISTS)}")
    parser.add_argument("--faults", action="store_true", help="print each fault's share too")
    parser.add_argument("--folder", type=Path, default=KEPT, help="where the year's table is kept")
    asked = parser.parse_args()
    parts, concept = asked.parts.split(","), list[Case]()

    def meanwhile() -> None:
        if "concept" in parts:
            concept.extend(alarms_concept.cases(asked.quick, asked.folder))
            say("concept: lives judged")

    made: dict[str, Callable[[], list[Case]]] = {
        "year": lambda: year_cases(asked.folder, asked.lists.split(","), asked.quick, asked.faults),
        "ranking": lambda: alarms_ranking.cases(asked.folder, asked.quick),
        "rows": lambda: alarms_rows.cases(asked.quick, say, meanwhile),
        "concept": lambda: concept or alarms_concept.cases(asked.quick, asked.folder),
    }
    found: list[Case] = []
    for part in parts:
        began = time.perf_counter()
        cases = made[part]()
        if part == "rows":
            alarms_rows.show(cases)
        else:
            show(part, cases)
        say(f"{part}: {time.perf_counter() - began:.0f} s")
        found += cases
    report("alarms", found, table=False)


if __name__ == "__main__":
    main()
