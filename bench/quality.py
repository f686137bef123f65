"""Quality: estimates before labels, how often their intervals hold, and their method beside two that read the features;
and false alarms of harm.

Intervals: on generated streams of which nothing changes but what is drawn, and on the flights' half year that a model
has not seen, in the first four weeks of a version and in all. Methods: ours calibrates scores, or mean errors, by bin.
PAPE (arXiv 2401.08348) calibrates with held-out rows weighted by how likely a classifier of the features says they are
the window's. DLE, for numbers, learns the absolute error from the features and the prediction.

False alarms: of simulated endpoints whose labels come in two parts, at the held-out value and exactly at the tolerance,
looked at each day before and after the labels are complete.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from report import Case, report

DAY_US, HOUR_US = 86_400_000_000, 3_600_000_000
FIRST_DAYS = 28
Floats = np.ndarray[Any, np.dtype[np.float64]]


def _bins(task: str, score: Floats, label: Floats, edges: Floats | None = None) -> Floats:
    from mainspring.stats.quality_sums import Rows, scores_summed, summed

    predicted = scores_summed(score) if edges is None else scores_summed(score, edges)
    return summed(task, Rows(score, label, edges=edges)).bins + predicted


def _held(at: Floats, length_us: int, of: Callable[[Any], Floats]) -> Floats:
    """Return the bins of held-out rows by period, cut as a bundle's are."""
    count = max(5, round((at[-1] - at[0]) / length_us))
    place = ((at - at[0]) * count // (at[-1] - at[0] + 1)).astype(int)
    return np.array([of(place == each) for each in range(count)])


def _holds(task: str, name: str, made: Any, periods: Floats) -> list[tuple[int, bool, float]]:
    """Return place, whether the interval holds, and the error of each estimate with an interval."""
    from mainspring.stats.estimates import realised

    found = []
    for place, (each, bins) in enumerate(zip(made, periods, strict=True)):
        truth = realised(task, bins).get(name, np.nan)
        if name in each and each[name].low is not None and np.isfinite(truth):
            found.append((place, each[name].low <= truth <= each[name].high, abs(each[name].value - truth)))
    return found


def _stream(task: str, seed: int) -> dict[str, list[tuple[int, bool, float]]]:
    """Return the intervals of sixty days after twenty held-out ones; the concept wanders from day to day."""
    from mainspring.stats.estimates import estimates

    rng = np.random.default_rng(seed)

    def day(rows: int) -> tuple[Floats, Floats]:
        x = rng.normal(rng.normal(-1, 0.3), 1.2, rows)
        moved = rng.normal(0, 0.15)
        if task == "regression":
            return x, x + rng.normal(0, np.exp(0.3 * x + moved), rows)
        likely = 1 / (1 + np.exp(-(x + moved)))
        score = 1 / (1 + np.exp(-1.5 * x))
        label = (rng.random(rows) < likely).astype(float)
        return score, label

    edges = np.sort(day(20_000)[0])[np.arange(1, 64) * 20_000 // 64] if task == "regression" else None
    rows = int(rng.choice([150, 500, 2_000]))
    held, live = (np.array([_bins(task, *day(rows), edges) for _ in range(days)]) for days in (20, 60))
    made = estimates(task, live, len(live), 2, held_out=held)
    return {name: _holds(task, name, made, live) for name in (["mae"] if task == "regression" else ["auc", "brier"])}


def _share(found: list[tuple[int, bool, float]], before: int = 1 << 30) -> float:
    return float(np.mean([holds for place, holds, _ in found if place < before]))


def _coverage(quick: bool) -> list[Case]:
    cases = []
    for task in ("binary", "regression"):
        lives = [_stream(task, seed) for seed in range(10 if quick else 60)]
        for name in lives[0]:
            found = [each for life in lives for each in life[name]]
            notes = {"ours": f"{len(lives)} lives of 150, 500 or 2,000 rows a day; the concept wanders"}
            cases += [
                Case(
                    f"generated: days of which the 90% interval of {name} holds", "share", _share(found), 0.9, {}, notes
                ),
                Case(f"generated: of the first ten days, {name}", "share", _share(found, 10), 0.9, {}, notes),
            ]
    return cases


def _flights() -> tuple[Floats, Floats, Floats, Floats, int, int]:
    """Return features, time, label and score of the year, and where held-out rows and traffic begin."""
    import pyarrow as pa

    from flights_year import AT, LABEL, coded, codes_of, columns_of, features, fitted, trained_rows, year

    table = year(Path(tempfile.gettempdir()) / "mainspring-flights-year")
    live = trained_rows(table)
    held = live * 4 // 5
    values = coded(columns_of(table, features(table)), codes_of(table))
    label = np.asarray(table[LABEL].to_numpy(zero_copy_only=False), np.float64)
    at = table[AT].cast(pa.int64()).to_numpy()
    return values, at, label, fitted(values, label, held).predict_proba(values)[:, 1], held, live


def _flights_coverage(at: Floats, label: Floats, score: Floats, held: int, live: int) -> list[Case]:
    from mainspring.stats.estimates import estimates

    def of(rows: Any) -> Floats:
        return _bins("binary", score[rows], label[rows])

    day = (at - at[live]) // DAY_US
    days = np.array([of(np.flatnonzero(day == each)) for each in range(int(day.max()))])
    weeks = np.array([days[end - 7 : end].sum(axis=0) for end in range(7, len(days) + 1)])
    cases = []
    for title, periods, length, delay, overlap in (("days", days, 1, 2, 1), ("weeks", weeks, 7, 7, 7)):
        inside = _held(at[held:live], length * DAY_US, lambda rows: of(np.flatnonzero(rows) + held))
        made = estimates("binary", periods, len(periods), delay, overlap, inside)
        for name in ("auc", "brier"):
            found = _holds("binary", name, made, periods)
            notes = {"ours": f"{len(found)} {title}, mean error {np.mean([error for *_, error in found]):.4f}"}
            share, first = _share(found), _share(found, FIRST_DAYS)
            cases += [
                Case(f"flights: {title} of which the 90% interval of {name} holds", "share", share, 0.9, {}, notes),
                Case(f"flights: of those that end in the first four weeks, {name}", "share", first, 0.9, {}, notes),
            ]
    return cases


def _pape(known: tuple[Floats, Floats, Floats], inputs: Floats, score: Floats) -> dict[str, float]:
    """Return estimates for a window by PAPE: the calibration of labelled rows, weighted as the window's."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.isotonic import IsotonicRegression

    x, s, y = known
    fold = np.arange(len(x)) % 2
    weight = np.zeros(len(x))
    for each in (0, 1):  # a row's weight comes from a classifier that has not seen it
        train = fold != each
        both = np.concatenate([x[train], inputs[np.arange(len(inputs)) % 2 != each]])
        of_window = np.r_[np.zeros(int(train.sum())), np.ones(len(both) - int(train.sum()))]
        model = HistGradientBoostingClassifier(max_iter=40, learning_rate=0.1, random_state=0).fit(both, of_window)
        likely = np.clip(model.predict_proba(x[~train])[:, 1], 1e-3, 1 - 1e-3)
        weight[~train] = likely / (1 - likely) * (1 - of_window.mean()) / of_window.mean()
    rates = IsotonicRegression(out_of_bounds="clip").fit(s, y, sample_weight=weight).predict(score)
    return _of_rates(score, rates)


def _of_rates(score: Floats, rates: Floats) -> dict[str, float]:
    order = np.argsort(score, kind="stable")
    positive, negative = rates[order], 1 - rates[order]
    below = np.cumsum(negative) - negative / 2
    auc = float((positive * below).sum() / (positive.sum() * negative.sum()))
    return {"auc": auc, "brier": float((rates * (1 - score) ** 2 + (1 - rates) * score**2).mean())}


def _methods_on_flights(data: Any, quick: bool) -> list[Case]:
    """Return the mean errors of weekly estimates by ours and by PAPE, with the same labelled rows."""
    from sklearn.metrics import brier_score_loss, roc_auc_score

    from mainspring.stats.estimates import estimates

    values, at, label, score, held, live = data
    week = (at - at[live]) // (7 * DAY_US)
    errors: dict[str, list[tuple[float, float, float]]] = {"auc": [], "brier": []}
    spent = [0.0, 0.0]
    for number in range(0, int(week.max()), 6 if quick else 1):
        rows = np.flatnonzero(week == number)
        known = np.arange(held, np.searchsorted(at, at[rows[0]] - 2 * DAY_US))[-60_000:]
        truth = {"auc": roc_auc_score(label[rows], score[rows]), "brier": brier_score_loss(label[rows], score[rows])}
        began = time.process_time()
        before, own = _bins("binary", score[known], label[known]), _bins("binary", score[rows], label[rows])
        ours = {
            name: made.value for name, made in estimates("binary", own[None], 0, 1, held_out=before[None])[0].items()
        }
        spent[0] += time.process_time() - began
        began = time.process_time()
        pape = _pape((values[known], score[known], label[known]), values[rows], score[rows])
        spent[1] += time.process_time() - began
        flat = {
            "auc": roc_auc_score(label[held:live], score[held:live]),
            "brier": brier_score_loss(label[held:live], score[held:live]),
        }
        for name, found in errors.items():
            found.append(tuple(abs(made[name] - truth[name]) for made in (ours, pape, flat)))
    cases = []
    for name, found in errors.items():
        ours, pape, flat = np.array(found).mean(axis=0)
        notes = {
            "ours": f"{len(found)} weeks; {spent[0] / len(found):.3f} s of processor time a week",
            "PAPE": f"{spent[1] / len(found):.1f} s of processor time a week",
            "floor": "the held-out value",
        }
        cases.append(
            Case(f"flights: mean error of {name} by week", name, float(ours), float(flat), {"PAPE": float(pape)}, notes)
        )
    return cases


def _methods_on_shifts(quick: bool) -> list[Case]:
    """Return mean errors where inputs move and the concept stays: with the score, and beside it."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LinearRegression, LogisticRegression

    from mainspring.stats.estimates import estimates

    def inputs(rng: np.random.Generator, rows: int, moved: Floats) -> Floats:
        return rng.normal(size=(rows, 5)) + moved

    cases = []
    for title, linear, moved in (
        ("a column of boosted trees moves", False, np.array([1.0, 0, 0, 0, 0])),
        ("a column that a linear model misuses moves", True, np.array([0, 0, 0, 0, 1.5])),
    ):
        found, numbers = [], []
        for seed in range(3 if quick else 10):
            rng = np.random.default_rng(seed)

            def labels(x: Floats, rng: np.random.Generator = rng) -> Floats:
                return (rng.random(len(x)) < 1 / (1 + np.exp(-(x[:, 0] + x[:, 1] * (1 + x[:, 4]))))).astype(float)

            def amounts(x: Floats, rng: np.random.Generator = rng) -> Floats:
                return 3 * x[:, 0] + x[:, 1] + rng.normal(size=len(x)) * np.exp(0.4 * x[:, 4])

            still = 0 * moved
            train, held, live = (inputs(rng, n, m) for n, m in ((10_000, still), (10_000, still), (5_000, moved)))
            model = LogisticRegression() if linear else HistGradientBoostingClassifier(max_iter=60)
            model.fit(train, labels(train))
            score, of_live = (model.predict_proba(x)[:, 1] for x in (held, live))
            y, truth = labels(held), labels(live)
            own, before = _bins("binary", of_live, truth), _bins("binary", score, y)
            ours = estimates("binary", own[None], 0, 1, held_out=before[None])[0]["brier"].value
            pape = _pape((held, score, y), live, of_live)["brier"]
            real = float(((of_live - truth) ** 2).mean())
            found.append((abs(ours - real), abs(pape - real), abs(float(((score - y) ** 2).mean()) - real)))

            number = LinearRegression() if linear else HistGradientBoostingRegressor(max_iter=60)
            number.fit(train, amounts(train))
            score, of_live = (number.predict(x) for x in (held, live))
            y, truth = amounts(held), amounts(live)
            edges = np.quantile(score, np.arange(1, 64) / 64)
            own, before = (_bins("regression", s, v, edges) for s, v in ((of_live, truth), (score, y)))
            ours = estimates("regression", own[None], 0, 1, held_out=before[None])[0]["mae"].value
            error = HistGradientBoostingRegressor(max_iter=60).fit(np.column_stack([held, score]), np.abs(y - score))
            dle = float(error.predict(np.column_stack([live, of_live])).mean())
            real = float(np.abs(of_live - truth).mean())
            numbers.append((abs(ours - real), abs(dle - real), abs(float(np.abs(score - y).mean()) - real)))
        for metric, errors, peer in (("brier", found, "PAPE"), ("mae", numbers, "DLE")):
            ours, theirs, flat = np.array(errors).mean(axis=0)
            notes = {"floor": "the held-out value", "ours": f"{len(errors)} seeds"}
            cases.append(
                Case(
                    f"generated, {title}: mean error of {metric}",
                    metric,
                    float(ours),
                    float(flat),
                    {peer: float(theirs)},
                    notes,
                )
            )
    return cases


def _life(task: str, seed: int, at_limit: bool) -> dict[Any, Any]:
    """Return the sums of 24 days, whose labels come after three and twelve hours by what they are."""
    from mainspring.monitoring.quality.table import Key
    from mainspring.stats.quality_sums import PLACE, Rows, Sums, summed

    rng, sums = np.random.default_rng(seed), {}
    for day in range(_DAYS):
        rows = int(rng.choice([100, 400]))
        every = Sums.nothing()
        every.totals[PLACE["predictions"]] = rows
        sums[Key("1", "d", day * DAY_US, "", "", 0, task)] = every
        classes = None
        if task == "regression":
            label = rng.normal(size=rows)
            score = label + rng.normal(0, 1.25 if at_limit else rng.uniform(0.8, 1.2), rows)
            first = label + rng.normal(size=rows) < 0.3  # small numbers first
        elif task == "multiclass":
            classes = rng.dirichlet([1, 1, 1], rows)
            label = (rng.random(rows)[:, None] > classes.cumsum(axis=1)).sum(axis=1).astype(float)
            score, first = classes.max(axis=1), rng.random(rows) < np.array([0.9, 0.5, 0.3])[label.astype(int)]
        else:
            score = rng.random(rows)
            label = (rng.random(rows) < score).astype(float)
            first = rng.random(rows) < np.where(label > 0, 0.9, 0.4)
        for age, part in ((3 * 3600, first), (12 * 3600, ~first)):
            given = Rows(score[part], label[part], None if classes is None else classes[part], cap=8.0)
            sums[Key("1", "d", day * DAY_US, "", "", age, task)] = summed(task, given)
    return sums


_DAYS = 24
_HELD_OUT = {  # at the held-out value: the value and the default or a usual tolerance; at the limit: the two add up
    ("regression", False): ({"mae": 0.7979}, {}),
    ("regression", True): ({"mae": 0.7979}, {"mae": 0.1995}),
    ("multiclass", False): ({"log_loss": 0.8341, "accuracy": 0.6107}, {"log_loss": 0.2, "accuracy": 0.1}),
    ("multiclass", True): ({"log_loss": 0.6341, "accuracy": 0.7107}, {"log_loss": 0.2, "accuracy": 0.1}),
    ("binary", False): ({"brier": 0.1667}, {}),
    ("binary", True): ({"brier": 0.1467}, {"brier": 0.02}),
}


def _false_alarms(quick: bool) -> list[Case]:
    """Return the share of endpoints without harm that have an alarm in 18 daily looks."""
    from mainspring.monitoring.channels.harm import harms

    lives, found = 20 if quick else 334, []
    for (task, at_limit), (held_out, tolerances) in _HELD_OUT.items():
        any_, early = 0, 0
        for seed in range(lives):
            sums, kinds = _life(task, seed, at_limit), set()
            for day in range(6, _DAYS):
                now = day * DAY_US + 5 * HOUR_US
                seen = {key: each for key, each in sums.items() if key.hour + key.age_s * 1_000_000 + HOUR_US <= now}
                made = harms(seen, now, DAY_US, {"d": held_out}.__getitem__, tolerances)
                kinds |= {each.early for each in made if each.severity >= 1}
            any_, early = any_ + bool(kinds), early + (True in kinds)
        title = f"{task}, {'exactly at the tolerance' if at_limit else 'as held out'}: endpoints with a false alarm"
        notes = {"ours": f"{lives} endpoints a case, labels after 3 and 12 hours; {early} before labels were complete"}
        found.append(Case(title, "share", any_ / lives, 0.05, {}, notes))
    return found


def cases(quick: bool) -> list[Case]:
    """Return how often intervals hold, the errors of the methods, and false alarms of harm."""
    data = _flights()
    _, at, label, score, held, live = data
    return [
        *_coverage(quick),
        *_false_alarms(quick),
        *_flights_coverage(at, label, score, held, live),
        *_methods_on_shifts(quick),
        *_methods_on_flights(data, quick),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few lives and every sixth week")
    report("quality", cases(parser.parse_args().quick))


if __name__ == "__main__":
    main()
