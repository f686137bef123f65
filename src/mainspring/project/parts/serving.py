"""Jobs, routes, rollouts, the prediction log, devices, and what all of it used."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from mainspring.core.errors import Invalid, NotFound
from mainspring.project.backends import cost, targets
from mainspring.project.backends import serving as backends
from mainspring.project.parts.cached import cached_property
from mainspring.project.parts.retrieval import RetrievalParts

if TYPE_CHECKING:
    from mainspring.cost.metering import Metering
    from mainspring.cost.ports import UsageStore
    from mainspring.delivery.ports import Evaluations, RolloutStore
    from mainspring.deploy.edge.repository import Repository
    from mainspring.deploy.fleet.ports import FleetStore, Messages
    from mainspring.deploy.targets.ports import Records, Target
    from mainspring.jobs.ports import JobStore
    from mainspring.ledger.moved_logs import MovedLogs
    from mainspring.ledger.ports import PredictionLog, PredictionStore
    from mainspring.project.composition import Project
    from mainspring.serving.ports import Baselines, Routes, Simulations


class ServingParts(RetrievalParts):
    """Jobs, routes, rollouts, the prediction log, devices, and what all of it used."""

    @cached_property
    def jobs(self) -> JobStore:
        built: JobStore = self._build("jobs", backends.JOB_STORES, self.settings.catalog)
        return built

    @cached_property
    def usage(self) -> UsageStore:
        built: UsageStore = self._build("usage", cost.USAGE_STORES, self.settings.catalog)
        return built

    @cached_property
    def metering(self) -> Metering:
        """Meter of this process's work."""
        from mainspring.cost.metering import Metering
        from mainspring.project.running import belongs_to_up, machine_name

        return Metering(lambda: self.usage, self.wall, machine_name(), lambda: belongs_to_up(self.settings.state))

    @cached_property
    def routes(self) -> Routes:
        built: Routes = self._build("routes", backends.ROUTES, self.settings.catalog)
        return built

    @cached_property
    def evaluations(self) -> Evaluations:
        built: Evaluations = self._build("evaluations", backends.EVALUATIONS, self.settings.catalog)
        return built

    @cached_property
    def rollouts(self) -> RolloutStore:
        built: RolloutStore = self._build("rollouts", backends.ROLLOUTS, self.settings.catalog)
        return built

    @cached_property
    def baselines(self) -> Baselines:
        built: Baselines = self._build("baselines", backends.BASELINES, self.settings.catalog)
        return built

    @cached_property
    def simulations(self) -> Simulations:
        built: Simulations = self._build("simulations", backends.SIMULATIONS, self.settings.catalog)
        return built

    @cached_property
    def prediction_log(self) -> PredictionLog:
        built: PredictionLog = self._build("prediction_log", backends.PREDICTION_LOGS, self.settings.ledger)
        return built

    @cached_property
    def predictions(self) -> PredictionStore:
        built: PredictionStore = self._build("predictions", backends.PREDICTIONS, self.settings.ledger)
        return built

    @cached_property
    def moved_logs(self) -> MovedLogs:
        """States of the prediction logs of machines without a worker."""
        built: MovedLogs = self._build("moved_logs", backends.MOVED_LOGS, self.settings.catalog)
        return built

    @cached_property
    def deployed(self) -> Records:
        """Records of what was deployed to targets."""
        built: Records = self._build("deployed", targets.RECORDS, self.settings.catalog)
        return built

    def target(self, name: str) -> Target:
        """Return a target of the project's file.

        Raises:
            NotFound: The file has no such target.
            Invalid: Its kind or an option is unknown.
        """
        setting = self.settings.targets.get(name)
        if setting is None:
            known = ", ".join(sorted(self.settings.targets))
            raise NotFound(
                f"The project has no target {name!r}.",
                fix=f"it has {known}."
                if known
                else f'write [targets.{name}] with a kind in mainspring.toml: kind = "systemd".',
            )
        if setting.kind not in targets.KINDS:
            raise Invalid(
                f"Target {name!r} has the kind {setting.kind!r}.",
                fix=f"write one of {', '.join(sorted(targets.KINDS))}.",
            )
        return targets.KINDS[setting.kind](cast("Project", self), setting)

    @cached_property
    def fleet(self) -> FleetStore:
        """Devices and rollouts over them."""
        built: FleetStore = self._build("fleet", backends.FLEET_STORES, self.settings.catalog)
        return built

    @cached_property
    def broker(self) -> Messages:
        """Messages to and from devices.

        Raises:
            Invalid: The profile names no broker.
        """
        if self.settings.fleet is None:
            raise Invalid(
                f"Profile {self.settings.profile!r} has no broker for devices.",
                fix="set MAINSPRING_FLEET to mqtts://user:password@host:port.",
            )
        built: Messages = self._build("broker", backends.BROKERS, self.settings.fleet)
        return built

    @cached_property
    def packages(self) -> Repository:
        """The repository from which devices update."""
        from mainspring.deploy.edge.repository import Repository

        state = self.settings.state
        return Repository(
            state / "edge" / "repository", state / "keys", self.own_locks, self.wall.now,
            root_key=self.settings.fleet_root_key,
        )  # fmt: skip
