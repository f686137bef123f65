"""How much of a model does a caller copy through its answers, with which outputs, and who would notice?

Attacks, written from their papers: queries of other natural rows (Knockoff Nets: Orekondy, Schiele and Fritz, CVPR
2019) and of rows of another domain (Copycat CNN: Correia-Silva et al., IJCNN 2018), seeds moved along the signs of the
copy's gradients (Jacobian-based augmentation: Papernot et al., AsiaCCS 2017), and equations solved for the weights of a
logistic regression (Tramèr et al., USENIX Security 2016). The outputs are those that `ms.Outputs` lets pass. A copy is
as good as the share of held-out rows of which it says the same class.

Tripwires over the queries of one caller: PRADA (Juuti, Szyller, Marchal and Asokan, EuroS&P 2019), by Shapiro and
Wilk's statistic of the distances to the nearest earlier query of the same class; and the same distances against those
of as many held-out rows, by Kolmogorov and Smirnov's test, with and without rows near an earlier one. Measured: the
share of attackers, and of honest callers of five kinds, that they report. Figures are means over seeds, and no times.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import msgspec

from kit.serving import bundle
from mainspring.serving.outputs import LABELS, Outputs
from mainspring.serving.plane.shaping import shaped
from report import Case, report

Array = np.ndarray[Any, Any]
POLICIES = {"2 digits": Outputs(digits=2), "1 digit": Outputs(digits=1), "largest class": Outputs(top=1),
            "labels": LABELS}  # fmt: skip
BUDGETS = (50, 200, 800)
CLASSES = tuple(f"class_{number}" for number in range(10))
MULTICLASS = msgspec.structs.replace(bundle().manifest, task="multiclass", outputs=CLASSES)
QUERIES = 300  # of a caller whom a tripwire judges
PRADA_DELTA, PRADA_FEWEST = 0.95, 100
CHANCE = 1e-3
NEAR = 0.01  # quantile of the distances of held-out rows up to which rows are near
_LEAST = 1e-6


class Victim:
    """A network on digits, behind a policy on outputs."""

    def __init__(self, seed: int) -> None:
        digits = load_digits()
        rows, labels = digits.data / 16.0, digits.target
        order = np.random.default_rng(seed).permutation(len(rows))
        train, held, test = order[:700], order[700:1400], order[1400:]
        self.held, self.test = rows[held], rows[test]
        self.model = MLPClassifier((64,), max_iter=300, random_state=seed).fit(rows[train], labels[train])

    def ask(self, rows: Array, policy: Outputs | None = None) -> Array:
        """Return what a caller gets, shape (rows, classes)."""
        scores = self.model.predict_proba(rows).astype(np.float32)
        if policy is None:
            return scores
        answers = shaped(policy, MULTICLASS, dict(zip(CLASSES, scores.T, strict=True)))
        return np.stack([answers[name] for name in CLASSES], axis=-1)


Copy = Callable[[Array], Array]  # rows -> scores


def copied(rows: Array, answers: Array, seed: int) -> tuple[Copy, Any]:
    """Return a network fitted on answers, as logarithms of the scores, and the network itself."""
    network = MLPRegressor(hidden_layer_sizes=(64,), max_iter=400, random_state=seed, learning_rate_init=3e-3)
    network.fit(rows, np.log(np.clip(answers, _LEAST**0.5, 1.0)))
    return network.predict, network


def agreement(victim: Victim, copy: Copy) -> float:
    """Return the share of held-out rows of which both say the same class."""
    return float((copy(victim.test).argmax(axis=1) == victim.model.predict_proba(victim.test).argmax(axis=1)).mean())


def natural(victim: Victim, policy: Outputs | None, budget: int, seed: int) -> tuple[Array, Array]:
    """Return queries of rows that the model was not trained on, jittered where there are too few, and the answers."""
    draw = np.random.default_rng(seed)
    rows = victim.held[draw.permutation(len(victim.held))[:budget]]
    if len(rows) < budget:
        more = victim.held[draw.integers(len(victim.held), size=budget - len(rows))]
        rows = np.concatenate([rows, np.clip(more + draw.normal(0, 0.05, more.shape), 0, 1)])
    return rows, victim.ask(rows, policy)


def elsewhere(victim: Victim, policy: Outputs | None, budget: int, seed: int) -> tuple[Array, Array]:
    """Return queries of another domain: patches of digits put together at random."""
    draw = np.random.default_rng(seed)
    rows = np.empty((budget, 8, 8))
    parts = victim.held.reshape(-1, 8, 8)
    for each in rows:
        for top in (0, 4):
            for left in (0, 4):
                other = parts[draw.integers(len(parts))]
                y, x = draw.integers(5, size=2)
                each[top : top + 4, left : left + 4] = other[y : y + 4, x : x + 4]
    rows = rows.reshape(budget, 64)
    return rows, victim.ask(rows, policy)


def augmented(victim: Victim, policy: Outputs | None, budget: int, seed: int) -> tuple[Array, Array]:
    """Return queries of few seeds that are moved along the signs of the copy's gradients, round by round."""
    draw = np.random.default_rng(seed)
    rows = victim.held[draw.permutation(len(victim.held))[: max(10, budget // 16)]]
    answers = victim.ask(rows, policy)
    while len(rows) < budget:
        _, network = copied(rows, answers, seed)
        made = rows + 0.1 * np.sign(_gradient(network, rows, answers.argmax(axis=1)))
        made = np.clip(made, 0, 1)[: budget - len(rows)]
        rows, answers = np.concatenate([rows, made]), np.concatenate([answers, victim.ask(made, policy)])
    return rows, answers


def _gradient(network: Any, rows: Array, classes: Array) -> Array:
    """Return the gradient of each row's own class's score by the row."""
    (first, second), (bias, _) = network.coefs_, network.intercepts_
    active = (rows @ first + bias) > 0
    found: Array = (active * second.T[classes]) @ first.T
    return found


ATTACKS = {"natural rows": natural, "another domain": elsewhere, "augmented seeds": augmented}


def copies(seeds: int, budgets: tuple[int, ...]) -> list[Case]:
    """Measure copies of a network."""
    cases, victims = [], [Victim(seed) for seed in range(seeds)]
    for name, attack in ATTACKS.items():
        for budget in budgets:
            found: dict[str, float] = {}
            for policy_name, policy in {"all": None, **POLICIES}.items():
                agreed = [
                    agreement(victim, copied(*attack(victim, policy, budget, seed), seed)[0])
                    for seed, victim in enumerate(victims)
                ]
                found[policy_name] = round(float(np.mean(agreed)), 3)
            cases += [
                Case(f"{name}, {budget} queries, {policy_name}", "agreement", found[policy_name], found["all"])
                for policy_name in POLICIES
            ]
    return cases


def solved(policy: Outputs | None) -> float:
    """Return the relative error of a logistic regression's weights, solved from one answer more than it has columns."""
    data = load_breast_cancer()
    rows = StandardScaler().fit_transform(data.data)
    model = LogisticRegression(C=0.1).fit(rows, data.target)
    asked = np.concatenate([np.zeros((1, rows.shape[1])), 0.5 * np.eye(rows.shape[1])])
    scores = model.predict_proba(asked)[:, 1]
    if policy is not None:
        scores = shaped(policy, bundle().manifest, {"probability": scores})["probability"]
    scores = np.clip(scores, _LEAST, 1 - _LEAST)
    logits = np.log(scores / (1 - scores))
    weights = (logits[1:] - logits[0]) / 0.5
    true = model.coef_[0]
    return float(np.linalg.norm(weights - true) / np.linalg.norm(true))


def nearest_earlier(rows: Array, classes: Array) -> Array:
    """Return each row's distance to the nearest earlier row of its class; without the first of each."""
    found = []
    for place in range(1, len(rows)):
        before = rows[:place][classes[:place] == classes[place]]
        if len(before):
            found.append(float(np.sqrt(((before - rows[place]) ** 2).sum(axis=1)).min()))
    return np.array(found)


def by_normality(distances: Array) -> bool:
    """PRADA: the distances, without those beyond three standard deviations, are not normal."""
    if len(distances) < PRADA_FEWEST:
        return False
    kept = distances[np.abs(distances - distances.mean()) <= 3 * distances.std()]
    return bool(np.ptp(kept) == 0 or stats.shapiro(kept).statistic < PRADA_DELTA)


def tripwires(seeds: int) -> list[Case]:
    """Measure who is reported."""
    found: dict[str, list[Mapping[str, bool]]] = {}
    for seed in range(seeds):
        victim, draw = Victim(seed), np.random.default_rng(1000 + seed)
        usual = victim.held[:350]
        for name, rows in {**_honest(victim, draw), **_attackers(victim, seed)}.items():
            found.setdefault(name, []).append(reported(victim, usual, rows))
    return [
        Case(f"{name}, {tripwire}", "share reported", round(float(np.mean([each[tripwire] for each in of])), 3))
        for name, of in found.items()
        for tripwire in of[0]
    ]


def reported(victim: Victim, usual: Array, rows: Array) -> dict[str, bool]:
    """Return which tripwires report a caller."""
    apart = distinct(rows, float(np.quantile(_nearest(victim, usual), NEAR)))
    return {
        "PRADA": by_normality(_nearest(victim, rows)),
        "PRADA without repetitions": by_normality(_nearest(victim, distinct(rows, 0.0))),
        "against held-out rows": differs(victim, usual, distinct(rows, 0.0)),
        "against held-out rows, without near rows": differs(victim, usual, apart),
    }


def differs(victim: Victim, usual: Array, rows: Array) -> bool:
    """Return whether distances among rows are others than among as many usual ones of each class."""
    classes, usually = (victim.ask(each).argmax(axis=1) for each in (rows, usual))
    chosen = [np.flatnonzero(usually == each)[: (classes == each).sum()] for each in range(len(CLASSES))]
    found, expected = _nearest(victim, rows), _nearest(victim, usual[np.sort(np.concatenate(chosen))])
    return len(found) >= PRADA_FEWEST and len(expected) > 0 and bool(stats.ks_2samp(found, expected).pvalue < CHANCE)


def distinct(rows: Array, radius: float) -> Array:
    """Return rows in their order, each farther than a radius from those before."""
    kept: list[Array] = []
    for row in rows:
        if not kept or float(((np.array(kept) - row) ** 2).sum(axis=1).min()) > radius**2:
            kept.append(row)
    return np.array(kept)


def _nearest(victim: Victim, rows: Array) -> Array:
    return nearest_earlier(rows, victim.ask(rows).argmax(axis=1))


def _honest(victim: Victim, draw: np.random.Generator) -> Mapping[str, Array]:
    """Return queries of honest callers, of rows that are not in the reference."""
    rows = victim.held[350:][draw.permutation(350)[:QUERIES]]
    few = rows[draw.integers(60, size=6 * QUERIES)]
    burst = np.concatenate([rows[:150], np.clip(rows[:5].repeat(30, axis=0) + draw.normal(0, 0.01, (150, 64)), 0, 1)])
    grid = rows[:1].repeat(QUERIES, axis=0)
    grid[:, 27] = np.linspace(0, 1, 20).repeat(15)
    grid[:, 28] = np.tile(np.linspace(0, 1, 15), 20)
    one_class = victim.held[350:][victim.ask(victim.held[350:]).argmax(axis=1) < 3]
    return {
        "honest: natural rows": rows,
        "honest: retries and repeated rows": np.concatenate([rows[:150], few[:QUERIES]]),
        "honest: bursts of near rows": burst,
        "honest: a grid of two features": grid,
        "honest: three classes alone": one_class,
    }


def _attackers(victim: Victim, seed: int) -> Mapping[str, Array]:
    return {f"attack: {name}": attack(victim, None, QUERIES, seed)[0] for name, attack in ATTACKS.items()}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--callers", type=int, default=20)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    exact = solved(None)
    equations = [
        Case(f"equations for 30 weights, {name}", "relative error", round(solved(policy), 4), round(exact, 4),
             more_is_better=True)
        for name, policy in {"all": None, "4 digits": Outputs(digits=4), **POLICIES}.items()
        if policy is None or policy.top is None
    ]  # fmt: skip
    report("extraction", [*equations, *copies(chosen.seeds, BUDGETS), *tripwires(chosen.callers)])


if __name__ == "__main__":
    main()
