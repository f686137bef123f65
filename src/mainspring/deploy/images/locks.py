"""Locks of an image: TOML beside this file, as tests/kit/image_locks.py writes it."""

from __future__ import annotations

from importlib.resources import files
from typing import TypeVar

import msgspec

Lock = TypeVar("Lock")


def read_lock(name: str, kind: type[Lock]) -> Lock:
    """Return the lock in a file of this package."""
    return msgspec.toml.decode(files("mainspring.deploy.images").joinpath(name).read_bytes(), type=kind)
