"""Use of machines: amounts of a measure, by hour, of a subject on a machine.

Amounts are whole numbers, so that sums over months are exact. Subjects that are too many for an hour are counted
together (`bounded`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

import msgspec

MEASURES: Final[Mapping[str, str]] = MappingProxyType({  # measure -> its unit
    "cpu": "core-microseconds",
    "memory": "byte-seconds",
    "gpu": "device-microseconds",
    "in": "bytes",
    "out": "bytes",
    "storage": "byte-hours",
    "requests": "requests",
    "rows": "rows",
    "scanned": "bytes",
    "prompt": "tokens",
    "completion": "tokens",
    "charged": "millionths of the project's currency",
    "wall": "microseconds",
})  # fmt: skip
ENDPOINT, RUN, STEP, VIEW, BATCH, JOB = "endpoint", "run", "step", "view", "batch", "job"
LANGUAGE_MODEL, TABLE = "language-model", "table"
PIPELINE = "pipeline"  # of which only steps use a machine
MACHINE = "machine"  # its ids: the whole of a machine, what of it nothing used, and what `up` and its children used
CAPACITY, IDLE, OWN = "capacity", "idle", "own"
OTHERS = "(others)"  # id of the subjects of a kind that were too many
MOST_SUBJECTS = 2_000  # of a machine in an hour, and in a day
_LONGEST = {"kind": 32, "id": 160, "version": 64, "model": 128, "key": 128}
_MOST_TEAMS = 1_000  # characters


class Subject(msgspec.Struct, frozen=True, omit_defaults=True):
    """A user of a machine.

    Attributes:
        kind: One of the constants of this module.
        id: Name of the endpoint or view, id of the run or job; `pipeline/step` of a step.
        version: Of the endpoint's model; storage class of a table.
        model: Name of the model, where there is one.
        key: Id of the key or account that asked for it; empty where nobody did.
        teams: Payers, in order: its cost is divided among them. Of requests the groups of the key; of other work see
            `cost.paying`.
        inside: Whether it ran in a process of `up`, whose use its machine's meter counts too.
    """

    kind: str
    id: str
    version: str = ""
    model: str = ""
    key: str = ""
    teams: tuple[str, ...] = ()
    inside: bool = False

    @property
    def others(self) -> Subject:
        """The subject that stands for it among too many."""
        return Subject(self.kind, OTHERS, inside=self.inside)


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """An amount that a subject used.

    Attributes:
        start: Begin of the hour or the day, UTC epoch microseconds.
        amount: In the unit of the measure, see `MEASURES`.
    """

    machine: str
    start: int
    subject: Subject
    measure: str
    amount: int


def shortened(subject: Subject) -> Subject:
    """Return the subject with names that fit into a store."""
    cut = {name: getattr(subject, name).replace("\0", " ")[:most] for name, most in _LONGEST.items()}
    teams, length = [], 0
    for team in sorted({each.replace("\0", " ") for each in subject.teams}):
        length += len(team)
        if length > _MOST_TEAMS:
            break
        teams.append(team)
    return msgspec.structs.replace(subject, **cut, teams=tuple(teams))


def summed(usages: Iterable[Usage]) -> list[Usage]:
    """Return one usage for each machine, start, subject and measure."""
    amounts: dict[tuple[str, int, Subject, str], int] = {}
    for each in usages:
        key = (each.machine, each.start, each.subject, each.measure)
        amounts[key] = amounts.get(key, 0) + each.amount
    return [
        Usage(machine=machine, start=start, subject=subject, measure=measure, amount=amount)
        for (machine, start, subject, measure), amount in amounts.items()
    ]


def bounded(usages: Iterable[Usage], most: int = MOST_SUBJECTS) -> list[Usage]:
    """Return usages of at most `most` subjects a machine and start; the smallest of them are added up by kind.

    No amount is lost. Subjects of machines themselves are always kept, and not counted.
    """
    found = summed(usages)
    sizes: dict[tuple[str, int], dict[Subject, tuple[int, int]]] = {}
    for each in found:
        if each.subject.kind != MACHINE and each.subject.id != OTHERS:
            of = sizes.setdefault((each.machine, each.start), {})
            cpu, any_ = of.get(each.subject, (0, 0))
            of[each.subject] = (cpu + (each.amount if each.measure == "cpu" else 0), any_ + each.amount)
    small = {
        place: set(sorted(of, key=lambda subject: (of[subject], msgspec.structs.astuple(subject)))[: len(of) - most])
        for place, of in sizes.items()
        if len(of) > most
    }
    if not small:
        return found
    return summed(
        msgspec.structs.replace(each, subject=each.subject.others)
        if each.subject in small.get((each.machine, each.start), ())
        else each
        for each in found
    )


def order(usage: Usage) -> tuple[object, ...]:
    """Return the place of a usage among others."""
    return usage.machine, usage.start, *msgspec.structs.astuple(usage.subject), usage.measure
