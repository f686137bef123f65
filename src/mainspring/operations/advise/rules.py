"""Rules of advice: a pure function an area, each from facts to a verdict with its evidence.

A step is advised only if the use justifies it; otherwise the advice says what would. The order of the areas is that of
a project's life, so the first unmet one is the next step.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from statistics import median

from mainspring.core.time import DAY, format_duration
from mainspring.operations.advise.model import Advice, Advised, Facts, ModelFacts

TRAFFIC_TO_SPLIT = 2_000  # predictions a day: of a canary's 100, ten that fail are proof within the day
TRAFFIC_TO_WATCH = 100  # predictions without a label, from which on quality should be known
TRAFFIC_TO_MEASURE = 1.0  # predictions a second at peak, from which on the capacity should be known
IDLE_DAYS = 14.0
BY_HAND = 3  # trainings by hand, from which on a schedule saves work
LOG_BYTES = 5 * 1024**3
HEADROOM = 10.0  # a measured capacity this many times the peak serves with fewer processes

Rule = Callable[[Facts], Advice]


def advise(facts: Facts) -> Advised:
    """Return the advice on every area, and the first area whose step is justified."""
    areas = tuple(rule(facts) for rule in RULES)
    following = next((each for each in areas if each.state == "next"), None)
    return Advised(project=facts.project, next=following, areas=areas)


def data(facts: Facts) -> Advice:
    landed = {name: rows for name, rows in facts.sources.items() if rows is not None}
    missing = [name for name in facts.sources if name not in landed]
    have = f"{len(landed)} of {_count(len(facts.sources), 'source')} have data, {sum(landed.values()):,} rows"
    if not facts.sources:
        return _next(
            "data",
            "No source is declared.",
            "Declare your table as a source and ingest it.",
            "Everything else is computed from it.",
            'ms.Source("orders", schema={...}, event_time="ordered_at")',
        )
    if missing:
        return _next(
            "data",
            f"{have}; {_names(missing)} {'have' if len(missing) > 1 else 'has'} none.",
            f"Ingest {missing[0]}.",
            "A feature or label of an empty source has no values.",
            f"mainspring ingest {missing[0]} FILE",
        )
    return _done("data", f"{have}.")


def baseline(facts: Facts) -> Advice:
    if not facts.models:
        return _next(
            "baseline",
            "No model is declared.",
            "Declare a model; its first version may be as simple as a logistic regression.",
            "Each training also scores a baseline on the same held-out rows, which the model has to beat.",
            'mainspring init shows one: @ms.model("NAME", label=..., task="binary")',
        )
    untrained = [candidate for candidate in facts.models if candidate.declared and not candidate.versions]
    if untrained:
        name = untrained[0].name
        return _next(
            "baseline",
            f"{name} has no version.",
            f"Train {name}.",
            "The report compares it with its baseline.",
            f"mainspring train {name}",
        )
    beaten = [candidate for candidate in facts.models if candidate.better is False]
    if beaten:
        model = beaten[0]
        return _next(
            "baseline",
            f"{model.name}:{model.newest} has {model.metric} {model.value:.4g} on held-out rows; "
            f"its baseline has {model.baseline:.4g}.",
            f"Improve the features of {model.name} before anything else.",
            "A model that does not beat its baseline costs more than it brings.",
            f"mainspring features explain {model.name}",
        )
    compared = [
        f"{candidate.name}:{candidate.newest} {candidate.metric} {candidate.value:.4g} against {candidate.baseline:.4g}"
        for candidate in facts.models
        if candidate.better
    ]
    return _done("baseline", f"{'; '.join(compared) or 'The models were registered, not trained here'}.")


def gates(facts: Facts) -> Advice:
    declared = [candidate for candidate in facts.models if candidate.declared]
    without = [candidate for candidate in declared if candidate.versions and "beats" not in candidate.gates]
    if without:
        model = without[0]
        kinds = _names(sorted(set(model.gates))) if model.gates else "no gate"
        return _next(
            "gates",
            f"{model.name} has {_count(model.versions, 'version')} and {kinds}.",
            f"Give {model.name} a gate that compares it with its baseline and the champion.",
            "Without one, a worse version can replace a better one.",
            f'gates=[ms.beats("{model.metric or "auc"}", by=0.005)]',
        )
    shared = [candidate for candidate in declared if len(candidate.promoters) > 1 and "approved" not in candidate.gates]
    if shared:
        model = shared[0]
        return _next(
            "gates",
            f"{len(model.promoters)} people promote {model.name}: {_names(model.promoters)}.",
            "Require the approval of a second person.",
            "In a team, the author of a version should not be the only one who looks at it.",
            "gates=[..., ms.approved(by=1)]",
        )
    if not any(candidate.versions for candidate in declared):
        return _later("gates", "There is no version to judge yet.", "The first version that is trained.")
    return _done(
        "gates",
        f"{_names([candidate.name for candidate in declared if candidate.versions])}: each must beat its baseline.",
    )


def tracking(facts: Facts) -> Advice:
    runs = sum(len(each.trained_at) for each in facts.models)
    if not runs:
        return _later("tracking", "There is no run yet.", "The first training; its run is recorded by itself.")
    if not facts.kept:
        return _next(
            "tracking",
            f"{_count(runs, 'run')} recorded; the project's folder is not under version control.",
            "Put the definitions under git.",
            "A run records the digest of the code that made it; git keeps that code.",
            "git init && git add -A && git commit -m 'First version'",
        )
    return _done("tracking", f"{_count(runs, 'run')} with parameters, metrics, data versions and code; under git.")


def serving(facts: Facts) -> Advice:
    ready = [model for model in facts.models if model.versions]
    if not ready:
        return _later("serving", "There is no version to serve.", "The first version that passes its gates.")
    unpromoted = [model for model in ready if not model.champion]
    if unpromoted and not any(model.champion for model in ready):
        name = unpromoted[0].name
        return _next(
            "serving",
            f"{name} has {_count(unpromoted[0].versions, 'version')} and no champion.",
            f"Promote {name}.",
            "The gates are checked, and the endpoint serves the version within a second.",
            f"mainspring promote {name}",
        )
    served = {endpoint.model for endpoint in facts.endpoints}
    idle = [model.name for model in ready if model.champion and model.name not in served]
    if idle:
        return _next(
            "serving",
            f"{idle[0]} has a champion, and no endpoint serves it.",
            f"Declare an endpoint for {idle[0]}.",
            "Predictions of an endpoint are logged, watched and can be replayed.",
            f'ms.Endpoint("{idle[0]}", model="{idle[0]}@champion")',
        )
    live = [endpoint for endpoint in facts.endpoints if endpoint.predictions]
    if not live:
        return _next(
            "serving",
            f"{_count(len(facts.endpoints), 'endpoint')}, no prediction in 60 days.",
            "Start the gateway and request a prediction.",
            "What is not called has no quality to watch.",
            "mainspring up",
        )
    return _done(
        "serving",
        "; ".join(
            f"{endpoint.name}: {endpoint.predictions:,} predictions, {endpoint.a_day:,.0f} a day" for endpoint in live
        ),
    )


def tests(facts: Facts) -> Advice:
    live = [each.name for each in facts.models if each.champion]
    if facts.tests:
        return _done("tests", f"{_count(facts.tests, 'test file')}.")
    if not live:
        return _later("tests", "The project has no test.", "The first version that goes live.")
    return _next(
        "tests",
        f"{_names(live)} {'are' if len(live) > 1 else 'is'} live; the project has no test.",
        "Test the project's own functions, and compare features offline and online on its own data.",
        "A changed function reaches every prediction at the next promotion.",
        "mainspring features verify",
    )


def monitoring(facts: Facts) -> Advice:
    alerts = [endpoint for endpoint in facts.endpoints if endpoint.alerts]
    blind = [
        endpoint for endpoint in facts.endpoints if endpoint.predictions >= TRAFFIC_TO_WATCH and not endpoint.labels
    ]
    if blind:
        worst = max(blind, key=lambda endpoint: endpoint.predictions)
        return _next(
            "monitoring",
            f"{worst.name} made {worst.predictions:,} predictions in 60 days, and the label of none is known.",
            f"Ingest the labels of {worst.model}.",
            "Without labels nobody can tell whether the predictions are right.",
            f"mainspring monitor {worst.name}",
        )
    if alerts:
        alerting = alerts[0]
        return _next(
            "monitoring",
            f"{_count(len(alerting.drifted), 'column')} of {alerting.name} drifted, "
            f"{len(alerting.alerts)} of them in two windows in a row: {_names(alerting.alerts)}.",
            f"Look at the windows of {alerting.name}, and train {alerting.model} on newer data if its quality fell.",
            "Drift alone does no harm; drift with worse quality does.",
            f"mainspring monitor {alerting.name}",
        )
    live = [endpoint for endpoint in facts.endpoints if endpoint.predictions]
    if not live:
        return _later("monitoring", "There are no predictions to watch.", "The first predictions.")
    if not any(endpoint.labels for endpoint in live):
        return _later(
            "monitoring",
            f"{sum(endpoint.predictions for endpoint in live):,} predictions, no label yet.",
            f"{TRAFFIC_TO_WATCH} predictions without a label.",
        )
    return _done(
        "monitoring",
        "; ".join(
            f"{endpoint.name}: the label of {endpoint.labels / endpoint.predictions:.0%} is known" for endpoint in live
        ),
    )


def automation(facts: Facts) -> Advice:
    if "train" in facts.scheduled:
        return _done("automation", f"Schedules run {_names(facts.scheduled)}.")
    busiest = max(facts.models, key=lambda each: len(_recent(each, facts.now)), default=None)
    times = _recent(busiest, facts.now) if busiest is not None else ()
    days = sorted({at // DAY for at in times})
    if busiest is None or len(days) < BY_HAND:
        return _later(
            "automation",
            f"{_count(len(times), 'training')} by hand in 60 days.",
            f"Trainings of one model on {BY_HAND} days.",
        )
    gap = median(after - before for before, after in itertools.pairwise(days)) * DAY
    return _next(
        "automation",
        f"{busiest.name} was trained by hand on {len(days)} days of the last 60, about every "
        f"{format_duration(int(gap))}.",
        "Let a schedule train it.",
        "The gates still decide whether the new version goes live.",
        f'[schedules.retrain]\njob = "train"\nwhen = "{format_duration(int(gap))}"\n'
        f'argument = {{ model = "{busiest.name}" }}',
    )


def rollout(facts: Facts) -> Advice:
    promoted = {candidate.name: candidate for candidate in facts.models if candidate.promotions}
    live = [endpoint for endpoint in facts.endpoints if endpoint.model in promoted and endpoint.predictions]
    if not live:
        return _later("rollout", "No promoted version has traffic.", f"{TRAFFIC_TO_SPLIT:,} predictions a day.")
    busiest = max(live, key=lambda endpoint: endpoint.a_day)
    model = promoted[busiest.model]
    if busiest.rollout:
        return _done(
            "rollout", f"{busiest.name} declares how a candidate reaches it, at {busiest.a_day:,.0f} predictions a day."
        )
    share = 0.05 * busiest.a_day
    if busiest.a_day < TRAFFIC_TO_SPLIT or model.promotions < 2:
        return _later(
            "rollout",
            f"{busiest.name} makes {busiest.a_day:,.0f} predictions a day: a canary of 5 % would see {share:,.0f}. "
            f"{model.name} was promoted {_times(model.promotions)}.",
            f"{TRAFFIC_TO_SPLIT:,} predictions a day and a second promotion. Until then the gates decide better.",
        )
    return _next(
        "rollout",
        f"{model.name} was promoted {_times(model.promotions)} at once to all of "
        f"{busiest.a_day:,.0f} predictions a day.",
        "Let the next version prove itself on 5 % of the traffic first.",
        f"A bad version meets {share:,.0f} predictions a day instead of all, and is rolled back by itself.",
        f"mainspring rollout plan {busiest.name}",
    )


def cost(facts: Facts) -> Advice:
    idle = [
        endpoint
        for endpoint in facts.endpoints
        if endpoint.serves and endpoint.idle_days is not None and endpoint.idle_days > IDLE_DAYS
    ]
    if idle:
        affected = idle[0]
        return _next(
            "cost",
            f"{affected.name} serves a version, and its last prediction is {affected.idle_days:,.0f} days old.",
            f"Remove the endpoint {affected.name}.",
            "Its model stays in the memory of every gateway process.",
            "mainspring apply",
        )
    if facts.log_bytes is not None and facts.log_bytes > LOG_BYTES and not facts.expires:
        return _next(
            "cost",
            f"The prediction log takes {facts.log_bytes / 1024**3:,.1f} GB, and old predictions are never removed.",
            "Say how long predictions are kept.",
            "Predictions older than their labels' maturity are needed only to replay them.",
            'keep_predictions = "180d"',
        )
    measured = [endpoint for endpoint in facts.endpoints if endpoint.capacity and endpoint.peak]
    spare = min((endpoint.capacity / endpoint.peak for endpoint in measured if endpoint.capacity), default=0.0)
    if facts.gateway_workers > 1 and spare > HEADROOM:
        return _next(
            "cost",
            f"The busiest window of each endpoint used at most a {spare:,.0f}th of its measured capacity, with "
            f"{facts.gateway_workers} gateway processes.",
            "Serve with fewer gateway processes.",
            "Each holds every model in memory.",
            f"gateway_workers = {max(1, facts.gateway_workers // 2)}",
        )
    unknown = [
        endpoint for endpoint in facts.endpoints if endpoint.peak >= TRAFFIC_TO_MEASURE and endpoint.capacity is None
    ]
    if unknown:
        affected = max(unknown, key=lambda endpoint: endpoint.peak)
        return _next(
            "cost",
            f"{affected.name} made {affected.peak:,.1f} predictions a second in its busiest window; "
            "its capacity is unknown.",
            "Measure the capacity once.",
            "It says how much more traffic this machine serves within the deadline.",
            f"mainspring bench {affected.name}",
        )
    if measured:
        return _done(
            "cost",
            "; ".join(
                f"{endpoint.name}: peak {endpoint.peak:,.1f} of {endpoint.capacity:,.0f} a second"
                for endpoint in measured
            ),
        )
    return _later(
        "cost",
        "No endpoint is idle, and traffic is small.",
        f"{TRAFFIC_TO_MEASURE:g} prediction a second, an endpoint idle for {IDLE_DAYS:g} days, or a log of 5 GB.",
    )


RULES: tuple[Rule, ...] = (data, baseline, gates, tracking, serving, tests, monitoring, automation, rollout, cost)


def _recent(model: ModelFacts | None, now: int) -> tuple[int, ...]:
    return () if model is None else tuple(at for at in model.trained_at if now - at <= 60 * DAY)


def _next(area: str, evidence: str, step: str, why: str, command: str) -> Advice:
    return Advice(area=area, state="next", evidence=evidence, step=step, why=why, command=command)


def _later(area: str, evidence: str, justified_by: str) -> Advice:
    return Advice(area=area, state="not needed yet", evidence=evidence, why=f"Justified by: {justified_by}")


def _done(area: str, evidence: str) -> Advice:
    return Advice(area=area, state="in place", evidence=evidence)


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _names(names: Sequence[str]) -> str:
    few = list(names[:3])
    return ", ".join(few) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
