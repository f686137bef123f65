"""Events of the audit log: actor, action and subject, by the machine's clock; and the log's verification."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Any

from mainspring.core.errors import Corrupt, MainspringError, NotFound
from mainspring.project import Project
from mainspring.registry.processes import local_user
from mainspring.security.intents import BEGUN, Intent, Intents, completing
from mainspring.security.model import AuditEntry, AuditEvent, AuditFilter

if TYPE_CHECKING:
    from mainspring.security.audit_proofs import Proofs
    from mainspring.security.ports import Anchors
    from mainspring.security.tree_heads import Head
    from mainspring.security.verification import Verdict

Done = Callable[[str], None]  # appends the event of an effect with its detail

_NEWEST = 10_000  # events in which `doctor` looks for effects without completion
VERIFIED, EXPORTED, REVEALED = "audit.verify", "audit.export", "audit.reveal"


def audit(
    project: Project,
    action: str,
    resource: str,
    detail: str = "",
    *,
    subject: str | None = None,
    who: str | None = None,
) -> None:
    """Append one event to the audit log, durably.

    Args:
        action: A verb such as `train` or `keys.create`.
        resource: A kind and a name: `model/late-arrival`.
        subject: The person whom it is about, if there is one. Only this part can be erased later.
        who: By default the user of this process.
    """
    actor = local_user() if who is None else who
    project.audit.append([AuditEvent(project.wall.now(), actor, action, resource, detail, subject)])


@contextmanager
def begun(project: Project, action: str, resource: str, *, who: str | None = None) -> Iterator[Done]:
    """Context of an effect outside the catalog, which yields what appends its event: one before it names the intent.

    Where the process is killed in it, the intent has no completion, which `audit verify` and `doctor` name. After an
    exception an event says that it failed.
    """
    actor = local_user() if who is None else who
    number = project.audit.append([AuditEvent(project.wall.now(), actor, f"{action}{BEGUN}", resource)])
    with audited(project, action, resource, who=who, since=number) as done:
        yield done


@contextmanager
def audited(
    project: Project, action: str, resource: str, *, who: str | None = None, since: int | None = None
) -> Iterator[Done]:
    """Context of work that yields what appends its event; after an exception the event says that it failed.

    Alone it is for work that is done often, and that the next run completes where a process is killed in it.

    Args:
        since: Number of the event before it.
    """

    def done(detail: str) -> None:
        audit(project, action, resource, detail if since is None else completing(detail, since), who=who)

    try:
        yield done
    except BaseException as error:
        with suppress(MainspringError):  # an unavailable catalog must not hide the original error
            done(f"failed: {type(error).__name__}")
        raise


def unfinished(project: Project) -> tuple[Intent, ...]:
    """Return effects outside the catalog that began among the newest events and have no completion."""
    found = Intents()
    for each in reversed(project.audit.search(AuditFilter(), limit=_NEWEST)):
        event = each.event
        found.note(each.number, event.at, event.actor, event.action, event.resource, event.detail)
    return found.open


def verify_audit(project: Project, progress: Callable[[int, int], None] | None = None) -> Verdict:
    """Verify the audit log, append the outcome to it, and anchor a whole one.

    Args:
        progress: Called with the number of verified events, and that of all.
    """
    verdict = verdict_of(project, progress)
    found = f"{len(verdict.damage)} findings" if verdict.damage else "whole"
    with suppress(Corrupt):  # the head is damaged, which the verdict says
        audit(project, VERIFIED, "audit", f"{verdict.events} events: {found}")
    if not verdict.damage:
        anchored(project, add=True)
    return verdict


def verdict_of(project: Project, progress: Callable[[int, int], None] | None = None) -> Verdict:
    """Verify the audit log, also against the anchored heads, without appending to it."""
    from mainspring.security.verification import Damage, verify_log

    heads: list[Head] = []
    unread: list[Damage] = []
    foreign: list[str] = []
    for name, place in project.anchors.items():
        try:
            read = [_own_head(note, project.signing_key.public) for note in place.read()]
        except MainspringError as error:
            unread.append(Damage("anchor", f"{name}: {error.what}"))
            continue
        heads += [head for head in read if head is not None]
        if None in read:
            foreign.append(f"{name}: {read.count(None):,} of {len(read):,}")
    verdict = verify_log(project.audit, project.signing_key.public, heads, progress)
    return replace(verdict, damage=(*verdict.damage, *unread), foreign=tuple(foreign))


@dataclass(frozen=True, slots=True)
class Anchored:
    """One place of anchors: the number of events of its newest head, and what is wrong there, empty if nothing is."""

    place: str
    events: int
    problem: str


def anchored(project: Project, *, add: bool = False) -> list[Anchored]:
    """Return the state of each place of anchors. A failure at one holds back neither work nor the others.

    Args:
        add: Whether the log's newest head is kept at each place, if it continues the one that is there.

    Raises:
        Corrupt: The log's head is not signed with this key.
    """
    from mainspring.security.audit_proofs import Proofs, signed_head

    try:
        note, head = signed_head(project.audit, project.signing_key.public)
    except NotFound:  # nothing was appended yet
        return []
    proofs = Proofs(project.audit)
    found: list[Anchored] = []
    for name, place in project.anchors.items():
        events, problem = 0, ""
        try:
            newest, last = _newest(place, project.signing_key.public)
            events = 0 if last is None else last.size
            proof = [] if last is None else _continuing(proofs, last, head)
            if add and newest != note:
                place.append(note, proof)
                events = head.size
        except MainspringError as error:
            problem = error.what
        if add:
            _note(project, name, events, problem)
        found.append(Anchored(name, events, problem))
    return found


def _note(project: Project, place: str, events: int, problem: str) -> None:
    """Note how far the log is anchored at a place, or that it has been tried in vain since now."""
    from mainspring.security.model import AnchorState

    before = project.anchor_states.all().get(place)
    if not problem and (before is None or before.events != events):
        project.anchor_states.save(AnchorState(place, events, project.wall.now()))
    elif before is None:
        project.anchor_states.save(AnchorState(place, 0, project.wall.now()))


def _own_head(note: str, public: bytes) -> Head | None:
    """Return the head in a note, `None` if it is none that this key signed."""
    from mainspring.security.tree_heads import open_head

    try:
        return open_head(note, public)
    except Corrupt:
        return None


def _newest(place: Anchors, public: bytes) -> tuple[str, Head | None]:
    """Return the newest head of this key at a place, also as a note, which is empty if there is none."""
    for note in place.read():
        head = _own_head(note, public)
        if head is not None:
            return note, head
    return "", None


def _continuing(proofs: Proofs, last: Head, head: Head) -> list[bytes]:
    """Return the proof that a head is that of a log which continues the log of a kept head.

    Raises:
        Corrupt: The log was cut off, changed, or replaced by another.
    """
    from mainspring.security.merkle import extends

    proof = proofs.consistency(last.size, head.size) if last.size <= head.size else []
    if not extends(last.root, last.size, head.root, head.size, proof):
        raise Corrupt(
            f"The audit log of {head.size:,} events does not continue the anchored one of {last.size:,}.",
            fix="run `mainspring audit verify`.",
        )
    return proof


def search_audit(project: Project, wanted: AuditFilter, *, limit: int, subjects: bool = False) -> list[AuditEntry]:
    """Return matching events, newest first.

    Args:
        subjects: Whether they name their subjects; that is appended to the log.
    """
    if subjects:
        audit(project, REVEALED, "audit", "search")
    found = project.audit.search(wanted, limit=limit)
    return found if subjects else [replace(each, event=replace(each.event, subject=None)) for each in found]


def prove(project: Project, number: int, *, subjects: bool = False) -> tuple[str, dict[str, Any]]:
    """Return the newest head, and an event with the proof that it is in the head's tree.

    Args:
        subjects: Whether the event names its subject; that is appended to the log.

    Raises:
        NotFound: There is no such event, or no signed head yet.
        Corrupt: The head is not of this installation's key, or a hash is missing.
    """
    from mainspring.security.audit_proofs import Proofs, proven, signed_head

    if subjects:
        audit(project, REVEALED, "audit", f"event {number}")
    note, head = signed_head(project.audit, project.signing_key.public)
    found = project.audit.records(number, number + 1) if number < head.size else []
    if not found:
        raise NotFound(f"There is no event {number}.", fix=f"the log has the events 0 to {head.size - 1}.")
    shown = found[0] if subjects else found[0].without_subject
    return note, proven(shown, Proofs(project.audit).inclusion(number, head.size))


def export_audit(project: Project, file: IO[str], wanted: AuditFilter, *, subjects: bool = False) -> int:
    """Write matching events with their proofs to a file, and append that to the log; return their number.

    Args:
        subjects: Whether the file names the subjects of events. They would outlive their erasure from the log.

    Raises:
        NotFound: The log has no signed head yet.
        Corrupt: The head is not of this installation's key, or a hash is missing.
    """
    from mainspring.security.audit_proofs import export

    what = "with subjects" if subjects else "without subjects"
    audit(project, EXPORTED, "audit", what)
    written = -1  # the first line is the head
    for line in export(project.audit, project.signing_key.public, wanted, subjects=subjects):
        file.write(f"{line}\n")
        written += 1
    return written
