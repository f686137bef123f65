"""Concept drift: estimates before labels are blind to it, and the channel of harm is not.

The concepts are those of river's generators SEA, STAGGER, Agrawal, Hyperplane and Friedman, written again here in a
few lines; `python bench/alarms_concept.py --check` compares the first three with river where it is installed. A model
learns the first concept; after thirty days of traffic the labels follow another one. Also: how often the 90% interval
of estimated quality holds the realised one on the flights' half year that the model has not seen.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from report import Case, report

KEPT = Path(__file__).parents[1] / "build" / "alarms"

DAYS, CHANGED, A_DAY, TRAINED = 60, 30, 480, 8_000
DAY_US, HOUR_US = 86_400_000_000, 3_600_000_000
NOISE = 0.1  # share of labels that are wrong

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Stream:
    """A generator: inputs of some rows, and the label or number of each by concept 0 or 1."""

    task: str
    inputs: Callable[[np.random.Generator, int], Floats]
    concept: Callable[[Floats, int], Floats]


def _agrawal(rng: np.random.Generator, rows: int) -> Floats:
    salary = rng.uniform(20_000, 150_000, rows)
    commission = np.where(salary >= 75_000, 0.0, rng.uniform(10_000, 75_000, rows))
    age, loan = rng.integers(20, 81, rows), rng.uniform(0, 500_000, rows)
    return np.column_stack([salary, commission, age, rng.integers(0, 5, rows), loan])


def _by_age(x: Floats, concept: int) -> Floats:
    age, education = x[:, 2], x[:, 3]
    if concept == 0:
        return (age < 40) | (age >= 60)
    group = np.where(age < 40, 0, np.where(age < 60, 1, 2))
    of_group = ((education <= 1), (education >= 1) & (education <= 3), education >= 2)
    return np.choose(group, of_group)


def _stagger(x: Floats, concept: int) -> Floats:
    size, colour, shape = x.T  # small 0; red 0, green 2; circle 0
    return (size == 0) & (colour == 0) if concept == 0 else (colour == 2) | (shape == 0)


def _friedman(x: Floats, concept: int) -> Floats:
    a, b, c, d, e = (x[:, place] for place in ((0, 1, 2, 3, 4) if concept == 0 else (3, 4, 0, 1, 2)))
    return 10 * np.sin(np.pi * a * b) + 20 * (c - 0.5) ** 2 + 10 * d + 5 * e


def _plane(x: Floats, concept: int) -> Floats:
    weights = np.linspace(0.1, 1, 10) if concept == 0 else np.linspace(1, 0.1, 10)
    return x @ weights >= weights.sum() / 2


STREAMS = {
    "SEA": Stream("binary", lambda rng, n: rng.uniform(0, 10, (n, 3)), lambda x, c: x[:, 0] + x[:, 1] > (8.0, 9.5)[c]),
    "STAGGER": Stream("binary", lambda rng, n: rng.integers(0, 3, (n, 3)).astype(float), _stagger),
    "Agrawal": Stream("binary", _agrawal, _by_age),
    "Hyperplane": Stream("binary", lambda rng, n: rng.random((n, 10)), _plane),
    "Friedman": Stream("regression", lambda rng, n: rng.random((n, 10)), _friedman),
}


def _labels(stream: Stream, rng: np.random.Generator, x: Floats, concept: int) -> Floats:
    found = np.asarray(stream.concept(x, concept), np.float64)
    if stream.task == "regression":
        return found + rng.normal(0, 1, len(x))
    return np.where(rng.random(len(x)) < NOISE, 1 - found, found)


def _life(stream: Stream, seed: int, changes: bool) -> dict[str, Any]:
    """Return what is known of one version's life: the day of each alarm, and estimates against realised quality."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    from mainspring.monitoring.channels.concept import drifts
    from mainspring.monitoring.channels.harm import harms
    from mainspring.monitoring.quality.table import Key
    from mainspring.stats.estimates import estimates, realised
    from mainspring.stats.quality_sums import Rows, Sums, scores_summed, summed

    rng, numbers = np.random.default_rng(seed), stream.task == "regression"
    x = stream.inputs(rng, 2 * TRAINED)
    y = _labels(stream, rng, x, 0)
    kind = HistGradientBoostingRegressor if numbers else HistGradientBoostingClassifier
    model = kind(max_iter=60, random_state=0).fit(x[:TRAINED], y[:TRAINED])

    def scored(inputs: Floats) -> Floats:
        return model.predict(inputs) if numbers else model.predict_proba(inputs)[:, 1]

    held = scored(x[TRAINED:])
    edges = np.quantile(held, np.arange(1, 64) / 64) if numbers else None
    cap = 10 * float(np.abs(held - y[TRAINED:]).mean()) if numbers else 9.2
    figures = summed(stream.task, Rows(held, y[TRAINED:], cap=cap))
    base = {"mae": figures["absolute"] / TRAINED} if numbers else {"brier": figures["squared"] / TRAINED}
    sums: dict[Key, Sums] = {}
    days = []
    for day in range(DAYS):
        inputs = stream.inputs(rng, A_DAY)
        score = scored(inputs)
        label = _labels(stream, rng, inputs, int(changes and day >= CHANGED))
        whole = np.zeros((64, 6))
        for hour, rows in enumerate(np.array_split(np.arange(A_DAY), 24)):
            at = day * DAY_US + hour * HOUR_US
            every, part = Sums.nothing(), summed(stream.task, Rows(score[rows], label[rows], cap=cap, edges=edges))
            every.totals[0] = len(rows)
            every.bins[:] = scores_summed(score[rows]) if edges is None else scores_summed(score[rows], edges)
            sums[Key("1", "d", at, "", "", 0, stream.task)] = every
            sums[Key("1", "d", at, "", "", 10_800, stream.task)] = part
            whole += every.bins + part.bins
        days.append(whole)
    harm = None
    for day in range(2, DAYS + 1):  # a person looks at the end of each day
        now = day * DAY_US + HOUR_US
        seen = {key: each for key, each in sums.items() if key.hour + 3 * HOUR_US <= now}
        if any(each.severity >= 1 for each in harms(seen, now, DAY_US, lambda _: base, {})):
            harm = day
            break
    name = "mae" if numbers else "brier"
    truth = [realised(stream.task, each)[name] for each in days]
    made = estimates(stream.task, np.array(days), DAYS, 2)
    after = range(CHANGED, CHANGED + 2) if changes else range(CHANGED, DAYS)
    held_truth = [made[day][name].low <= truth[day] <= made[day][name].high for day in after]
    hints = [each.hour // DAY_US for each in drifts(sums, (DAYS + 2) * DAY_US, DAY_US)]
    return {
        "harm": harm,
        "hint": min((day + 1 for day in hints if day >= CHANGED), default=None),
        "false_hint": any(day < CHANGED or not changes for day in hints),
        "held": float(np.mean(held_truth)),
        "rise": float(np.mean(truth[CHANGED:]) - np.mean(truth[:CHANGED])),
    }


def cases(quick: bool, folder: Path = KEPT) -> list[Case]:
    """Return the cases of concept drift, and of the interval of estimated quality on the flights."""
    seeds, found = range(2 if quick else 10), []
    for name, stream in STREAMS.items():
        drifted = [_life(stream, seed, True) for seed in seeds]
        still = [_life(stream, 1_000 + seed, False) for seed in seeds]
        delays = [each["harm"] - CHANGED if each["harm"] and each["harm"] > CHANGED else DAYS for each in drifted]
        hints = [each["hint"] - CHANGED if each["hint"] is not None else DAYS for each in drifted]
        false = sum(each["harm"] is not None for each in still)
        false += sum((each["harm"] or DAYS) <= CHANGED for each in drifted)
        rise = np.mean([each["rise"] for each in drifted])
        hinted = sum(each["false_hint"] for each in still)
        notes = {
            "ours": f"{false} false alarms in {2 * len(drifted)} lives; the loss rises by {rise:.3f}",
            "ADWIN, Page-Hinkley": f"on hours of excess loss; {hinted} of {len(still)} still lives have a hint",
        }
        peers = {"ADWIN, Page-Hinkley": float(np.median(hints))}
        title = f"{name}: days from the change until harm"
        found.append(Case(title, "days", float(np.median(delays)), None, peers, notes))
        held = {
            key: float(np.mean([each["held"] for each in lives]))
            for key, lives in (("drift", drifted), ("still", still))
        }
        notes = {"ours": "two days after the change, before its labels: blind", "floor": "days without a change"}
        found.append(
            Case(f"{name}: estimates whose 90% interval holds", "share", held["drift"], held["still"], {}, notes, True)
        )
    return [*found, *_flights(folder)]


def _flights(folder: Path) -> list[Case]:
    """Return how often intervals of estimated quality hold on days, and on weeks that begin each day."""
    import pyarrow as pa

    from flights_year import AT, LABEL, SCORE, trained_rows, year
    from mainspring.stats.estimates import estimates, realised
    from mainspring.stats.quality_sums import Rows, scores_summed, summed

    table = year(folder)
    table = table.slice(trained_rows(table))
    at = table[AT].cast(pa.int64()).to_numpy()
    score, label = (np.asarray(table[name].to_numpy(zero_copy_only=False), np.float64) for name in (SCORE, LABEL))
    day = (at - at[0]) // DAY_US
    parts = [(score[day == each], label[day == each]) for each in range(int(day.max()))]
    days = np.array([summed("binary", Rows(s, y)).bins + scores_summed(s) for s, y in parts])
    weeks = np.array([days[end - 7 : end].sum(axis=0) for end in range(7, len(days) + 1)])
    found = []
    for title, periods, delay, overlap in (("days", days, 2, 1), ("weeks", weeks, 7, 7)):
        made = estimates("binary", periods, len(periods), delay, overlap)
        for name in ("auc", "brier"):
            judged = [
                (each[name], realised("binary", bins)[name])
                for each, bins in zip(made, periods, strict=True)
                if name in each and each[name].low is not None
            ]
            held = float(np.mean([one.low <= truth <= one.high for one, truth in judged]))
            error = np.mean([abs(one.value - truth) for one, truth in judged])
            title_ = f"flights: {title} of which the 90% interval of {name} holds"
            notes = {"ours": f"{len(judged)} {title}, mean error {error:.4f}"}
            found.append(Case(title_, "share", held, 0.9, {}, notes, True))
    return found


def check() -> None:
    """Compare the concepts with river's generators, where it is installed."""
    from river.datasets import synth

    made: dict[str, list[Any]] = {
        "SEA": [synth.SEA(variant=variant, seed=1) for variant in (0, 3)],
        "STAGGER": [synth.STAGGER(classification_function=function, seed=1) for function in (0, 1)],
        "Agrawal": [synth.Agrawal(classification_function=function, seed=1) for function in (0, 2)],
    }
    values = (("small", "medium", "large"), ("red", "blue", "green"), ("circle", "square", "triangle"))
    codes = {name: place for names in values for place, name in enumerate(names)}
    for name, generators in made.items():
        for concept, generator in enumerate(generators):
            rows = list(generator.take(2_000))
            inputs = [list(x.values()) for x, _ in rows]
            if name == "Agrawal":
                inputs = [[x["salary"], x["commission"], x["age"], x["elevel"], x["loan"]] for x, _ in rows]
            x = np.array([[codes.get(value, value) for value in row] for row in inputs], float)
            labels = np.array([float(y) for _, y in rows])
            same = np.mean(np.asarray(STREAMS[name].concept(x, concept), float) == labels)
            print(f"{name}, concept {concept}: {same:.4f} equal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two lives of each kind")
    parser.add_argument("--check", action="store_true", help="compare the concepts with river's")
    asked = parser.parse_args()
    if asked.check:
        check()
    else:
        report("alarms_concept", cases(asked.quick))


if __name__ == "__main__":
    main()
