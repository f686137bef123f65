"""Memory of this process that a GPU reads and writes without a detour, pinned by CUDA's driver.

The driver's own functions (https://docs.nvidia.com/cuda/cuda-driver-api, memory and primary contexts) come with it, as
NVML does: `cuMemHostRegister` takes memory that is there already, in the context that ONNX Runtime uses too.
"""

from __future__ import annotations

import ctypes
import logging
import weakref
from typing import Any

from mainspring.serving.plane.executor import Array

_CUDA = "libcuda.so.1"
_PORTABLE = 1  # CU_MEMHOSTREGISTER_PORTABLE: for all contexts of the process

_log = logging.getLogger(__name__)


class Pinning:
    """Pins arrays for a device, by its ordinal. Where the driver refuses, copies take longer; that is logged once."""

    def __init__(self, ordinal: int, library: str = _CUDA) -> None:
        self._ordinal = ordinal
        self._library = library
        self._context: tuple[Any, ctypes.c_void_p] | None = None
        self._refused = False

    def __call__(self, owner: Array, address: int, nbytes: int) -> bool:
        """Pin whole pages of an array until the array is gone. Return whether they are."""
        if self._refused:
            return False
        try:
            cuda, context = self._context = self._context or self._opened()
            with _Current(cuda, context):
                _check(cuda.cuMemHostRegister_v2(ctypes.c_void_p(address), ctypes.c_size_t(nbytes), _PORTABLE), "pin")
        except (OSError, AttributeError) as error:
            self._refused = True
            _log.warning("Memory is not pinned, so copies to the GPU take longer: %s", error)
            return False
        weakref.finalize(owner, _unpin, cuda, context, address).atexit = False  # CUDA may have ended before
        return True

    def _opened(self) -> tuple[Any, ctypes.c_void_p]:
        cuda, device, context = ctypes.CDLL(self._library), ctypes.c_int(), ctypes.c_void_p()
        _check(cuda.cuInit(0), "begin")
        _check(cuda.cuDeviceGet(ctypes.byref(device), self._ordinal), "find the device")
        _check(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device), "take its context")
        return cuda, context


class _Current:
    """Makes a context this thread's for the block."""

    def __init__(self, cuda: Any, context: ctypes.c_void_p) -> None:
        self._cuda, self._context = cuda, context

    def __enter__(self) -> None:
        _check(self._cuda.cuCtxPushCurrent_v2(self._context), "enter its context")

    def __exit__(self, *_: object) -> None:
        self._cuda.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))


def _unpin(cuda: Any, context: ctypes.c_void_p, address: int) -> None:
    with _Current(cuda, context):
        cuda.cuMemHostUnregister(ctypes.c_void_p(address))


def _check(code: int, what: str) -> None:
    if code != 0:
        raise OSError(f"CUDA could not {what}: error {code}")
