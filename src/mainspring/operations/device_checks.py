"""Devices of the gateway: what the machine has, what endpoints ask for, and what they run on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import msgspec

from mainspring.core.cards import Card, cards
from mainspring.core.environment import cuda_variables
from mainspring.core.errors import Invalid
from mainspring.operations.findings import Finding, well
from mainspring.project import Project
from mainspring.project.devices import available_providers, devices_of, none_reason
from mainspring.registry.model import ModelVersion
from mainspring.registry.providers import package_of, provider_of
from mainspring.serving.devices.choosing import mps_of
from mainspring.serving.devices.device import AUTO, CPU, CUDA, ON_GPUS, PROVIDERS
from mainspring.serving.model import Endpoint

_CHECK = "devices"


class DeviceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The device of one version behind an endpoint, in so many processes.

    Attributes:
        version: Empty of a version that is not served.
        asked: As the endpoint declares it.
        device: `cpu`, or a device such as `cuda:0`; empty of a version that is not served, whose reason is given.
        reason: Why it is the processor, if another one was asked for.
        operators: Of the model's graph; null where the runtime does not tell.
        on_processor: Those among them that the processor computes.
    """

    version: str
    asked: str
    device: str
    processes: int
    reason: str = ""
    operators: int | None = None
    on_processor: int | None = None

    def said(self) -> str:
        """Return it in words."""
        if not self.device:
            return self.reason
        if self.device == CPU:
            return f"version {self.version} runs on the processor: {self.reason}"
        part = f", {self.on_processor} of {self.operators} operators on the processor" if self.on_processor else ""
        return f"version {self.version} runs on {self.device}{part}"


def device_statuses(project: Project, endpoint: str, texts: Mapping[int, bytes]) -> list[DeviceStatus]:
    """Return the devices that an endpoint runs on, but for what was to run on the processor and does.

    Args:
        texts: Numbers of the processes that serve, as of `slots.numbers`.
    """
    from mainspring.serving.plane.metrics import DEVICE, NODES

    declared = project.definitions.endpoint(endpoint).device
    found: dict[tuple[str, str, str, str], int] = {}
    nodes: dict[str, dict[str, int]] = {}
    for name, told, value in _samples(texts, endpoint):
        if name == NODES:
            nodes.setdefault(told["version"], {})[told["provider"]] = int(value)
        elif declared != CPU or (name == DEVICE and told["device"] != CPU):
            known = [told.get(each, "") for each in ("version", "asked", "device")]
            key = (known[0], known[1] or declared, known[2], told["reason"])
            found[key] = found.get(key, 0) + 1
    return [
        DeviceStatus(
            version=version, asked=asked, device=device, processes=count, reason=reason,
            operators=sum(nodes[version].values()) if device != CPU and version in nodes else None,
            on_processor=nodes[version].get("CPUExecutionProvider", 0) if device != CPU and version in nodes else None,
        )
        for (version, asked, device, reason), count in sorted(found.items())
    ]  # fmt: skip


def _samples(texts: Mapping[int, bytes], endpoint: str) -> Iterator[tuple[str, Mapping[str, str], float]]:
    """Yield what processes say of an endpoint's devices: the name of a number, its labels and its value."""
    from prometheus_client.parser import text_string_to_metric_families

    from mainspring.serving.plane.metrics import DEVICE, NODES, REFUSED

    wanted = tuple(f"{name}{{".encode() for name in (DEVICE, NODES, REFUSED))
    for text in texts.values():
        lines = b"\n".join(line for line in text.split(b"\n") if line.startswith(wanted)) + b"\n"
        for family in text_string_to_metric_families(lines.decode(errors="replace")):
            for each in family.samples:
                if each.labels["endpoint"] == endpoint:
                    yield each.name, each.labels, each.value


def check_devices(
    project: Project,
    gpus: Callable[[], Sequence[Card]] = cards,
    environment: Callable[[], Mapping[str, str]] = cuda_variables,
    providers: Callable[[], Sequence[str]] = available_providers,
) -> Iterator[Finding]:
    """Yield the findings, if an endpoint asks for a device or the profile names some.

    Args:
        gpus: Returns those of this machine.
        environment: Returns that of processes that serve.
        providers: Returns those of the runtime.
    """
    asking = {each.name: each.device for each in project.definitions.endpoints.values() if each.device != CPU}
    if not asking and not project.settings.gateway_devices:
        return
    try:
        yield from _lacking(asking, providers())
        yield from _machine(project, gpus(), environment(), asking)
    except Invalid as error:
        yield Finding(check=_CHECK, ok=False, detail=error.what, fix=error.fix or "")
    from mainspring.serving.plane import slots

    texts = slots.numbers(slots.folder(project.settings.state))
    for name in sorted(asking):
        for each in device_statuses(project, name, texts):
            if each.device:  # what is not served is for the check of endpoints
                yield well(_CHECK, f"endpoint {name}: {each.said()}")


def check_provider(project: Project, version: ModelVersion, endpoints: Collection[Endpoint]) -> None:
    """Raise if endpoints would serve a version that was made for an execution provider which is not here, so that
    neither its gates nor its answers could be looked at.

    Raises:
        Invalid: So it is.
        Corrupt: The bundle is damaged.
    """
    provider = provider_of(project.bundles.load(version.digest).manifest) if endpoints else ""
    if not provider or provider in (here := available_providers()):
        return
    raise Invalid(
        f"Version {version.version} of {version.model!r} is sealed for {provider}, and ONNX Runtime has "
        f"{', '.join(here)} here.",
        fix=f"do this on a machine that has it, or install {package_of(provider)} in place of onnxruntime.",
    )


def _lacking(asking: Mapping[str, str], providers: Sequence[str]) -> Iterator[Finding]:
    for kind in sorted(set(asking.values()) - {AUTO}):
        if PROVIDERS[kind][0] not in providers:
            yield Finding(
                check=_CHECK,
                ok=False,
                detail=f"endpoints ask for {kind}, and ONNX Runtime has no {PROVIDERS[kind][0]}",
                fix=f"install {package_of(PROVIDERS[kind][0])} in place of onnxruntime",
            )


def _machine(
    project: Project, found: Sequence[Card], environment: Mapping[str, str], asking: Mapping[str, str]
) -> Iterator[Finding]:
    settings = project.settings
    processes = [devices_of(settings, slot, found, environment) for slot in range(settings.serving_processes)]
    if not processes[0]:
        reason = none_reason(settings, found)
        needed = sorted(name for name, kind in asking.items() if kind in ON_GPUS)
        detail = f"{reason.what} Endpoints that ask for one: {', '.join(needed or sorted(asking)) or 'none'}"
        yield Finding(check=_CHECK, ok=not needed, detail=detail, fix=(reason.fix or "") if needed else "")
        return
    mps = mps_of(environment)
    if mps is not None:
        share = f", which gives a process {mps.percentage:g} % of a GPU" if mps.percentage is not None else ""
        yield well(_CHECK, f"processes share GPUs through MPS{share}")
    seen = {each.name: each for own in processes for each in own}
    for name, each in sorted(seen.items()):
        count = f"{each.shared_by} processes" if each.shared_by > 1 else "a process"
        yield well(_CHECK, f"{name} ({each.model}) has {each.memory:,} bytes for the models of {count}")
    unused = [f"{CUDA}:{card.number}" for card in found if not any(_on(card, name) for name in seen)]
    if unused:
        yield well(_CHECK, f"not used by the gateway: {', '.join(unused)}")


def _on(card: Card, name: str) -> bool:
    return name.partition("/")[0] == f"{CUDA}:{card.number}"
