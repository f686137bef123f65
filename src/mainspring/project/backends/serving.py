"""Adapters of routes, rollouts, the prediction log, jobs and fleets."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from mainspring.jobs.bell import ring
from mainspring.project.backends.base import Build, by_catalog, in_catalog, lazily
from mainspring.project.ledger_folder import ledger_folder

EVALUATIONS: Mapping[str, Build] = in_catalog("delivery", "CatalogEvaluations", "gateway")
ROLLOUTS: Mapping[str, Build] = in_catalog("delivery", "CatalogRollouts", "gateway")
BASELINES: Mapping[str, Build] = in_catalog("serving", "CatalogBaselines", "gateway")
SIMULATIONS: Mapping[str, Build] = in_catalog("serving", "CatalogSimulations", "gateway")
ROUTES: Mapping[str, Build] = {
    **in_catalog("serving", "CatalogRoutes", "gateway"),
    "sealed": lambda at: lazily("serving.adapters.sealed", "SealedRoutes", extra="gateway")(at.url.path),
}
PREDICTION_LOGS: Mapping[str, Build] = {
    "file": lambda at: lazily("ledger.adapters.segments", "SegmentLog", extra="gateway")(
        ledger_folder(at.project.settings), at.project.sealer
    ),
    "memory": lambda at: at.project.predictions,
}
PREDICTIONS: Mapping[str, Build] = {
    "file": lambda at: lazily("ledger.adapters.lake", "LakePredictions", extra="local")(
        ledger_folder(at.project.settings, claim=not at.project.reads_only),
        at.project.lake,
        at.project.own_locks,
        at.project.opener,
        observer=at.project.sketching,
    ),
    "memory": lambda at: lazily("ledger.adapters.memory", "MemoryLedger", extra="local")(at.project.sketching),
}
MOVED_LOGS: Mapping[str, Build] = by_catalog(
    lambda at: lazily("ledger.adapters.moved_logs", "CatalogMovedLogs", extra="gateway")(at.project.engine)
)
FLEET_STORES: Mapping[str, Build] = by_catalog(
    lambda at: lazily("deploy.adapters.fleet_catalog", "CatalogFleet", extra="gateway")(at.project.engine)
)
BROKERS: Mapping[str, Build] = dict.fromkeys(
    ("mqtt", "mqtts"),
    lambda at: lazily("deploy.adapters.mqtt", "MqttMessages", extra="edge")(at.url, at.project.settings.scope),
)
JOB_STORES: Mapping[str, Build] = by_catalog(
    lambda at: lazily("jobs.adapters.catalog", "CatalogJobs", extra="gateway")(
        at.project.engine, partial(ring, at.state)
    )
)
