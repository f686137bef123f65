"""Deployment to a target: plan, apply, status, destroy.

Before a piece is changed, its record says that it is half made, and afterwards that it is made. The next deployment
therefore resumes one that was cut off, `destroy` removes it, and neither leaves a piece that no record knows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from mainspring.core.errors import Invalid, Unavailable
from mainspring.deploy.targets.model import (
    ABSENT,
    Change,
    Deployment,
    Happened,
    Made,
    Piece,
    PieceStatus,
    Plan,
    Seen,
)
from mainspring.deploy.targets.ports import Records, Target
from mainspring.deploy.variables import check_no_secret, holds_secret

_LOOK_S = 0.5


def rendered(target: Target, deployment: Deployment, secrets: Mapping[str, str]) -> list[Piece]:
    """Return a deployment's pieces, checked: their ids are unique, each comes after what it needs, none has a secret.

    Args:
        secrets: Values that no piece may contain, by the name under which they are known.

    Raises:
        Invalid: A piece has a secret, or the kind of target cannot have the deployment.
    """
    check_no_secret(deployment.env, "name {} in the target's `secrets`, and give its value at the place where it runs.")
    pieces = target.render(deployment)
    before = set[str]()
    for piece in pieces:
        if piece.id in before or not before.issuperset(piece.after):
            raise ValueError(f"{piece.id} is rendered twice, or before {sorted(set(piece.after) - before)}")
        before.add(piece.id)
        for name, value in secrets.items():
            if holds_secret(piece.content, value):
                raise Invalid(
                    f"{piece.id} would contain the value of {name}, a secret.",
                    fix=f"name {name} in the target's `secrets`, and give its value at the place where it runs.",
                )
    return pieces


def plan(target: Target, name: str, pieces: Sequence[Piece], records: Records) -> Plan:
    """Return what would be done, without doing it.

    Raises:
        Unavailable: The target does not answer.
    """
    made = {each.piece: each for each in records.made(name)}
    seen = dict(zip([each.id for each in pieces], target.look([each.id for each in pieces]), strict=True))
    changes = [_change(piece, seen[piece.id], made.get(piece.id)) for piece in pieces]
    gone = sorted((each for each in made.values() if each.piece not in seen), key=lambda each: -each.position)
    removed = [Change(piece=each.piece, action="remove", why="no longer part of the deployment") for each in gone]
    return Plan(target=name, changes=(*changes, *removed), problems=tuple(target.problems(pieces)))


def _change(piece: Piece, seen: Seen, record: Made | None) -> Change:
    if record is not None and not record.done:
        action, why = "change", "an earlier deployment was cut off here"
    elif seen.state == "absent":
        action, why = "make", "it was removed by somebody else" if record is not None else "new"
    elif seen.digest == piece.digest:
        return Change(piece=piece.id, action="keep", why="as it is", needs=piece.needs)
    elif record is not None and seen.digest != record.digest:
        action, why = "change", "somebody else changed it"
    else:
        action, why = "change", "its definition changed"
    return Change(piece=piece.id, action="make" if action == "make" else "change", why=why, needs=piece.needs)


def apply(
    target: Target, planned: Plan, pieces: Sequence[Piece], records: Records, now: Callable[[], int]
) -> Iterator[Happened]:
    """Do what a plan says, and yield each change before and after it is done.

    Raises:
        Invalid: The plan has problems; nothing was done. Or the target refused a piece.
        Conflict: A piece of that name is there which no deployment made.
        Unavailable: The target does not answer.
    """
    if planned.problems:
        raise Invalid(
            f"Nothing was deployed to {planned.target!r}: {planned.problems[0]}"
            + (f" ({len(planned.problems) - 1} more)" if len(planned.problems) > 1 else ""),
            fix=f"`mainspring deploy {planned.target} --dry-run` lists all problems.",
        )
    by_id = {piece.id: (number, piece) for number, piece in enumerate(pieces)}
    todo = [change for change in planned.changes if change.action != "keep"]
    kept = [change.piece for change in planned.changes if change.action == "keep"]
    records.keep(planned.target, [_record(by_id[id], now(), done=True) for id in kept])
    for number, change in enumerate(todo, 1):
        yield Happened(change, number, len(todo), done=False)
        if change.action == "remove":
            _remove(target, planned.target, change.piece, records, now)
        else:
            record = _record(by_id[change.piece], now(), done=False)
            records.keep(planned.target, [record])
            target.make(by_id[change.piece][1])
            records.keep(planned.target, [replace(record, done=True, at=now())])
        yield Happened(change, number, len(todo), done=True)


def _record(placed: tuple[int, Piece], at: int, *, done: bool) -> Made:
    position, piece = placed
    return Made(piece=piece.id, position=position, digest=piece.digest, done=done, at=at)


def _remove(target: Target, name: str, id: str, records: Records, now: Callable[[], int]) -> None:
    record = next((each for each in records.made(name) if each.piece == id), None)
    if record is not None:
        records.keep(name, [replace(record, done=False, at=now())])
    target.remove(id)
    records.forget(name, [id])


def await_ready(target: Target, pieces: Sequence[Piece], within_s: float) -> list[PieceStatus]:
    """Wait until all pieces are ready, one has failed, or the time is over; return them as they are then."""
    end = time.monotonic() + within_s
    ids = [piece.id for piece in pieces]
    while True:
        seen = target.look(ids)
        states = {each.state for each in seen}
        if states <= {"ready"} or "failed" in states or time.monotonic() >= end:
            return [PieceStatus(piece=id, state=each.state, why=each.why) for id, each in zip(ids, seen, strict=True)]
        time.sleep(_LOOK_S)


def status(target: Target, name: str, records: Records) -> list[PieceStatus]:
    """Return the pieces that were made, as they are now, in the order in which they were made.

    Raises:
        Unavailable: The target does not answer.
    """
    made = records.made(name)
    return [_status(each, seen) for each, seen in zip(made, target.look([each.piece for each in made]), strict=True)]


def _status(record: Made, seen: Seen) -> PieceStatus:
    if not record.done:
        return PieceStatus(piece=record.piece, state="half made", why="deploy again, or destroy it")
    if seen.state != "absent" and seen.digest != record.digest:
        return PieceStatus(piece=record.piece, state="changed", why="somebody else changed it; deploy again")
    why = "somebody else removed it; deploy again" if seen.state == "absent" else seen.why
    return PieceStatus(piece=record.piece, state=seen.state, why=why)


def destroy(target: Target, name: str, records: Records, now: Callable[[], int]) -> Iterator[Happened]:
    """Remove all that was made, last first, and yield each removal before and after it is done.

    Raises:
        Unavailable: The target does not answer. What is left is removed by the next call.
    """
    made = sorted(records.made(name), key=lambda each: (-each.position, each.piece))
    for number, record in enumerate(made, 1):
        change = Change(piece=record.piece, action="remove", why="the deployment is destroyed")
        yield Happened(change, number, len(made), done=False)
        _remove(target, name, record.piece, records, now)
        if target.look([record.piece]) != [ABSENT]:
            raise Unavailable(
                f"{record.piece} of target {name!r} is still there after its removal.",
                fix=f"wait, then run `mainspring destroy {name}` again.",
            )
        yield Happened(change, number, len(made), done=True)
