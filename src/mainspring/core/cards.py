"""GPUs of this machine as programs compute on them: whole, or as MIG instances, each with a memory of its own.

They are read from NVML, as in `core.gpus`; a description has the same fields. MIG came with drivers of 2020
(https://docs.nvidia.com/datacenter/tesla/mig-user-guide).
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

import msgspec

from mainspring.core.gpus import NVML, Memory, opened

_MODES = {2: "prohibited", 3: "exclusive"}  # NVML_COMPUTEMODE_*; 1 was removed
_MOST_TOLD = 1024  # processes of a GPU
_NOT_TOLD = (1 << 64) - 1  # NVML_VALUE_NOT_AVAILABLE


class MigInstance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of a GPU that programs see as a device. `memory`: bytes."""

    uuid: str
    memory: int
    name: str = ""


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A GPU.

    Attributes:
        number: As NVML counts, from 0: by PCI address.
        memory: Bytes.
        mig: Whether MIG is enabled: then programs see the instances alone.
        mode: "default"; "exclusive", for one process at a time; or "prohibited".
    """

    number: int
    uuid: str
    name: str
    memory: int
    mig: bool = False
    instances: tuple[MigInstance, ...] = ()
    mode: str = "default"


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of a device in use: `own` of this process, `None` where the driver does not tell; `free` of all."""

    own: int | None
    free: int
    total: int

    @property
    def by_all(self) -> int:
        """Bytes of all processes, and of the driver."""
        return self.total - self.free


class _Process(ctypes.Structure):
    _fields_ = [("pid", ctypes.c_uint), ("used", ctypes.c_ulonglong), ("gi", ctypes.c_uint), ("ci", ctypes.c_uint)]


def cards(library: str = NVML) -> tuple[Card, ...]:
    """Return every GPU; none if there is no driver or no GPU."""
    nvml, handles = opened(library)
    return tuple(_card(nvml, number, handle) for number, handle in handles)


def use_of(uuid: str, library: str = NVML) -> Use | None:
    """Return the use of a GPU's or MIG instance's memory; `None` if there is no such device now."""
    nvml, handles = opened(library)
    device, memory = ctypes.c_void_p(), Memory()
    if not handles or nvml.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(device)) != 0:
        return None
    if nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)) != 0:
        return None
    return Use(own=_own(nvml, device), free=memory.free, total=memory.total)


def _own(nvml: Any, device: ctypes.c_void_p) -> int | None:
    """Return the bytes of this process. A container may have other process ids than the driver, which then names none
    of it."""
    count, told = ctypes.c_uint(_MOST_TOLD), (_Process * _MOST_TOLD)()
    asked = getattr(nvml, "nvmlDeviceGetComputeRunningProcesses_v3", None)
    if asked is None or asked(device, ctypes.byref(count), told) != 0:
        return None
    found = [each.used for each in told[: count.value] if each.pid == os.getpid()]
    return sum(found) if found and _NOT_TOLD not in found else None


def _card(nvml: Any, number: int, handle: ctypes.c_void_p) -> Card:
    uuid, name, memory = _described(nvml, handle)
    mode, current, pending = ctypes.c_uint(), ctypes.c_uint(), ctypes.c_uint()
    nvml.nvmlDeviceGetComputeMode(handle, ctypes.byref(mode))
    asked = getattr(nvml, "nvmlDeviceGetMigMode", None)
    mig = asked is not None and asked(handle, ctypes.byref(current), ctypes.byref(pending)) == 0 and current.value == 1
    return Card(
        number=number, uuid=uuid, name=name, memory=memory, mig=mig,
        instances=_instances(nvml, handle) if mig else (), mode=_MODES.get(mode.value, "default"),
    )  # fmt: skip


def _instances(nvml: Any, handle: ctypes.c_void_p) -> tuple[MigInstance, ...]:
    count, found = ctypes.c_uint(), []
    nvml.nvmlDeviceGetMaxMigDeviceCount(handle, ctypes.byref(count))
    for place in range(count.value):
        instance = ctypes.c_void_p()
        if nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, ctypes.c_uint(place), ctypes.byref(instance)) == 0:
            uuid, name, memory = _described(nvml, instance)
            found.append(MigInstance(uuid=uuid, memory=memory, name=name))
    return tuple(found)


def _described(nvml: Any, device: ctypes.c_void_p) -> tuple[str, str, int]:
    uuid, name, memory = ctypes.create_string_buffer(96), ctypes.create_string_buffer(96), Memory()
    nvml.nvmlDeviceGetUUID(device, uuid, ctypes.c_uint(len(uuid)))
    nvml.nvmlDeviceGetName(device, name, ctypes.c_uint(len(name)))
    nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory))
    return uuid.value.decode(errors="replace"), name.value.decode(errors="replace"), memory.total
