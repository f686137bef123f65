"""Gateway processes of this machine as they serve an endpoint: which route each obeys, and what it cannot load."""

from __future__ import annotations

import msgspec

from mainspring.delivery.rollout.model import RolloutState
from mainspring.project import Project
from mainspring.project.running import read_running


class GatewayReport(msgspec.Struct, frozen=True, kw_only=True):
    """One gateway process, as it serves an endpoint now.

    Attributes:
        process: Name of the process and of its log, such as "gateway-1".
        revision: Revision of the routing table that its route is of; `None` while it serves no route of the endpoint.
        versions: Versions that it has loaded for the endpoint.
        trouble: Reason why it cannot serve the newest route, empty if it can.
    """

    process: str
    revision: int | None
    versions: tuple[str, ...]
    trouble: str = ""


def gateways(project: Project, endpoint: str) -> tuple[GatewayReport, ...]:
    """Return the gateway processes of this machine that answer. Takes up to a second for each that hangs."""
    from prometheus_client.parser import text_string_to_metric_families

    from mainspring.serving.plane import slots
    from mainspring.serving.plane.metrics import REFUSED, REVISION, SERVED

    found = []
    for slot, text in slots.numbers(slots.folder(project.settings.state)).items():
        samples = [
            sample
            for family in text_string_to_metric_families(text.decode(errors="replace"))
            if family.name in (SERVED, REVISION, REFUSED)
            for sample in family.samples
            if sample.labels["endpoint"] == endpoint
        ]
        revisions = [int(sample.value) for sample in samples if sample.name == REVISION]
        found.append(
            GatewayReport(
                process=_name(project, slot),
                revision=revisions[0] if revisions else None,
                versions=tuple(sorted(sample.labels["version"] for sample in samples if sample.name == SERVED)),
                trouble=next((sample.labels["reason"] for sample in samples if sample.name == REFUSED), ""),
            )
        )
    return tuple(found)


def unready(project: Project, state: RolloutState) -> tuple[str, str]:
    """Return why gateway processes cannot serve the candidate of a rollout, and which have yet to load it.

    A candidate of a chain of answers is opened with its first question.
    """
    if state.endpoint in project.definitions.answers:
        return "", ""
    without = [each for each in gateways(project, state.endpoint) if state.candidate not in each.versions]
    unable = [f"{each.process} cannot load it: {each.trouble}" for each in without if each.trouble]
    waiting = [each.process for each in without if not each.trouble]
    return "; ".join(unable), ", ".join(waiting)


def _name(project: Project, slot: int) -> str:
    """Return the name of the process in a slot: after those of the gateway come those of gRPC."""
    running = read_running(project.settings.state)
    names = [] if running is None else [name for name in running.children if name.partition("-")[0] == "gateway"]
    workers = len(names) or project.settings.gateway_workers
    part, number = ("gateway", slot) if slot < workers else ("grpc", slot - workers)
    return part if number == 0 else f"{part}-{number}"
