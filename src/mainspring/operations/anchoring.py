"""Anchors of audit logs: heads received from other installations, and how far the own log's anchors lag behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mainspring.core.errors import Conflict, Corrupt, Denied, Invalid, Unavailable
from mainspring.core.time import HOUR, format_duration
from mainspring.monitoring.incidents.model import Judged
from mainspring.monitoring.signals import AUDIT, Signal
from mainspring.operations.auditing import audit
from mainspring.project import Project
from mainspring.security.merkle import extends
from mainspring.security.model import Principal, ReceivedHead
from mainspring.security.tree_heads import ForeignHead, Head, open_note, read_head

REFUSED = "audit.fork"
AWAY_US = HOUR  # of a lag, which is an incident then
_JUDGED_HOURS = 24


def receive_head(
    project: Project, note: str, proof: Sequence[bytes], by: Principal, *, base: int | None = None
) -> None:
    """Keep a head of another installation's audit log, if it continues the one before it.

    One of another log, or of the same size with another root, is kept as refused: the two prove that the log was
    changed. So is, once for each head that it should continue, a larger one whose proof begins at that head and does
    not fit. A head that is older, or whose proof begins elsewhere, may just be late: it is refused, and not kept.

    Args:
        base: Size of the head at which the proof begins, if the sender says it.

    Raises:
        Denied: No key in `audit_anchored` signed it.
        Invalid: It is no head.
        Conflict: It is not of a log that continues the one before.
        Unavailable: Another head came at the same time.
    """
    public, note, head = _signer(project, note)
    newest = next(iter(project.received_heads.of(public)), None)
    before = next(iter(project.received_heads.of(public, taken=True)), None)
    why, is_new = "", True
    if before is not None:
        last = read_head(before.note)
        if last == head:
            return
        why = _refused(last, head, proof)
        is_new = not why or (_is_fork(last, head, base) and not _is_known(project, before, last, head))
    if is_new:
        number = 0 if newest is None else newest.number + 1  # if another took it meanwhile, `add` refuses
        try:
            project.received_heads.add(ReceivedHead(public, number, head.size, note, project.wall.now(), by.id, why))
        except Conflict as error:
            raise Unavailable(error.what, fix=error.fix) from error
    if why:
        if is_new:
            audit(project, REFUSED, f"log/{head.origin}", why, who=f"{by.kind}:{by.id}")
        raise Conflict(why, fix="run `mainspring audit verify` where the log is.")


def _signer(project: Project, note: str) -> tuple[bytes, str, Head]:
    for public in project.settings.audit_anchored:
        try:
            return public, *open_note(note, public)
        except ForeignHead:
            continue
        except Corrupt as error:
            raise Invalid(error.what, fix="send a checkpoint in a signed note (c2sp.org/tlog-checkpoint).") from error
    raise Denied(
        "No installation whose heads are kept here signed this one.",
        authenticated=True,
        fix="add its key, which `mainspring models key` prints there, to `audit_anchored`.",
    )


def _refused(before: Head, head: Head, proof: Sequence[bytes]) -> str:
    """Return why a head does not continue the one before it; empty if it does."""
    if head.origin != before.origin:
        return f"The head is of the log {head.origin}, and {before.origin} was anchored before."
    if head.size < before.size:
        return f"The audit log has {head.size:,} events, and had {before.size:,} when it was anchored before."
    if not extends(before.root, before.size, head.root, head.size, proof):
        return f"The audit log of {head.size:,} events does not continue the anchored one of {before.size:,}."
    return ""


def _is_fork(last: Head, head: Head, base: int | None) -> bool:
    """Return whether a refused head shows that the log was changed, and is not just late."""
    return head.origin != last.origin or head.size == last.size or base == last.size < head.size


def _is_known(project: Project, before: ReceivedHead, last: Head, head: Head) -> bool:
    """Return whether this head was kept as refused, or after the last taken one another of the same changed log."""
    for each in project.received_heads.refused(0):
        if each.public != before.public:
            continue
        known = read_head(each.note)
        if known == head:
            return True
        is_same = known.origin == head.origin and (head.origin != last.origin or last.size < min(known.size, head.size))
        if is_same and each.number > before.number:
            return True
    return False


@dataclass(frozen=True, slots=True)
class Lag:
    """Events that are not anchored at a place, and since when the oldest of them waits, UTC epoch microseconds."""

    place: str
    events: int
    since: int | None


def lags(project: Project) -> list[Lag]:
    """Return the lag of each place of anchors, by what the worker noted; no place is asked."""
    tree = project.audit.tree()
    size = 0 if tree is None else tree.size
    states, found = project.anchor_states.all(), []
    for place in (each.shown for each in project.settings.audit_anchors):
        state = states.get(place)
        if state is None:  # not tried yet
            continue
        waiting = project.audit.records(state.events, state.events + 1) if state.events < size else []
        since = max(waiting[0].at, state.since) if waiting else None
        found.append(Lag(place, max(0, size - state.events), since))
    return found


def judged(project: Project) -> Judged:
    """Return the judgement of the last day's hours, by the machine's clock: places that lag, and refused heads."""
    now = project.wall.now()
    last = now // HOUR * HOUR
    hours = [(start, start + HOUR) for start in range(last - _JUDGED_HOURS * HOUR, last + HOUR, HOUR)]
    signals = [
        Signal(
            channel=AUDIT, endpoint="", statistic="fork", column=read_head(each.note).origin,
            start=each.received_at // HOUR * HOUR, end=each.received_at // HOUR * HOUR + HOUR,
            severity=1.0, page=True, detail=each.refused,
        )
        for each in project.received_heads.refused(hours[0][0])
        if each.received_at <= now
    ]  # fmt: skip
    for lag in lags(project):
        if lag.since is None or now - lag.since < AWAY_US:
            continue
        held = format_duration((now - lag.since) // HOUR * HOUR)
        detail = f"{lag.events:,} events are not anchored at {lag.place}; the oldest waits for {held}."
        signals += [
            Signal(
                channel=AUDIT, endpoint="", statistic="lag", column=lag.place, start=start, end=end, severity=1.0,
                value=float(lag.events), expected=0.0, detail=detail,
            )
            for start, end in hours
            if lag.since + AWAY_US < min(end, now)
        ]  # fmt: skip
    return Judged("", AUDIT, tuple(hours), tuple(signals))
