"""GPUs and MIG instances as the driver's library tells them: here a small one of our own with the same functions."""

from __future__ import annotations

import gc
import shutil
import subprocess
from ctypes import CDLL, c_int
from pathlib import Path

import numpy as np
import pytest

from mainspring.core.cards import Card, MigInstance, Use, cards, use_of
from mainspring.serving.adapters.pinning import Pinning

# nvml.h: two GPUs, the second divided by MIG into places 0 and 2 of four
NVML = r"""
#include <stdio.h>
#include <string.h>
#include <unistd.h>
typedef struct { unsigned long long total, free, used; } memory;
typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } process;
static int devices[2] = {0, 1}, instances[4] = {10, 11, 12, 13};
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = &devices[index]; return 0; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    int number;
    if (sscanf(uuid, "GPU-%d", &number) == 1 && number < 2) *device = &devices[number];
    else if (sscanf(uuid, "MIG-%d", &number) == 1) *device = &instances[number - 10];
    else return 6;
    return 0;
}
int nvmlDeviceGetUUID(void *device, char *uuid, unsigned length) {
    int number = *(int *)device;
    snprintf(uuid, length, "%s-%d", number < 10 ? "GPU" : "MIG", number); return 0;
}
int nvmlDeviceGetName(void *device, char *name, unsigned length) {
    snprintf(name, length, "NVIDIA A100%s", *(int *)device < 10 ? "" : " MIG 3g.40gb"); return 0;
}
int nvmlDeviceGetMemoryInfo(void *device, memory *found) {
    found->total = *(int *)device < 10 ? 80000 : 40000; found->free = 30000; found->used = 9; return 0;
}
int nvmlDeviceGetComputeMode(void *device, unsigned *mode) { *mode = *(int *)device == 0 ? 3 : 0; return 0; }
int nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending) {
    if (*(int *)device == 0) return 3;
    *current = 1; *pending = 1; return 0;
}
int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *count) { *count = 4; return 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned index, void **found) {
    if (index % 2) return 6;
    *found = &instances[index]; return 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, process *found) {
    int number = *(int *)device;
    if (*count < 2) return 7;
    *count = number == 12 ? 0 : 2;
    found[0] = (process){1, 500, 0, 0};
    found[1] = (process){getpid(), number == 10 ? ~0ULL : 7000, 0, 0};
    return 0;
}
"""

# cuda.h: pinning counts, and needs the context to be current
CUDA = r"""
static int current, pinned, registered;
int cuInit(unsigned flags) { return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = 40 + ordinal; return ordinal == 3 ? 101 : 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)(long)device; return 0; }
int cuCtxPushCurrent_v2(void *context) { current = (int)(long)context; return 0; }
int cuCtxPopCurrent_v2(void **context) { *context = (void *)(long)current; current = 0; return 0; }
int cuMemHostRegister_v2(void *at, unsigned long size, unsigned flags) {
    if (current != 41 || flags != 1 || (long)at % 4096 || size % 4096) return 1;
    pinned++; registered++; return 0;
}
int cuMemHostUnregister(void *at) { if (current == 41) pinned--; return 0; }
int told(int what) { return what ? registered : pinned; }
"""


def built(folder: Path, name: str, source: str) -> str:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler to build a driver's library with")
    (folder / f"{name}.c").write_text(source)
    library = folder / f"lib{name}.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(folder / f"{name}.c")], check=True)
    return str(library)


def test_gpus_and_mig_instances_are_read_with_their_use(tmp_path: Path) -> None:
    library = built(tmp_path, "nvml", NVML)
    assert cards(library) == (
        Card(number=0, uuid="GPU-0", name="NVIDIA A100", memory=80_000, mode="exclusive"),
        Card(
            number=1, uuid="GPU-1", name="NVIDIA A100", memory=80_000, mig=True,
            instances=tuple(
                MigInstance(uuid=f"MIG-{number}", memory=40_000, name="NVIDIA A100 MIG 3g.40gb") for number in (10, 12)
            ),
        ),
    )  # fmt: skip
    assert use_of("GPU-0", library) == Use(own=7_000, free=30_000, total=80_000)
    assert use_of("MIG-10", library) == Use(own=None, free=30_000, total=40_000)  # not told
    found = use_of("MIG-12", library)
    assert found is not None
    assert (found.own, found.by_all) == (None, 10_000)
    assert use_of("GPU-7", library) is None


def test_without_a_driver_there_is_nothing() -> None:
    assert cards("libthat-is-not-there.so.1") == ()
    assert use_of("GPU-0", "libthat-is-not-there.so.1") is None


def test_memory_is_pinned_until_its_array_is_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    library = built(tmp_path, "cuda", CUDA)
    told = CDLL(library).told
    told.argtypes, told.restype = [c_int], c_int
    pin = Pinning(1, library)
    arrays = [np.zeros(3 * 4096, np.uint8) for _ in range(4)]
    for each in arrays:
        address = each.ctypes.data + -each.ctypes.data % 4096
        assert pin(each, address, 4096)
    assert (told(0), told(1)) == (4, 4)
    view = arrays.pop()[8:]  # a view keeps it
    del each
    gc.collect()
    assert told(0) == 4
    del view
    arrays.clear()
    gc.collect()
    assert (told(0), told(1)) == (0, 4)
    assert not caplog.records


@pytest.mark.parametrize("ordinal", [0, 3])
def test_what_the_driver_refuses_is_said_once(tmp_path: Path, ordinal: int, caplog: pytest.LogCaptureFixture) -> None:
    pin = Pinning(ordinal, built(tmp_path, "cuda", CUDA))
    array = np.zeros(8192, np.uint8)
    address = array.ctypes.data + -array.ctypes.data % 4096
    assert [pin(array, address, 4096) for _ in range(3)] == [False] * 3
    (record,) = caplog.records
    assert "Memory is not pinned" in record.getMessage()
    assert not Pinning(0, "libthat-is-not-there.so.1")(array, address, 4096)
