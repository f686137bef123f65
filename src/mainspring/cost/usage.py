"""Use of machines: amounts of a measure, by hour, of a subject on a machine.

Amounts are whole numbers, so that sums over months are exact. Subjects that are too many for an hour are counted
together (`bounded`), as long as possible by model and payers, of which budgets are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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
OTHERS = "(others)"  # key of the callers, and id of the subjects of a kind, that were too many
MOST_SUBJECTS = 2_000  # of a machine in an hour, and in a day; besides as many that stand for several
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
        """The subject that stands for it among too many: first without its key, then of its model and payers, then of
        its kind.
        """
        if self.key not in ("", OTHERS):
            return msgspec.structs.replace(self, key=OTHERS)
        if self.id != OTHERS:
            return Subject(self.kind, OTHERS, model=self.model, teams=self.teams, inside=self.inside)
        return Subject(self.kind, OTHERS, inside=self.inside)

    @property
    def stands_for_others(self) -> bool:
        return OTHERS in (self.key, self.id)


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
    """Return usages of at most `most` subjects a machine and start, and of as many that stand for others, beside one of
    each kind; the smallest are added up.

    No amount is lost. Subjects of machines themselves are always kept, and not counted.
    """
    found = summed(usages)
    while small := _too_many(found, most):
        found = summed(
            msgspec.structs.replace(each, subject=each.subject.others)
            if each.subject in small.get((each.machine, each.start), ())
            else each
            for each in found
        )
    return found


def _too_many(usages: Iterable[Usage], most: int) -> dict[tuple[str, int], set[Subject]]:
    """Return the smallest subjects of each machine and start beyond `most`, by processor time first."""
    sizes: dict[tuple[str, int, bool], dict[Subject, tuple[int, int]]] = {}
    for each in usages:
        subject = each.subject
        if subject.kind != MACHINE and subject != subject.others:
            of = sizes.setdefault((each.machine, each.start, subject.stands_for_others), {})
            cpu, any_ = of.get(subject, (0, 0))
            of[subject] = (cpu + (each.amount if each.measure == "cpu" else 0), any_ + each.amount)
    small: dict[tuple[str, int], set[Subject]] = {}
    for (machine, start, _), of in sizes.items():
        if len(of) > most:
            ordered = sorted(of, key=lambda subject: (of[subject], msgspec.structs.astuple(subject)))
            small.setdefault((machine, start), set()).update(ordered[: len(of) - most])
    return small


def fitting(subject: Subject, there: Callable[[Subject], bool], count: int, most: int) -> Subject:
    """Return the subject to add an amount to, where there are `count` already: it, or the first that fits of those that
    stand for it.
    """
    while subject.kind != MACHINE and subject != subject.others and not there(subject):
        if count < (2 * most if subject.stands_for_others else most):
            break
        subject = subject.others
    return subject


def order(usage: Usage) -> tuple[object, ...]:
    """Return the place of a usage among others."""
    return usage.machine, usage.start, *msgspec.structs.astuple(usage.subject), usage.measure
