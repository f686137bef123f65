"""Rotation and state of a project's encryption keys, and what a prediction log does meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mainspring.core.errors import Corrupt, Invalid
from mainspring.ledger.model import Asked
from mainspring.ledger.recording import Recorder
from mainspring.operations import encryption
from mainspring.operations.auditing import audit
from mainspring.operations.doctor import examine
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings
from mainspring.security.envelopes import key_of
from mainspring.security.model import Wrapped


def opened(folder: Path, **settings: Any) -> Project:
    (folder / "mainspring.toml").write_text('name = "shop"\nmodules = []\n')
    return open_project(load_settings(folder, overrides={"tracking": "memory://", **settings}, environment={}))


def log(project: Project, *ids: str) -> None:
    recorder = Recorder(
        project.prediction_log, endpoint="late", model="late", version="1", digest="d", personal=["email"]
    )
    for each in ids:
        outputs: dict[str, Any] = {"probability": [0.5]}
        done = recorder.record(
            at=1, ids=[each], asked=[Asked("test", 1, 1, "")], features={"email": [f"{each}@example.org"]},
            outputs=outputs,
        )  # fmt: skip
        assert not done
    project.prediction_log.close()


def emails(folder: Path, *ids: str) -> list[Any]:
    """Return the values as another process reads them."""
    project = opened(folder)
    found = [project.predictions.revealed(project.predictions.find(each)).features["email"] for each in ids]
    project.close()
    return found


def findings(project: Project) -> list[tuple[bool, str]]:
    return [(each.ok, each.detail) for each in examine(project, "encryption")]


def test_nothing_is_made_before_it_is_needed(tmp_path: Path) -> None:
    project = opened(tmp_path)
    found = encryption.state(project)
    assert (found.version, found.keys) == ("1", [])
    assert findings(project)[0][0]
    assert not (tmp_path / ".mainspring" / "keys" / "master").exists()


def test_personal_values_stay_readable_over_rotations_and_the_log_is_written_meanwhile(tmp_path: Path) -> None:
    running = opened(tmp_path)
    log(running, "p1")
    operator = opened(tmp_path)
    assert encryption.rotate(operator) == encryption.Rotation("2", 1, [])
    log(opened(tmp_path), "p2")
    assert encryption.renew(operator) == encryption.Rotation("2", 0, ["predictions"])
    log(opened(tmp_path), "p3")
    running.predictions.compact()
    assert emails(tmp_path, "p1", "p2", "p3") == ["p1@example.org", "p2@example.org", "p3@example.org"]
    named = [key_of(operator.predictions.find(each).sealed) for each in ("p1", "p2", "p3")]
    assert named == [named[0], named[0], named[2]] != [named[0]] * 3
    assert [(each.number, each.version, each.behind) for each in encryption.state(operator).keys] == [
        (1, "2", False), (2, "2", False),
    ]  # fmt: skip
    assert [(each.action, each.detail.partition(" ")[0]) for each in reversed(operator.audit.read())] == [
        ("encryption.rotate", "made"), ("encryption.rotate", "1"), ("encryption.renew", "number"),
    ]  # fmt: skip


def test_while_the_service_makes_a_new_key_others_write_to_the_catalog(tmp_path: Path) -> None:
    operator, other = opened(tmp_path), opened(tmp_path)
    log(operator, "p1")
    audit(other, "tidy", "project")
    wrap = operator.key_service.wrap

    def slow(keys: Sequence[bytes], contexts: Sequence[str]) -> list[Wrapped]:
        audit(other, "tidy", "project")
        return wrap(keys, contexts)

    operator.key_service.wrap = slow  # type: ignore[method-assign]
    assert encryption.renew(operator).renewed == ["predictions"]
    assert [each.action for each in operator.audit.read()] == ["encryption.renew", "tidy", "tidy"]


def test_a_rotation_that_was_killed_is_reported_and_finished_by_the_next(tmp_path: Path) -> None:
    project = opened(tmp_path)
    log(project, "p1")
    project.key_service.rotate()
    assert [each for each, _ in findings(project)] == [False]
    assert encryption.rotate(project) == encryption.Rotation("2", 1, [])
    assert [each for each, _ in findings(project)] == [True]


def test_another_service_takes_the_data_keys_over(tmp_path: Path) -> None:
    log(opened(tmp_path), "p1")
    project = opened(tmp_path, encryption="file:elsewhere")
    assert findings(project)[0][0] is False
    assert encryption.rotate(project, former="file:").wrapped == 1
    assert findings(project)[0][0]
    assert (tmp_path / "elsewhere" / "1").stat().st_mode & 0o777 == 0o600
    assert project.predictions.revealed(project.predictions.find("p1")).features == {"email": "p1@example.org"}


def test_values_of_earlier_versions_open_with_the_file_they_were_encrypted_with(tmp_path: Path) -> None:
    former = bytes.fromhex(
        "018fd68a2b7962d33172dcfe0a9a03ebc400000000000000000000000081c4a3c56b358abb8ac6e5"
        "54ec22799860b84a4a748cce14082c5eebf005fe648a02ff343f"
    )
    project = opened(tmp_path)
    keys = tmp_path / ".mainspring" / "keys"
    keys.mkdir()
    (keys / "ledger").write_bytes(bytes(range(32)))
    (keys / "ledger").chmod(0o600)
    assert project.opener.open("p1", former) == {"email": "a@example.org"}
    (keys / "ledger").unlink()
    with pytest.raises(Corrupt, match="keys/ledger"):
        project.opener.open("p1", former)


@pytest.mark.parametrize("address", ["", "nowhere", "mailto:someone", "vault"])
def test_an_address_without_a_service_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(Invalid):
        _ = opened(tmp_path, encryption=address).key_service


def by_person(project: Project, people: dict[str, str]) -> None:
    """Log a prediction by id for each person, with the key `person`."""
    recorder = Recorder(
        project.prediction_log, endpoint="late", model="late", version="1", digest="d", keys=["person"],
        personal=["email"],
    )  # fmt: skip
    for id_, person in people.items():
        outputs: dict[str, Any] = {"probability": [0.5]}
        recorder.record(
            at=1, ids=[id_], asked=[Asked("test", 1, 1, "")], features={"email": [f"{person}@example.org"]},
            sent={"person": [person]}, outputs=outputs,
        )  # fmt: skip
    project.prediction_log.close()


def test_an_erased_subject_is_read_nowhere_and_all_else_is(tmp_path: Path) -> None:
    running = opened(tmp_path)
    by_person(running, {"p1": "ana", "p2": "ben", "p3": "ana"})
    running.predictions.compact()
    by_person(opened(tmp_path), {"p4": "ana", "p5": "ben"})  # not compacted yet
    named = [key_of(running.predictions.find(each).sealed) for each in ("p1", "p2", "p3", "p4", "p5")]
    assert (named[0] == named[2], named[3] == named[4], len(set(named))) == (True, True, 3)
    assert opened(tmp_path).subject_keys.destroy(["person=ana"]) == 1

    def shown(project: Project) -> list[Any]:
        found = [project.predictions.revealed(project.predictions.find(f"p{number}")) for number in range(1, 6)]
        return [(each.withheld, each.features.get("email")) for each in found]

    erased, ben = ("left out", None), (None, "ben@example.org")
    assert shown(running) == shown(opened(tmp_path)) == [erased, ben, erased, erased, ben]
    later = opened(tmp_path)
    later.predictions.compact()
    assert later.predictions.find("p4").withheld == "left out"  # compaction stored none of it
    assert shown(later) == [erased, ben, erased, erased, ben]
    table = later.predictions.read("late", 0, 10).sort_by("id")
    assert ["@" in each for each in table["features"].to_pylist()] == [False, True, False, False, True]
    assert table["personal"].to_pylist() == ['["email"]', "[]", '["email"]', '["email"]', "[]"]


def test_a_new_data_key_changes_no_subject(tmp_path: Path) -> None:
    project = opened(tmp_path)
    (before,) = project.subject_keys.keys(["person=ana"])
    assert encryption.renew(project).renewed == ["subjects"]
    assert opened(tmp_path).subject_keys.keys(["person=ana"]) == [before]
