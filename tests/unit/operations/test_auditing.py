"""Anchors of the audit log: what is kept where, and what they show."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa

from kit.console.flights import Project
from mainspring.core.errors import Corrupt, Unavailable
from mainspring.core.time import DAY
from mainspring.operations.access import add_account, grant_role, parse_grant, remove_account
from mainspring.operations.auditing import (
    REVEALED,
    VERIFIED,
    anchored,
    audit,
    prove,
    search_audit,
    unfinished,
    verify_audit,
)
from mainspring.operations.doctor import examine
from mainspring.operations.keys import create_key, revoke_key
from mainspring.security.adapters.anchors_file import FileAnchors
from mainspring.security.model import AuditEvent, AuditFilter, KeyScope, Kind
from mainspring.security.ports import Anchors
from mainspring.security.signing import SigningKey
from mainspring.security.tree_heads import Head, sign_head


class Away:
    """A place that does not answer."""

    def append(self, _note: str, _proof: Sequence[bytes], /) -> None:
        raise Unavailable("It is away.")

    def read(self) -> Iterator[str]:
        raise Unavailable("It is away.")


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Anchors]:
    return {"away": Away(), "file": FileAnchors(tmp_path / "anchors.jsonl")}


@pytest.fixture
def project(places: dict[str, Anchors]) -> Project:
    return Project(anchors=places)


def cut(project: Project, *, to: int) -> Project:
    """Put the log back to fewer events, whole in itself, with a head of this installation's key; return it reopened."""
    kept = project.audit.read(1_000)[::-1][:to]
    with project.engine.begin() as connection:
        for table in ("audit_events", "audit_subtrees", "audit_tree"):
            connection.execute(sa.text(f"DELETE FROM {table}"))
    reopened = project.having()
    reopened.audit.append(kept)
    return reopened


def test_a_head_is_kept_once_and_a_place_that_is_away_holds_back_none(
    project: Project, places: dict[str, Anchors]
) -> None:
    assert anchored(project, add=True) == []  # there is no head yet
    audit(project, "train", "model/late")
    for _ in range(2):
        away, file = anchored(project, add=True)
        assert (away.problem, away.events, file.problem, file.events) == ("It is away.", 0, "", 1)
    assert len(list(places["file"].read())) == 1
    audit(project, "train", "model/late")
    assert anchored(project)[1].events == 1
    assert anchored(project, add=True)[1].events == 2
    checked = [(each.ok, each.detail) for each in examine(project, "audit log")]
    assert [ok for ok, _ in checked] == [True, False, True]
    assert "away" in checked[1][1]


def test_a_log_that_went_back_is_found_and_not_anchored(project: Project, places: dict[str, Anchors]) -> None:
    del places["away"]
    for number in range(5):
        audit(project, "train", f"model/{number}")
    assert verify_audit(project).damage == ()  # an event itself; then it anchors
    assert anchored(project)[0].events == 6
    project = cut(project, to=4)
    assert [(each.kind, each.first, each.last) for each in verify_audit(project).damage] == [("anchor", 4, 5)]
    assert project.audit.read(1)[0].action == VERIFIED
    [place] = anchored(project, add=True)
    assert "does not continue" in place.problem
    audit(project, "train", "model/late")
    assert [(each.kind, each.first, each.last) for each in verify_audit(project).damage] == [("anchor", 0, 5)]
    assert len(list(places["file"].read())) == 1


def test_a_place_that_the_system_refuses_is_named_and_holds_back_none(
    project: Project, places: dict[str, Anchors], tmp_path: Path
) -> None:
    del places["away"]
    (tmp_path / "folder").mkdir()
    project.anchors = {"folder": FileAnchors(tmp_path / "folder"), **places}
    audit(project, "train", "model/late")
    [damage] = verify_audit(project).damage
    assert "folder cannot be reached: Is a directory" in damage.what
    folder, file = anchored(project, add=True)
    assert "Is a directory" in folder.problem
    assert (file.problem, file.events) == ("", 2)


def test_a_file_is_cut_only_where_a_line_is_unfinished(tmp_path: Path) -> None:
    path = tmp_path / "anchors.jsonl"
    place = FileAnchors(path)
    place.append("one", [])
    if subprocess.run(["chattr", "+a", path], capture_output=True, check=False).returncode:
        pytest.skip("no append-only files here")
    try:
        place.append("two", [])
        with path.open("ab") as file:
            file.write(b'{"he')
        with pytest.raises(Unavailable, match=r"anchors\.jsonl"):
            place.append("three", [])
    finally:
        subprocess.run(["chattr", "-a", path], check=True)
    place.append("three", [])
    assert list(place.read()) == ["three", "two", "one"]


def test_heads_of_another_key_are_named_and_left_out(project: Project, places: dict[str, Anchors]) -> None:
    del places["away"]
    file = places["file"]
    audit(project, "train", "model/late")
    anchored(project, add=True)
    file.append(sign_head(Head("mainspring/x", 99, bytes(32)), SigningKey(bytes(range(32)))), [])
    assert [(each.events, each.problem) for each in anchored(project)] == [(1, "")]
    verdict = verify_audit(project)
    assert (verdict.damage, verdict.anchors, verdict.foreign) == ((), 1, ("file: 1 of 2",))
    assert len(list(file.read())) == 3
    file.append("no head", [])
    assert [each.problem for each in anchored(project, add=True)] == [""]
    assert len(list(file.read())) == 4  # the own head there is the newest one of the log


def test_subjects_are_named_on_demand_and_that_is_an_event(project: Project) -> None:
    audit(project, "features.reveal", "model/late", subject="ana")
    [hidden] = search_audit(project, AuditFilter(subject="ana"), limit=9)
    assert hidden.event.subject is None
    assert [prove(project, 0)[1][name] for name in ("salt", "subject")] == [None, None]
    assert len(project.audit.read()) == 1
    [shown] = search_audit(project, AuditFilter(subject="ana"), limit=9, subjects=True)
    assert shown.event.subject == prove(project, 0, subjects=True)[1]["subject"] == "ana"
    assert [(each.action, each.detail) for each in project.audit.read(2)] == [
        (REVEALED, "event 0"), (REVEALED, "search")
    ]  # fmt: skip


def test_anchors_that_cannot_be_read_are_damage(project: Project, places: dict[str, Anchors], tmp_path: Path) -> None:
    audit(project, "train", "model/late")
    assert [each.what for each in verify_audit(project).damage] == ["away: It is away."]
    places.pop("away")
    anchored(project, add=True)
    (tmp_path / "anchors.jsonl").write_bytes(b"{}\n")
    assert ["damaged" in each.what for each in verify_audit(project).damage] == [True]


def test_no_right_changes_where_the_log_would_take_no_event(project: Project) -> None:
    account = add_account(project, Kind.USER, "Ana")
    key_id = create_key(project, "nightly", [KeyScope.VIEW], DAY).split("_")[1]
    grant = parse_grant(project, "viewer", f"user:{account.id}")
    with project.engine.begin() as connection:
        connection.execute(sa.text("UPDATE audit_tree SET size = size - 1"))
    for change in (
        lambda: grant_role(project, grant),
        lambda: remove_account(project, account),
        lambda: add_account(project, Kind.USER, "Ben"),
        lambda: revoke_key(project, key_id),
        lambda: create_key(project, "other", [KeyScope.VIEW], DAY),
    ):
        with pytest.raises(Corrupt, match="audit log"):
            change()
    assert project.accounts.all() == [account]
    assert project.accounts.grants() == []
    [key] = project.key_store.all()
    assert key.revoked_at is None


def test_a_killed_effect_is_found_behind_a_weeks_events_of_a_worker(project: Project) -> None:
    audit(project, "train.begun", "model/late")
    event = AuditEvent(1, "worker", "topics.retain", "topics", "5 messages removed")
    project.audit.append([event] * 9_000)
    assert [each.resource for each in unfinished(project)] == ["model/late"]
