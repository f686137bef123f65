"""Upstreams of language models as the gateway's processes on this machine see them now."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from mainspring.llm.upstream_states import IN_FLIGHT, UP, WAITING
from mainspring.project import Project
from mainspring.serving.plane.slots import folder, numbers

_ACTS = "mainspring_llm_guard_acts"
_NAMES = (UP, WAITING, IN_FLIGHT)


@dataclass(frozen=True, slots=True)
class UpstreamHealth:
    """An upstream of a language model, by all processes that answer.

    Attributes:
        up: Processes that send calls to it; `probing` those that probe whether it is well again, `resting` those that
            send none.
        waiting: Calls in its queues. `in_flight`: tokens of calls under way.
    """

    up: int = 0
    probing: int = 0
    resting: int = 0
    waiting: int = 0
    in_flight: int = 0

    @property
    def state(self) -> str:
        """ "up", "probed", "resting", or "partly resting" where processes differ."""
        if not self.resting and not self.probing:
            return "up"
        if self.up:
            return "partly resting"
        return "probed" if self.probing else "resting"


@dataclass(frozen=True, slots=True)
class GuardActs:
    """Acts of a language model's guard since the gateway's processes began."""

    rule: str
    outcome: str
    count: int


def guard_acts(project: Project, model: str) -> list[GuardActs]:
    """Return what the guard of a language model did, the most frequent first. It asks each process."""
    sums: dict[tuple[str, str], int] = {}
    for text in numbers(folder(project.settings.state)).values():
        for family in text_string_to_metric_families(text.decode()):
            for sample in family.samples if family.name == _ACTS else ():
                if sample.name == f"{_ACTS}_total" and sample.labels["model"] == model:
                    key = (sample.labels["rule"], sample.labels["outcome"])
                    sums[key] = sums.get(key, 0) + round(sample.value)
    found = [GuardActs(rule, outcome, count) for (rule, outcome), count in sums.items()]
    return sorted(found, key=lambda each: (-each.count, each.rule, each.outcome))


def upstream_health(project: Project) -> dict[tuple[str, str], UpstreamHealth]:
    """Return (language model, upstream) -> its health; empty where no gateway answers. It asks each process."""
    sums: dict[tuple[str, str], list[int]] = {}
    for text in numbers(folder(project.settings.state)).values():
        for family in text_string_to_metric_families(text.decode()):
            if family.name not in _NAMES:
                continue
            for sample in family.samples:
                of = sums.setdefault((sample.labels["model"], sample.labels["upstream"]), [0] * 5)
                if family.name == UP:
                    of[0 if sample.value == 1 else 1 if sample.value else 2] += 1
                else:
                    of[3 if family.name == WAITING else 4] += round(sample.value)
    return {key: UpstreamHealth(*found) for key, found in sums.items()}
