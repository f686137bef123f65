"""A fleet: a project's control, its repository and its broker, and devices whose clock a test moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kit.edge_packages import KEY, NAME, Site, Sum, site
from kit.mosquitto import Broker, broker
from kit.waiting import wait_until
from mainspring.core.ids import new_id
from mainspring.core.settings import Url
from mainspring.deploy.adapters.fleet_catalog import CatalogFleet
from mainspring.deploy.adapters.mqtt import MqttMessages
from mainspring.deploy.fleet.control import FleetControl
from mainspring.deploy.fleet.model import Device, Gates, Rollout
from mainspring.project.catalog import memory_catalog
from mainspring_edge.agent import Agent, Setup
from mainspring_edge.health import Limits
from mainspring_edge.memory import device_key

PROJECT = "depots"
GATES = Gates(least_healthy=0.9, least_tried=0.8, soak_us=0, least_rows=20)
LIMITS = Limits(trial_s=0.3, least_rows=5)


@dataclass
class Fleet:
    """A running fleet."""

    folder: Path
    site: Site
    broker: Broker
    control_url: str = ""
    agents: dict[str, Agent] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.engine = memory_catalog()
        self.store = CatalogFleet(self.engine)
        self.messages = MqttMessages(Url(self.broker.url), PROJECT)
        self.control = FleetControl(PROJECT, self.store, self.messages, KEY, self.site.now)

    def setup(self, device: str, **changed: Any) -> Setup:
        made = Setup(
            project=PROJECT, device=device, package=NAME, key=KEY.public.hex(),
            root=self.site.repository.first_root(), repository=self.site.url, broker=self.broker.address(device),
            ca=self.site.ca, report_every_s=0.5, upload_every_s=0.2, limits=LIMITS, control=self.control_url,
        )  # fmt: skip
        return replace(made, **changed)

    def add(
        self, device: str, *, folder: Path | None = None, register: bool = True, now: Any = None, **changed: Any
    ) -> Agent:
        """Register a device and start it."""
        folder = folder or self.folder / "devices" / device
        if register:
            key = device_key(folder).public_key().public_bytes_raw().hex()
            self.store.add(Device(id=device, package=NAME, key=key, added_at=self.site.now()))
        made = Agent(folder, self.setup(device, **changed), Sum, now=now or self.site.now)
        self.agents[device] = made
        return made

    def roll(
        self, version: int, rings: Sequence[float] = (1.0,), gates: Gates = GATES, id: str | None = None
    ) -> Rollout:
        before = self.store.rollouts(NAME, 1)
        now = self.site.now()
        return self.store.begin(
            Rollout(
                id=id or new_id(), package=NAME, candidate=version, fallback=before[0].current if before else None,
                rings=tuple(rings), gates=gates, actor="ana", started_at=now, since=now,
            )
        )  # fmt: skip

    def turn(self) -> None:
        """Let every device and the control do one pass."""
        for each in self.agents.values():
            each.tick()
        self.control.tick()

    def until(self, done: Callable[[], bool]) -> None:
        def step() -> bool:
            self.turn()
            return done()

        wait_until(step, "the fleet")

    @property
    def rollout(self) -> Rollout:
        return self.store.rollouts(NAME, 1)[0]

    def versions(self) -> dict[str, int | None]:
        return {name: each.version for name, each in self.agents.items()}

    def close(self) -> None:
        for each in self.agents.values():
            each.close()
        self.messages.close()
        self.engine.dispose()


@contextmanager
def fleet(folder: Path, devices: Sequence[str], **changed: Any) -> Iterator[Fleet]:
    """Run a fleet whose devices run version 1."""
    with site(folder / "site") as repository, broker(folder / "broker", PROJECT, devices) as mqtt:
        repository.publish(1)
        made = Fleet(folder, repository, mqtt, **changed)
        try:
            yield made
        finally:
            made.close()
