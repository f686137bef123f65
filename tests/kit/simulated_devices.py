"""Many devices in one process: real agents with real files and connections, of which some are off, slow or failing."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kit.edge_packages import Sum
from mainspring_edge.agent import Agent, Setup
from mainspring_edge.errors import SelfTestFailed


@dataclass(frozen=True)
class Behaviour:
    """How each device behaves: by default it is on, quick and well. Slow ones tick every `slow_s`, others 15 times."""

    slow_s: float
    off: frozenset[str] = frozenset()  # until the file `on` is there
    slow: frozenset[str] = frozenset()
    failing: frozenset[str] = frozenset()  # version 2 fails its self-test there


class Fails(Sum):
    """Version 2 does not reproduce its golden rows on this device."""

    def self_test(self) -> None:
        super().self_test()
        if self.version == 2:
            raise SelfTestFailed("Row 0 of the golden rows gives 2.0, not 1.0.")


def simulate(devices: Sequence[str], folder: Path, setup: Setup, broker: str, behaviour: Behaviour) -> None:
    """Run devices in `folder` until a file `stop` is there. `broker` is the address with `{}` for user and password."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    agents: dict[str, Agent] = {}
    due = dict.fromkeys(devices, 0.0)
    while not (folder / "stop").exists():
        on = (folder / "on").exists()
        for each in devices:
            if each in behaviour.off and not on:
                continue
            if each not in agents:
                mine = replace(setup, device=each, broker=broker.format(each, each[::-1]))
                load: Any = Fails if each in behaviour.failing else Sum
                agents[each] = Agent(folder / each, mine, load)
            if time.monotonic() >= due[each]:
                due[each] = time.monotonic() + behaviour.slow_s / (1 if each in behaviour.slow else 15)
                agents[each].tick()
                if agents[each].version is not None:
                    _predict(agents[each])
        time.sleep(0.02)
    for agent in agents.values():
        agent.close()


def _predict(agent: Agent) -> None:
    try:
        agent.predict([{"x": 1.0}])
    except ValueError:  # the model of a bad version
        return
