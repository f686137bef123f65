"""The devices of a process: a pure function of the GPUs, the profile, the environment, and the process's place.

The rules are CUDA's: a process that sees a MIG instance sees that one alone; `CUDA_VISIBLE_DEVICES` hides what it does
not name (https://docs.nvidia.com/cuda/cuda-c-programming-guide, environment variables); MPS lets processes compute at
the same time, and may limit their memory (https://docs.nvidia.com/deploy/mps).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

from mainspring.core.cards import Card
from mainspring.core.errors import Invalid
from mainspring.serving.devices.device import CUDA, Device

ALL, NONE = "all", "none"
VISIBLE, ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"
PIPES, PERCENTAGE, PINNED = (
    "CUDA_MPS_PIPE_DIRECTORY",
    "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE",
    "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT",
)
SHARE = 0.9  # of a device's memory is for models where the profile sets no other bound
_PIPES = "/tmp/nvidia-mps"  # noqa: S108 - where the daemon of MPS is by default
_DECLARED = re.compile(r"cuda:\d{1,3}(/mig:\d{1,2})?|(GPU|MIG)-[0-9a-fA-F-]{4,}")
_UNITS = {"K": 10, "M": 20, "G": 30, "T": 40}
_SIZE = re.compile(r"(\d+)([KMGT])B?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Mps:
    """NVIDIA's multi-process service, as this process would use it.

    Attributes:
        percentage: Of the processors of a GPU that this process may use; `None` without a limit.
        limits: Ordinal or UUID of a device -> bytes that this process may take there.
    """

    percentage: float | None = None
    limits: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a process among those that serve."""

    slot: int = 0
    slots: int = 1


def check_declared(devices: Sequence[str]) -> None:
    """Raise if the profile names devices in another form.

    Raises:
        Invalid: It does.
    """
    for each in devices:
        if each in (ALL, NONE):
            if len(devices) > 1:
                raise Invalid(f"gateway_devices is {list(devices)}.", fix=f'write ["{each}"] alone, or name devices.')
        elif not _DECLARED.fullmatch(each):
            raise Invalid(
                f"gateway_devices has {each!r}.",
                fix='write "cuda:0", "cuda:0/mig:1", a UUID of `nvidia-smi -L`, or ["all"] or ["none"].',
            )


def mps_of(environment: Mapping[str, str]) -> Mps | None:
    """Return the multi-process service that CUDA would use; `None` if its daemon does not run.

    Raises:
        Invalid: A limit cannot be read.
    """
    if not (Path(environment.get(PIPES) or _PIPES) / "control").exists():
        return None
    share, limits = environment.get(PERCENTAGE, ""), {}
    for each in filter(None, environment.get(PINNED, "").split(",")):
        device, _, size = each.partition("=")
        found = _SIZE.fullmatch(size.strip())
        if found is None:
            raise Invalid(f"{PINNED} has {each!r}.", fix='write "0=4G", as for MPS.')
        limits[device.strip()] = int(found[1]) << _UNITS[found[2].upper()]
    try:
        return Mps(float(share) if share else None, limits)
    except ValueError:
        raise Invalid(f"{PERCENTAGE} is {share!r}.", fix="write a number from 0 to 100.") from None


def choose(
    cards: Sequence[Card],
    declared: Sequence[str],
    environment: Mapping[str, str],
    place: Place = Place(),
    *,
    bound: int | None = None,
    mps: Mps | None = None,
) -> tuple[Device, ...]:
    """Return the devices of a process.

    As many processes as there are devices have one each; more share them by turns, fewer have several each.

    Args:
        declared: `gateway_devices` of the profile; empty stands for all.
        bound: Bytes of each device for models, of all processes together; by default nine tenths of its memory.

    Raises:
        Invalid: A declared device is not there, or is not visible, or cannot be used so.
    """
    candidates, seen = _candidates(cards), _visible(cards, environment)
    if list(declared) == [NONE]:
        return ()
    every = not declared or list(declared) == [ALL]
    found: dict[str, Device] = {}
    for name in [f"{CUDA}:{each.number}" for each in cards] if every else declared:
        matching = [each for each in candidates if _matches(name, each)]
        shown = [each for each in matching if each.uuid in seen]
        if not shown and every and VISIBLE in environment:
            continue
        if not matching:
            raise _unknown(name, cards, candidates)
        if not shown:
            raise Invalid(
                f"{name} is hidden by {VISIBLE}={environment.get(VISIBLE)!r}.",
                fix="name it there, or leave it out of gateway_devices.",
            )
        found |= {each.name: each for each in shown}
    for each in found.values():
        _check_card(next(card for card in cards if _within(card, each)))
    return _own([*found.values()], cards, place, bound, mps)


def _own(
    devices: Sequence[Device], cards: Sequence[Card], place: Place, bound: int | None, mps: Mps | None
) -> tuple[Device, ...]:
    count = len(devices)
    if not count:
        return ()
    if place.slots >= count:
        own = [devices[place.slot % count]]
        shared = len(range(place.slot % count, place.slots, count))
    else:
        own, shared = [*devices[place.slot :: place.slots]], 1
    if len(own) > 1 and any(each.mig for each in own):
        raise Invalid(
            f"A process sees one MIG instance alone, and {len(own)} devices are for each: "
            f"{', '.join(each.name for each in own)}.",
            fix=f"set gateway_workers = {count}, or name one device for each process in gateway_devices.",
        )
    exclusive = [each.name for each in own if _card_of(cards, each).mode == "exclusive"]
    if exclusive and shared > 1 and mps is None:
        raise Invalid(
            f"{exclusive[0]} is for one process at a time (compute mode exclusive), and {shared} serve from it.",
            fix="start MPS (nvidia-cuda-mps-control -d), set `nvidia-smi -c DEFAULT`, or have fewer gateway_workers.",
        )
    return tuple(
        replace(each, ordinal=ordinal, shared_by=shared, memory=_memory(each, ordinal, shared, bound, mps))
        for ordinal, each in enumerate(own)
    )


def _memory(device: Device, ordinal: int, shared: int, bound: int | None, mps: Mps | None) -> int:
    """Return the bytes of one of `shared` processes."""
    usual = int(device.memory * SHARE)
    found = (usual if bound is None else min(bound, device.memory)) // shared
    limits = (mps.limits if mps is not None else None) or {}
    of_mps = [limits[each] for each in (str(ordinal), device.uuid) if each in limits]
    return min([found, *(int(each * SHARE) for each in of_mps)])


def _candidates(cards: Sequence[Card]) -> list[Device]:
    found = []
    for card in cards:
        name = f"{CUDA}:{card.number}"
        if not card.mig:
            found.append(Device(name, card.uuid, card.name, 0, card.memory))
        for place, each in enumerate(card.instances if card.mig else ()):
            found.append(Device(f"{name}/mig:{place}", each.uuid, each.name or card.name, 0, each.memory, mig=True))
    return found


def _matches(name: str, device: Device) -> bool:
    """Return whether a declared name stands for a device: exactly, by the beginning of its UUID, or by its GPU."""
    by_uuid = name[:4] in ("GPU-", "MIG-") and device.uuid.lower().startswith(name.lower())
    return name == device.name or by_uuid or device.name.startswith(f"{name}/")


def _visible(cards: Sequence[Card], environment: Mapping[str, str]) -> set[str]:
    """Return the UUIDs of the devices that CUDA would show."""
    candidates, text = _candidates(cards), environment.get(VISIBLE)
    if text is None:
        return {each.uuid for each in candidates}
    tokens = [each.strip() for each in text.split(",")]
    by_speed = environment.get(ORDER) != "PCI_BUS_ID" and len({each.name for each in cards}) > 1
    if by_speed and any(each.isdigit() for each in tokens):
        raise Invalid(
            f"{VISIBLE}={text!r} counts the GPUs by their speed, and they differ.",
            fix=f"name their UUIDs (nvidia-smi -L), or set {ORDER}=PCI_BUS_ID.",
        )
    named = [_shown(each, candidates) for each in tokens]
    return {each.uuid for each in takewhile(bool, named) if each is not None}  # CUDA reads to the first unknown one


def _shown(token: str, candidates: Sequence[Device]) -> Device | None:
    if token.isdigit():
        name = f"{CUDA}:{int(token)}"
        return next((each for each in candidates if each.name in (name, f"{name}/mig:0")), None)
    if token[:4] not in ("GPU-", "MIG-"):
        return None
    found = [each for each in candidates if each.uuid.lower().startswith(token.lower())]
    return found[0] if len(found) == 1 else None


def _unknown(name: str, cards: Sequence[Card], candidates: Sequence[Device]) -> Invalid:
    empty = next((card for card in cards if card.mig and not card.instances and _names(name, card)), None)
    if empty is not None:
        return Invalid(
            f"GPU {empty.number} has MIG enabled and no instance, so nothing can compute on it.",
            fix=f"create one (nvidia-smi mig -i {empty.number} -cgi 0 -C), disable MIG (nvidia-smi -i {empty.number} "
            "-mig 0), or name other devices in gateway_devices.",
        )
    known = ", ".join(f"{each.name} ({each.model})" for each in candidates) or "none"
    return Invalid(f"There is no device {name}; this machine has {known}.", fix="correct gateway_devices.")


def _names(name: str, card: Card) -> bool:
    return name == f"{CUDA}:{card.number}" or card.uuid.lower().startswith(name.lower())


def _within(card: Card, device: Device) -> bool:
    return device.uuid == card.uuid or any(each.uuid == device.uuid for each in card.instances)


def _card_of(cards: Sequence[Card], device: Device) -> Card:
    return next(card for card in cards if _within(card, device))


def _check_card(card: Card) -> None:
    if card.mode == "prohibited":
        raise Invalid(
            f"GPU {card.number} lets no process compute (compute mode prohibited).",
            fix=f"set `nvidia-smi -i {card.number} -c DEFAULT`, or name other devices in gateway_devices.",
        )
