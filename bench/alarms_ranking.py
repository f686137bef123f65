"""Does the expected effect order incidents by their harm? Rank correlation with the real change of the Brier score.

Each fault of the flights' lists that changes columns is put into some days. Its real harm is the change of the Brier
score on the day's labels. Its expected effect is what operations/ranking.py stores with an incident: the mean movement
of the score when the affected columns are mapped back to the training's distribution by quantiles, on 512 rows. Beside
it stands the movement from the rows as they would have been, which nobody knows in life.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from alarms_faults import PLACEBO, TEST, TUNE, Fault, Rows
from alarms_year import OUTPUTS, Year
from flights_year import AT
from mainspring.monitoring.incidents.restoring import restored
from mainspring.operations.ranking import ROWS
from report import Case, report

DAYS = (20, 70, 125)  # of live traffic
WANTED = 0.85  # rank correlation of the prototype, with the movement from the true rows

Floats = npt.NDArray[np.float64]


def measured(year: Year, faults: Sequence[Fault]) -> Mapping[Fault, Floats]:
    """Return for each fault, over the days: change of Brier, effect by replay, movement from true rows."""
    random = np.random.default_rng(5)
    found: dict[Fault, list[tuple[float, float, float]]] = {fault: [] for fault in faults}
    for day in (year.live + each for each in DAYS):
        rows, labels = year.rows(day), year.labels(day)
        true = year.scores(rows)
        chosen = np.sort(random.choice(len(labels), min(ROWS, len(labels)), replace=False))
        for seed, fault in enumerate(faults):
            faulty = year.faulty(fault, day, seed)
            scores = faulty["score"]
            if len(scores) != len(labels):
                continue
            harm = float(np.mean((scores - labels) ** 2) - np.mean((true - labels) ** 2))
            replayed = year.scores(_mapped_back(year, fault, faulty, chosen))
            by_replay = float(np.mean(np.abs(scores[chosen] - replayed)))
            found[fault].append((harm, by_replay, float(np.mean(np.abs(scores - true)))))
    return {fault: np.mean(each, axis=0) for fault, each in found.items() if each}


def _mapped_back(year: Year, fault: Fault, faulty: Rows, chosen: npt.NDArray[np.intp]) -> Rows:
    rows = {name: values[chosen] for name, values in faulty.items() if name != AT and name not in OUTPUTS}
    for name in fault.columns:
        values = restored(rows[name].tolist(), year.reference.columns[name])
        rows[name] = np.array(values, rows[name].dtype if rows[name].dtype == object else float)
    return rows


def rank_correlation(one: Floats, other: Floats) -> float:
    """Return Spearman's correlation."""
    ranks = [np.argsort(np.argsort(each)) for each in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


def cases(folder: Path, quick: bool) -> list[Case]:
    year = Year(folder)
    faults = [each for each in (*TUNE, *TEST) if each is not PLACEBO and "" not in each.columns]
    found = measured(year, faults[::4] if quick else faults)
    numbers = np.array(list(found.values()))
    harm, replay, movement = numbers.T
    kept = {fault for fault in found if "shuffled" not in fault.name and "yesterday" not in fault.name}
    marginal = np.array([each for fault, each in found.items() if fault in kept])
    worst = np.argsort(-np.abs(harm))[: len(harm) // 4]
    first = np.argsort(-replay)[: len(harm) // 4]
    notes = {"ours": f"{len(harm)} faults, means of {len(DAYS)} days"}

    def case(name: str, unit: str, value: float, wanted: float | None = None) -> Case:
        return Case(name, unit, value, wanted, notes=notes, more_is_better=True)

    size = np.abs(harm)
    return [
        case("expected effect, and size of the change of Brier", "Spearman", rank_correlation(replay, size), WANTED),
        case("the same, of faults that move distributions", "Spearman",
             rank_correlation(marginal[:, 1], np.abs(marginal[:, 0])), WANTED),
        case("the same, of all, and Brier that became larger", "Spearman", rank_correlation(replay, harm)),
        case("movement from the true rows, unknown in life", "Spearman", rank_correlation(movement, size)),
        case("worst quarter that is in the first quarter", "share", len({*worst} & {*first}) / len(worst)),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    report("alarms, ranking", cases(asked.folder, asked.quick))


if __name__ == "__main__":
    main()
