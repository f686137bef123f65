"""Mutual exclusion between processes. A lock's holder may die at any moment; its lock is then released at once.

Between machines: `core.database_locks`.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from mainspring.core.errors import Conflict
from mainspring.core.files import disk_errors
from mainspring.core.ids import check_id


class Locks(Protocol):
    """Named locks, one holder each, across every process of a project."""

    def hold(self, name: str, *, wait_s: float = 60.0) -> AbstractContextManager[None]:
        """Hold the lock inside the block.

        Raises:
            Conflict: Another holder kept it for all of `wait_s`.
        """
        ...

    def within(self, scope: str) -> Locks:
        """Return locks with a separate namespace, and the same reach."""
        ...


def busy(name: str, holder: str) -> Conflict:
    """Return the `Conflict` for a lock that another holder keeps for too long."""
    return Conflict(f"{name} is in use by {holder}.", fix="wait until it has finished, or stop it.")


class MemoryLocks:
    """Locks between the threads of one process."""

    def __init__(self) -> None:
        self._locks: dict[str, threading.Lock] = {}
        self._scopes: dict[str, MemoryLocks] = {}

    @contextmanager
    def hold(self, name: str, *, wait_s: float = 60.0) -> Iterator[None]:
        lock = self._locks.setdefault(check_id(name, "lock"), threading.Lock())
        if not lock.acquire(timeout=wait_s):
            raise busy(name, "another thread")
        try:
            yield
        finally:
            lock.release()

    def within(self, scope: str) -> MemoryLocks:
        return self._scopes.setdefault(check_id(scope, "scope of locks"), MemoryLocks())


class FileLocks:
    """Locks between the processes of one machine, by `flock`: the kernel releases them when the holder dies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def hold(self, name: str, *, wait_s: float = 60.0) -> Iterator[None]:
        path = self._folder / f"{check_id(name, 'lock')}.lock"
        with disk_errors(path):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + wait_s
            while not _try_lock(descriptor):
                if time.monotonic() >= deadline:
                    pid = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
                    raise busy(name, f"process {pid or 'unknown'}")
                time.sleep(0.01)
            with suppress(OSError):  # the holder's name is optional information; a full disk must not stop a command
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def within(self, scope: str) -> FileLocks:
        return FileLocks(self._folder / check_id(scope, "scope of locks"))


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
