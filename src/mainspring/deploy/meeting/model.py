"""Values of a meeting of machines: what a machine tells of itself, and what must be alike on all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from mainspring.core.errors import Conflict
from mainspring.deploy.meeting.certificates import parsed

MOST = 16 << 20  # bytes of a line
_SHOWN = 10  # differences
_LONGEST = 300  # characters of one


class Alike(msgspec.Struct, frozen=True):
    """Everything that must be equal on all machines, or they would train different models.

    Args:
        files: SHA-256 of each of the project's files.
        definitions: SHA-256 of the model's features and observations.
        versions: Of Python and of the packages that compute.
        counts: Of machines, and of processes on each.
    """

    files: Mapping[str, str]
    definitions: str
    versions: Mapping[str, str]
    counts: Mapping[str, int] = {}


class Hello(msgspec.Struct, frozen=True):
    """A machine that wants to take part: its number from 1, and its name."""

    machine: int
    host: str
    alike: Alike


class Welcome(msgspec.Struct, frozen=True):
    """Answer to a `Hello`: the training, or why the machine cannot take part."""

    refused: str = ""
    taken: str = ""  # name of the machine that has this number by now
    run: str = ""
    request: str = ""  # of the job; each machine puts its own folders into it
    tables: Mapping[str, list[Any]] = {}  # version and SHA-256 of the rows' files of each table of the snapshot
    mark: str = ""  # content of a file beside the checkpoints


@dataclass(frozen=True, slots=True)
class Announced:
    """A machine as it is announced in the catalog.

    Args:
        address: `host:port` of machine 0; empty for others.
        certificate: In PEM.
    """

    number: int
    host: str
    address: str
    certificate: str

    @property
    def der(self) -> bytes:
        """The certificate in DER; nothing if it is none."""
        return parsed(self.certificate) or b""


def differences(one: Alike, other: Alike) -> list[str]:
    """Return what differs between two machines, for people; empty if nothing does."""
    files = [f"the file {name}" for name in _unequal(one.files, other.files)]
    versions = [
        f"{name} ({one.versions.get(name, 'none')} and {other.versions.get(name, 'none')})"
        for name in _unequal(one.versions, other.versions)
    ]
    counts = [
        f"--{name} ({one.counts.get(name, 'none')} and {other.counts.get(name, 'none')})"
        for name in _unequal(one.counts, other.counts)
    ]
    definitions = ["the definitions"] if one.definitions != other.definitions and not files else []
    return [*files, *versions, *counts, *definitions]


def differing_tables(one: Mapping[str, list[Any]], other: Mapping[str, list[Any]]) -> list[str]:
    """Return the names of tables whose pinned rows are not the same."""
    return [f"the table {name}" for name in _unequal(one, other)]


def listed(found: Iterable[str]) -> str:
    """Return differences as text, the first ones if they are many. They may be another machine's words."""
    every = list(found)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(shown(each) for each in every[:_SHOWN]) + more


def shown(text: str) -> str:
    """Return another machine's text without what would control a terminal, cut to a line."""
    return "".join(each if each.isprintable() else "?" for each in text[:_LONGEST])


def disagree(machine: str, found: Iterable[str]) -> Conflict:
    """Return the error of a machine that would train something else."""
    return Conflict(
        f"{machine} would not train what machine 0 does; these differ: {listed(found)}.",
        fix="give all machines the same files, packages and stores, and start them again.",
    )


def _unequal(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
