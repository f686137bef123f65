"""The devices of a process that serves: its share of the machine's GPUs, as the profile and the environment say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from mainspring.core.cards import Card, cards, use_of
from mainspring.core.environment import cuda_variables, set_variable
from mainspring.project.backends.base import lazily
from mainspring.serving.devices.choosing import NONE, VISIBLE, Place, choose, mps_of
from mainspring.serving.devices.device import Device, DeviceUnusable

if TYPE_CHECKING:
    from mainspring.core.settings import Settings
    from mainspring.project import Project
    from mainspring.serving.plane.placement import Devices
    from mainspring.serving.ports import DeviceExecutors


def devices_of(
    settings: Settings, slot: int, found: Sequence[Card], environment: Mapping[str, str]
) -> tuple[Device, ...]:
    """Return the devices of the process in a slot, the gateway's first and then those of gRPC.

    Raises:
        Invalid: A declared device is not there, or cannot be used so.
    """
    return choose(
        found,
        settings.gateway_devices,
        environment,
        Place(slot, settings.serving_processes),
        bound=settings.gateway_device_memory,
        mps=mps_of(environment),
    )


def none_reason(settings: Settings, found: Sequence[Card]) -> DeviceUnusable:
    """Return the reason why a process has no device."""
    if list(settings.gateway_devices) == [NONE]:
        return DeviceUnusable(
            f"The profile {settings.profile!r} has no devices.", fix="name some in `devices` of its table `gateway`."
        )
    if found:
        return DeviceUnusable(f"{VISIBLE} hides all {len(found)} GPUs.", fix="name those to use there.")
    return DeviceUnusable(
        "This machine has no NVIDIA GPU, or not its driver.",
        fix='see `nvidia-smi -L`, or write device="auto" or "cpu".',
    )


def available_providers() -> Sequence[str]:
    """Return the providers that the installed ONNX Runtime was built with.

    Raises:
        MissingExtra: It is not installed.
    """
    found: Sequence[str] = lazily("serving.adapters.sessions", "available_providers", extra="gateway")()
    return found


def devices(project: Project, slot: int = 0, process: str = "") -> Devices:
    """Return the devices of this process. They are looked for when the first endpoint asks for one, and CUDA, which has
    not begun before, is told to show them alone: another process's GPU takes no memory for this one's context.

    Args:
        process: Its name in the log of decisions; empty for a process whose decisions are in none.
    """
    from mainspring.project.executors import limits
    from mainspring.project.model_memory import decisions
    from mainspring.serving.adapters.residency_files import FileSizes
    from mainspring.serving.plane.placement import Devices
    from mainspring.serving.residency.memory import Decisions, MemoryDecisions

    def find() -> tuple[Device, ...]:
        there = cards()
        found = devices_of(project.settings, slot, there, cuda_variables())
        if not found:
            raise none_reason(project.settings, there)
        set_variable(VISIBLE, ",".join(each.uuid for each in found))
        return found

    @cache
    def executors() -> DeviceExecutors:
        made: DeviceExecutors = lazily("serving.adapters.device_models", "DeviceModels", extra="gateway")(
            limits(project)
        )
        return made

    def log(device: str) -> Decisions:
        return decisions(project.settings, f"{process}, {device}") if process else MemoryDecisions()

    return Devices(executors, find, use_of, FileSizes(project.settings.state), log)
