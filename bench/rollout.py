"""How often does a rollout raise a false alarm, and how soon does it find a bad model? Beside other ways to decide.

False alarms: A/A rollouts with a look at every request; `ours` must stay at or under 5 %. Power: one arm is worse. The
floor is a test of a fixed size that is looked at once, which could only be planned because the effect was known. The
peers, unlike ours, are calibrated to 5 % of false alarms on this very traffic. All is computed by
`stats.sequential.verdicts`, as in a rollout; bad models meet the default guards with what these tolerate.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import mainspring as ms
from mainspring.delivery.rollout.judging import breached_from
from mainspring.stats.sequential import distributions, events, means, verdicts
from mainspring.stats.sequential.counting import first_of_units
from report import Case, report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # where the streams of the tests are

from kit.arms import (
    STREAMS,
    VALUES,
    WEIGHT,
    counted,
    cumulative,
    history,
    labelled,
    looks,
    looks_at,
    moments,
    one_hot,
    sticky,
)
from shadowing import shadows

Array = npt.NDArray[Any]

DEFAULT = ms.Rollout("late").plan
WITH_LABELS = ms.Rollout("late", guards=[*DEFAULT.guards, ms.guards.quality("brier")]).plan
ALPHA = DEFAULT.alpha
LIMIT = math.log(1 / ALPHA)
EACH = 20  # requests between two looks, of power
SECOND = 100  # requests
PEEKING, MSPRT, ARGO, FLAGGER = "peeking t-test", "mSPRT", "Argo: 4 failed checks", "Flagger: 5 in all"
FAILED = {ARGO: 4, FLAGGER: 5}  # checks, one a minute
REASONS = {
    PEEKING: "Welch's statistic; of false alarms at the usual limit, of power at the one that 5 % of A/A runs reach",
    MSPRT: "Johari et al., arXiv 1512.04922: normal mixture, estimated variance; of power at its calibrated limit",
    ARGO: "failureLimit 3, an interval of one minute, a limit on the candidate's own mean that 5 % of A/A runs reach",
    FLAGGER: "threshold 5, otherwise as Argo",
}


# False alarms -------------------------------------------------------------------------------------------------------


def share(runs: int, step: int, once: Callable[[np.random.Generator, int], Mapping[str, Array]]) -> dict[str, float]:
    """Return per cent of runs that reject at any look, by test; `once` returns shape (runs, looks) of each."""
    random, found = np.random.default_rng(2), dict[str, int]()
    for _ in range(0, runs, step):
        for name, rejected in once(random, step).items():
            found[name] = found.get(name, 0) + int(rejected.reshape(step, -1).any(axis=1).sum())
    return {name: round(100 * number / (runs // step * step), 2) for name, number in found.items()}


def z_of(first: Array, second: Array) -> Array:
    """Return Welch's statistic of sums of shape (..., 3); 0 before each arm has 30 values."""
    enough = np.minimum(first[..., 0], second[..., 0]) >= 30
    with np.errstate(all="ignore"):
        mean = [arm[..., 1] / arm[..., 0] for arm in (first, second)]
        variance = sum(
            np.maximum(arm[..., 2] / arm[..., 0] - each**2, 0) / arm[..., 0]
            for arm, each in zip((first, second), mean, strict=True)
        )
        return np.nan_to_num(np.where(enough, (mean[0] - mean[1]) / np.sqrt(variance), 0.0), posinf=0.0, neginf=0.0)


def false_of_events(runs: int, stream: str) -> Case:
    def once(random: np.random.Generator, step: int) -> dict[str, Array]:
        seen = looks(STREAMS[stream](random, step, 2_000))
        number = seen.candidate + seen.control
        expected, variance = number @ seen.weights, number @ (seen.weights * (1 - seen.weights))
        z = np.where(number.sum(-1) >= 30, (seen.candidate.sum(-1) - expected) / np.sqrt(variance), 0)
        return {"ours": events.log_e_above(*seen) >= LIMIT, PEEKING: z > 1.645}

    found = share(runs, 50, once)
    return Case(f"false alarms, errors: {stream}", "%", found.pop("ours"), None, found, REASONS)


def false_of_values(runs: int, stream: str, values: str, kind: str) -> Case:
    """Return false alarms of a candidate at the tolerated limit: as slow as tolerated, or of the same mean."""
    past = history(values)
    bins, bounds = distributions.bins_of(past, distributions.TAIL), means.bounds_of(past)
    requests = {"means": 600, "latency": 300}[kind]

    def once(random: np.random.Generator, step: int) -> dict[str, Array]:
        drawn = STREAMS[stream](random, step, requests)
        value = VALUES[values](random, drawn)  # of latency: the candidate's are divided by what is tolerated
        _, *sums = cumulative(drawn, moments(value))
        z = z_of(*(arm.sum(axis=2) for arm in sums))
        if kind == "means":
            log_e = verdicts.of_means(bounds, *cumulative(drawn, bounds.cells(value)), 0.0).worse
        else:
            log_e = verdicts.of_latency(bins, *cumulative(drawn, one_hot(bins, value))).worse
        return {"ours": log_e >= LIMIT, PEEKING: np.abs(z) > 1.96}

    found = share(runs, 10, once)
    return Case(f"false alarms, {kind}: {stream}, {values}", "%", found.pop("ours"), None, found, REASONS)


def at_the_limit(random: np.random.Generator, arm: Array) -> dict[str, Array]:
    """Return requests of a candidate that is as bad as the default guards tolerate, in each respect."""
    errors, _, scores = DEFAULT.guards
    failed = random.random(arm.shape) < np.where(arm, 0.02 * (1 + errors.tolerance), 0.02)
    often = 0.2 * (1 + scores.tolerance)
    shares = np.where(arm[..., None], [often, *[(1 - often) / 4] * 4], np.full(5, 0.2))
    score = (random.random(arm.shape)[..., None] > np.cumsum(shares, axis=-1)[..., :-1]).sum(axis=-1)
    return {"failed": failed, "latency": random.lognormal(3, 0.4, arm.shape), "score": score}


def false_of_plan(runs: int) -> Case:
    """Return how often the default plan, with its shared alpha, rolls back what it tolerates."""
    errors, _, scores = DEFAULT.guards
    weight, limit, past = np.array([0.2]), math.log(breached_from(DEFAULT)), np.random.default_rng(1)
    latencies = distributions.bins_of(past.lognormal(3, 0.4, 1_000), distributions.TAIL)

    def once(random: np.random.Generator, step: int) -> dict[str, Array]:
        arm = random.random((step, 1_000)) < weight
        drawn = at_the_limit(random, arm)

        def both(columns: Array) -> list[Array]:
            return [np.cumsum(columns * each[..., None], axis=1)[:, :, None] for each in (arm, ~arm)]

        units = [each[..., 0] for each in both(np.ones_like(arm)[..., None])]
        failed = [each[..., 0] for each in both(drawn["failed"][..., None])]
        ratio, at_most = 1 + errors.tolerance, errors.at_most or 0.0
        log_es = {
            "errors": verdicts.of_errors(weight, *failed, units[0][..., 0], ratio, at_most).worse,
            "latency": verdicts.of_latency(latencies, weight, *both(one_hot(latencies, drawn["latency"]))).worse,
            "scores": verdicts.of_scores(weight, *both(np.eye(5)[drawn["score"]]), 1 + scores.tolerance).worse,
            "sample ratio": events.log_e_sample_ratio([[0.8, 0.2]], np.stack([units[1], units[0]], axis=-1)),
        }
        rejected = {name: each >= limit for name, each in log_es.items()}
        return {"ours": np.any(list(rejected.values()), axis=0), **rejected}

    found = share(runs, 10, once)
    note = dict.fromkeys(found, "this guard of the plan alone")
    return Case("false alarms, the default plan, each guard at its limit", "%", found.pop("ours"), None, found, note)


def false_of_shares(runs: int) -> Case:
    def once(random: np.random.Generator, step: int) -> dict[str, Array]:
        arm = np.cumsum(random.random((step, 1_000)) < 0.05, axis=1)
        units = np.arange(1, 1_001)
        z = np.where(units >= 30, np.abs(arm - 0.05 * units) / np.sqrt(0.0475 * units), 0)
        pairs = np.stack([units - arm, arm], axis=-1)[:, :, None, :]
        return {"ours": events.log_e_sample_ratio([[0.95, 0.05]], pairs) >= LIMIT, PEEKING: z > 1.96}

    found = share(runs, 50, once)
    return Case("false alarms, sample ratio: 5 %", "%", found.pop("ours"), None, found, REASONS)


def false_of_keys(runs: int) -> Case:
    def once(random: np.random.Generator, _: int) -> dict[str, Array]:
        drawn = sticky(random)
        failed = np.flatnonzero(drawn.failed)
        first = np.zeros(drawn.failed.size, np.bool_)
        first[failed] = first_of_units(drawn.units[failed])[0]
        ways = {"ours": first, "by request": drawn.failed}
        return {
            name: events.log_e_differs(*counted(drawn.weight, drawn.weight, drawn.candidate, rows)) >= LIMIT
            for name, rows in ways.items()
        }

    found = share(runs, 1, once)
    note = {"by request": "the same test, counting each request of a sticky unit, or each label when it comes"}
    return Case("false alarms, errors of sticky keys", "%", found.pop("ours"), None, found, note)


def false_of_labels(runs: int) -> Case:
    def once(random: np.random.Generator, _: int) -> dict[str, Array]:
        drawn = labelled(random, lost=0.05)
        ways = {"ours": "in time", "as they come": "as they come"}
        weight = np.array([WEIGHT])
        return {name: events.log_e_differs(weight, *looks_at(drawn, kind)) >= LIMIT for name, kind in ways.items()}

    found = share(runs, 1, once)
    note = {
        "as they come": "the same test on the labels that are there; the candidate's positive ones are there sooner"
    }
    return Case("false alarms, labels delayed and missing", "%", found.pop("ours"), None, found, note)


def false_alarms(runs: int) -> Iterator[Case]:
    for stream in STREAMS:
        yield false_of_events(runs, stream)
    yield false_of_shares(runs)
    yield false_of_values(runs, "even", "pareto", "latency")
    yield false_of_values(runs, "steps", "pareto", "latency")
    yield false_of_plan(runs)
    for stream, values in (("even", "pareto"), ("steps", "pareto"), ("bursts", "storms"), ("nights", "storms")):
        yield false_of_values(runs, stream, values, "means")
    yield false_of_keys(runs)
    yield false_of_labels(runs)


# Power --------------------------------------------------------------------------------------------------------------


class Metric(NamedTuple):
    """Metric of which a candidate is worse by an effect: 0 is none."""

    draw: Callable[[np.random.Generator, Array, float], Array]  # values, given whose they are
    judge: Callable[[Array, Array, Array, Array], Array]  # log e-values of (values, arms, weight) at looks
    sides: int = 1
    usual: float = 0.0  # with two sides: mean of the control


def every(arm: Array, columns: Array) -> tuple[Array, Array]:
    """Return the sums of both arms at looks; shape (runs, looks, 1, columns)."""
    runs, requests = arm.shape
    found = []
    for chosen in (arm, ~arm):
        each = (columns * chosen[..., None]).reshape(runs, requests // EACH, EACH, -1).sum(axis=2)
        found.append(np.cumsum(each, axis=1)[:, :, None])
    return found[0], found[1]


@cache
def bins() -> distributions.Bins:
    return distributions.bins_of(np.random.default_rng(1).lognormal(3, 0.4, 1_000), distributions.TAIL)


@cache
def edges() -> Array:
    return np.quantile(np.random.default_rng(1).beta(2, 5, 1_000), [0.2, 0.4, 0.6, 0.8])


def judge_events(value: Array, arm: Array, weight: Array, ratio: float = 1.0, at_most: float = 0.0) -> Array:
    first, second = every(arm, value[..., None])
    asked, _ = every(arm, np.ones_like(value)[..., None])
    return verdicts.of_errors(weight, first[..., 0], second[..., 0], asked[..., 0, 0], ratio, at_most).worse


def judge_latency(value: Array, arm: Array, weight: Array, factor: float = 1.0) -> Array:
    scaled = np.where(arm, value / factor, value)
    return verdicts.of_latency(bins(), weight, *every(arm, one_hot(bins(), scaled))).worse


def judge_scores(value: Array, arm: Array, weight: Array, ratio: float = 1.0) -> Array:
    hot = np.eye(5)[np.searchsorted(edges(), value, side="right")]
    return verdicts.of_scores(weight, *every(arm, hot), ratio).worse


def judge_means(value: Array, arm: Array, weight: Array) -> Array:
    bounds = means.Bounds(0.0, 1.0, 2 / 7)
    return verdicts.of_means(bounds, weight, *every(arm, bounds.cells(value)), 0.0).worse


def failing(rate: float | Array) -> Metric:
    """Return the metric of errors, of which the control has a share that may change with the request."""

    def draw(random: np.random.Generator, arm: Array, effect: float) -> Array:
        return (random.random(arm.shape) < rate + effect * arm).astype(float)

    return Metric(draw, judge_events)


METRICS = {
    "errors": failing(0.01),
    "latency": Metric(
        lambda r, arm, effect: r.lognormal(3, 0.4, arm.shape) * np.where(arm, 1 + effect, 1), judge_latency
    ),
    "scores": Metric(
        lambda r, arm, effect: r.beta(2, 5, arm.shape) ** np.where(arm, 1 - effect, 1), judge_scores, 2, 2 / 7
    ),
    "loss": Metric(lambda r, arm, effect: np.minimum(1, r.beta(2, 5, arm.shape) + effect * arm), judge_means),
}


def paths(metric: Metric, effect: float, weight: float, requests: int, runs: int, seed: int) -> dict[str, Array]:
    """Return each way's statistic at every look, shape (runs, looks)."""
    random, step = np.random.default_rng(seed), max(1, 250_000 // requests)
    found: dict[str, list[Array]] = {}
    for _ in range(0, runs, step):
        arm = random.random((step, requests)) < weight
        value = metric.draw(random, arm, effect)
        first, second = (
            each[:, :, 0] for each in every(arm, np.stack([np.ones_like(value), value, value**2], axis=-1))
        )
        z = z_of(first, second)
        z = np.abs(z) if metric.sides == 2 else z
        effective = first[..., 0] * second[..., 0] / np.maximum(1, first[..., 0] + second[..., 0])
        rho = effective / (effective + 0.05 * 5_000)  # tuned to be best at about five thousand requests
        statistics = {"ours": metric.judge(value, arm, np.array([weight])), PEEKING: z}
        statistics[MSPRT] = np.where(z > 0, rho * z**2 / 2 + 0.5 * np.log1p(-rho), 0.0)
        for name, failed in FAILED.items():
            statistics[name] = checks(first, failed, metric)
        for name, each in statistics.items():
            found.setdefault(name, []).append(each.astype(np.float32))
    return {name: np.concatenate(each)[:runs] for name, each in found.items()}


def checks(candidate: Array, failed: int, metric: Metric) -> Array:
    """Return the `failed`th largest mean of the candidate in an interval of a minute so far, shape (runs, looks)."""
    minute = 60 * SECOND // EACH
    last = candidate[:, minute - 1 :: minute]
    number, total = (np.diff(last[..., each], axis=1, prepend=0) for each in (0, 1))
    mean = np.divide(total, number, out=np.zeros_like(total), where=number > 0)
    mean = np.abs(mean - metric.usual) if metric.sides == 2 else mean
    found = np.full((candidate.shape[0], candidate.shape[1]), -np.inf)
    for minutes in range(failed, mean.shape[1] + 1):
        found[:, minutes * minute - 1 :] = np.sort(mean[:, :minutes], axis=1)[:, -failed, None]
    return found


class Limits(NamedTuple):
    """A way's limits, and its share of false alarms at the nominal one."""

    limits: dict[str, float]
    nominal: dict[str, float]


@cache
def calibrated(metric: Metric, weight: float, requests: int, runs: int) -> Limits:
    """Return the limits that 5 % of A/A runs reach; ours is that of theory."""
    same = {name: path.max(axis=1) for name, path in paths(metric, 0.0, weight, requests, runs, 7).items()}
    limits = {name: float(np.quantile(most, 1 - ALPHA)) for name, most in same.items()} | {"ours": LIMIT}
    usual = {"ours": LIMIT, PEEKING: 1.645 if metric.sides == 1 else 1.96, MSPRT: LIMIT - math.log(3 - metric.sides)}
    return Limits(limits, {name: round(100 * float((same[name] >= limit).mean()), 1) for name, limit in usual.items()})


def when(rejected: Array, part: float) -> float | None:
    """Return the number of requests after which a part of the runs has rejected; `None` if too few do."""
    first = np.where(rejected.any(axis=1), rejected.argmax(axis=1) + 1.0, np.inf) * EACH
    found = float(np.quantile(first, part, method="inverted_cdf"))
    return found if math.isfinite(found) else None


def power(runs: int) -> Iterator[Case]:
    sizes = {
        "errors": {"1 % to 2 %": 0.01, "1 % to 3 %": 0.02, "1 % to 10 %": 0.09},
        "latency": {"5 % slower": 0.05, "10 % slower": 0.1, "20 % slower": 0.2},
        "scores": {"a mean of .29 to .30": 0.05, "a mean of .29 to .33": 0.15},
        "loss": {"a mean of .29 to .30": 0.015, "a mean of .29 to .32": 0.03},
    }
    requests = 36_000
    for name, effects in sizes.items():
        metric = METRICS[name]
        limits, nominal = calibrated(metric, 0.5, requests, runs)
        ours = nominal.pop("ours")
        yield Case(f"{name}: false alarms at the nominal limit", "%", ours, None, nominal, REASONS)
        for effect, size in effects.items():
            found = paths(metric, size, 0.5, requests, runs, 8)
            once = (found[PEEKING] >= (1.645 if metric.sides == 1 else 1.96)).mean(axis=0) >= 0.8
            floor = float((once.argmax() + 1) * EACH) if once.any() else None
            until = {way: when(path >= limits[way], 0.8) for way, path in found.items()}
            half = when(found["ours"] >= LIMIT, 0.5)
            yield Case(f"{name}, {effect}: requests until 4 of 5 find it", "requests", until.pop("ours"), floor, until)
            yield Case(f"{name}, {effect}: until half find it", "requests", half, floor)


def disturbed(runs: int) -> Case:
    """Return false alarms at limits that were calibrated on even days, on a day that is not."""
    requests = 36_000
    limits, _ = calibrated(METRICS["errors"], 0.05, requests, runs)
    storm = np.where(np.arange(requests) < requests // 2, 0.01, 0.03)
    found = paths(failing(storm), 0.0, 0.05, requests, runs, 10)
    shares = {way: round(100 * float((path >= limits[way]).any(axis=1).mean()), 1) for way, path in found.items()}
    return Case("false alarms while both arms' errors triple", "%", shares.pop("ours"), None, shares, REASONS)


# Bad models at 5 % of the traffic -----------------------------------------------------------------------------------


def tolerating() -> dict[str, Metric]:
    """Return the metrics as the default plan's guards judge them, with what they tolerate."""
    errors, latency, scores = DEFAULT.guards
    judges = {
        "errors": partial(judge_events, ratio=1 + errors.tolerance, at_most=errors.at_most or 0.0),
        "latency": partial(judge_latency, factor=latency.factor),
        "scores": partial(judge_scores, ratio=1 + scores.tolerance),
    }
    return {**METRICS, **{name: METRICS[name]._replace(judge=judge) for name, judge in judges.items()}}


def bad_models(runs: int) -> Iterator[Case]:
    """A hundred requests a second, 5 % of them the candidate's; a day has 8.64 million."""
    guards = tolerating()
    rare = failing(0.001)._replace(judge=guards["errors"].judge)
    bad = {
        "errors of .1 % become 1 %": (rare, 0.009, 240_000),
        "errors of .1 % become 5 %": (rare, 0.049, 120_000),
        "errors of .1 % become 50 %": (rare, 0.499, 120_000),
        "20 % slower": (guards["latency"], 0.2, 36_000),
        "50 % slower": (guards["latency"], 0.5, 36_000),
        "worse scores: a mean of .29 to .48": (guards["scores"], 0.5, 36_000),
        "worse loss: .29 to .32, labels a day late": (guards["loss"], 0.03, 60_000),
    }
    for name, (metric, effect, requests) in bad.items():
        limits, _ = calibrated(metric, 0.05, requests, runs)
        found = paths(metric, effect, 0.05, requests, runs, 9)
        day = 86_400.0 if "late" in name else 0.0
        ours = found["ours"] >= math.log(breached_from(WITH_LABELS if day else DEFAULT))
        for part, said in ((0.5, "median"), (0.9, "nine of ten")):
            until = {way: when(path >= limits[way], part) for way, path in found.items()} | {"ours": when(ours, part)}
            seconds = {way: None if each is None else day + each / SECOND for way, each in until.items()}
            yield Case(f"{name}: detection, {said}", "s", seconds.pop("ours"), None, seconds)
        alone, half = when(found["ours"] >= LIMIT, 0.5), when(ours, 0.5)
        if alone is not None:
            yield Case(f"{name}: median of a plan with this guard's test alone", "s", day + alone / SECOND)
        if half is not None:
            met = round(5 * min(1.0, (day + half / SECOND) / 86_400), 4)
            yield Case(f"{name}: share of the first day's requests that met it", "%", met)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="A/A rollouts of each case of false alarms")
    parser.add_argument("--power-runs", type=int, default=300, help="rollouts of each case of power")
    parser.add_argument("--shadow-seconds", type=float, default=40.0, help="seconds of a caller beside each shadow")
    parser.add_argument("--only-shadows", action="store_true")
    arguments = parser.parse_args()
    if arguments.only_shadows:
        report("rollout", list(shadows(arguments.shadow_seconds)))
        return
    cases = [
        *false_alarms(arguments.runs),
        *power(arguments.power_runs),
        disturbed(arguments.power_runs),
        *bad_models(arguments.power_runs),
        *shadows(arguments.shadow_seconds),
    ]
    report("rollout", cases)


if __name__ == "__main__":
    main()
