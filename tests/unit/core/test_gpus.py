"""GPUs are read from the driver's library: here a small one of our own with the same functions."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from mainspring.core.gpus import Gpu, LinkedGpu, gpu_reader, linked_gpus
from mainspring.training.runs.system import named

# nvml.h: what is returned is 0 for success, 3 for "not supported"
LIBRARY = r"""
typedef struct { unsigned gpu, memory; } utilization;
typedef struct { unsigned long long total, free, used; } memory;
static int devices[2] = {0, 1};
int nvmlInit_v2(void) { return INIT; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = COUNT; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = &devices[index]; return 0; }
int nvmlDeviceGetUtilizationRates(void *device, utilization *found) {
    found->gpu = 40 + *(int *)device; found->memory = 7; return 0;
}
int nvmlDeviceGetMemoryInfo(void *device, memory *found) {
    found->total = 80000000000ULL; found->free = 60000000000ULL; found->used = 20000000000ULL; return 0;
}
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius) {
    *celsius = 61; return sensor == 0 && *(int *)device == 0 ? 0 : 3;
}
typedef struct { char legacy[16]; unsigned domain, bus, device, kind, subsystem; char text[32]; } pci;
int nvmlDeviceGetName(void *device, char *name, unsigned length) {
    __builtin_strncpy(name, "NVIDIA H100 80GB HBM3", length); return 0;
}
int nvmlDeviceGetPciInfo_v3(void *device, pci *found) {
    found->domain = 0; found->bus = 0x18 + *(int *)device; found->device = 2; return 0;
}
int nvmlDeviceGetNvLinkState(void *device, unsigned link, unsigned *up) {
    *up = link != 1; return link < 3 && *(int *)device == 0 ? 0 : 3;
}
int nvmlDeviceGetNvLinkVersion(void *device, unsigned link, unsigned *version) { *version = 4; return 0; }
int nvmlDeviceGetNvLinkRemotePciInfo_v2(void *device, unsigned link, pci *found) {
    found->domain = 0; found->bus = 0x90 + link; found->device = 0; return 0;
}
int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) {
    *milliwatts = 123456; return *(int *)device == 0 ? 0 : 3;
}
"""


def built(folder: Path, init: int, count: int) -> str:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler to build a driver's library with")
    source, library = folder / "nvml.c", folder / "libnvml.so"
    source.write_text(LIBRARY)
    command = [compiler, "-shared", "-fPIC", f"-DINIT={init}", f"-DCOUNT={count}", "-o", str(library), str(source)]
    subprocess.run(command, check=True)
    return str(library)


def test_every_gpu_is_read_and_what_one_does_not_tell_is_left_out(tmp_path: Path) -> None:
    read = gpu_reader(built(tmp_path, 0, 2))
    assert read is not None
    memory = {"memory_used": 20_000_000_000, "memory_total": 80_000_000_000}
    first, second = read()
    assert first == Gpu(0, busy=0.4, celsius=61.0, watts=123.456, **memory)
    assert second == Gpu(1, busy=0.41, celsius=None, watts=None, **memory)
    assert {name: value for gpu in read() for name, value in named(gpu).items()} == {
        "gpu_0_utilization_percentage": 40.0,
        "gpu_0_memory_usage_megabytes": 20_000.0,
        "gpu_0_memory_usage_percentage": 25.0,
        "gpu_0_power_usage_watts": 123.456,
        "gpu_1_utilization_percentage": 41.0,
        "gpu_1_memory_usage_megabytes": 20_000.0,
        "gpu_1_memory_usage_percentage": 25.0,
    }


def test_nvlinks_that_are_up_are_read_with_what_they_reach(tmp_path: Path) -> None:
    name, memory = "NVIDIA H100 80GB HBM3", 80_000_000_000
    peers = ("0000:90:00.0", "0000:92:00.0")
    assert linked_gpus(built(tmp_path, 0, 2)) == [
        LinkedGpu(0, name, memory, "0000:18:02.0", nvlinks=2, peers=peers, nvlink_version=4),
        LinkedGpu(1, name, memory, "0000:19:02.0"),
    ]
    assert linked_gpus("libthat-is-not-there.so.1") == []


@pytest.mark.parametrize(("init", "count"), [(9, 1), (0, 0)])
def test_a_driver_without_a_gpu_gives_none(tmp_path: Path, init: int, count: int) -> None:
    assert gpu_reader(built(tmp_path, init, count)) is None


def test_no_driver_gives_none() -> None:
    assert gpu_reader("libthat-is-not-there.so.1") is None
