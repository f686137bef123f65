"""The tables of adapters by URL scheme, of all rooms."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from mainspring.project import backends
from mainspring.project.backends.base import Build

_ROOMS = [import_module(f"{backends.__name__}.{each.name}") for each in iter_modules(backends.__path__)]
TABLES: dict[str, dict[str, Build]] = {
    name: table
    for room in _ROOMS
    for name, table in vars(room).items()
    if name.isupper() and isinstance(table, dict) and name != "KINDS"  # of targets, which have no address
}
