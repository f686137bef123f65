"""Retention: rows past their source's time are in no byte of any store, those of held subjects and young ones stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow.parquet as pq
import pytest

import mainspring as ms
from kit.erased_shop import ANA, BEN, customers, found_in, ingest, opened, rows, subject, write
from mainspring.core.errors import Invalid, InvalidDefinition, NotFound
from mainspring.core.time import DAY, ManualClock, parse_instant
from mainspring.data import commits, duck
from mainspring.data.model import Retention
from mainspring.data.sealed import SealedLake
from mainspring.data.streams.decoding import LETTERS, letter_rows
from mainspring.data.streams.model import Message
from mainspring.operations.evidence.measures import measured
from mainspring.operations.ingest import land
from mainspring.operations.materialize import materialise_views
from mainspring.operations.subjects import holding, retaining
from mainspring.operations.subjects.naming import find_subjects
from mainspring.operations.subjects.receipts import verified
from mainspring.project import Project
from mainspring.security.model import Erasure, LegalHold

NOW = parse_instant("2024-06-20T15:00:00Z")
COMPUTED = """

@ms.python_features(entity=customer, source=purchases, columns=["email"], returns={"host": ms.String})
def Host(email):
    return {"host": email}
"""
OLD, LAST, YOUNG = "2024-03-20", "2024-03-22", "2024-06-01"  # 90 days before NOW is 22 March


def project_with(folder: Path, retention: str) -> Project:
    write(folder, retention=retention)
    return at_now(folder)


def at_now(folder: Path) -> Project:
    project = opened(folder)
    project.__dict__["wall"] = ManualClock(NOW)
    return project


def planted(folder: Path, retention: str) -> Project:
    project = project_with(folder, retention)
    ingest(project, folder, *rows(ANA, "ana.erased@example.org", [617.25, -1.0], OLD), *rows(BEN, "b@mail", [1.0], OLD))
    commits.commit(project.lake, project.snapshots, project.wall)
    ingest(project, folder, *rows(BEN, "b@mail", [2.0], LAST), *rows("eve", "e@mail", [3.0], YOUNG))
    letters = [Message(0, number, key.encode(), b"{", parse_instant(f"{day}T00:00:00Z"))
               for number, (key, day) in enumerate([(ANA, OLD), ("eve", YOUNG)])]  # fmt: skip
    table = letter_rows([(each, "torn") for each in letters], 0, "b")
    project.lake.append("purchases__dead_letters", table.to_batches(), LETTERS, key="b")
    materialise_views(project)
    return project


def emails(project: Project) -> dict[str, list[str | None]]:
    found: dict[str, list[str | None]] = {}
    for file in project.lake.scan("purchases").files or ():
        for row in pq.read_table(file).to_pylist():
            found.setdefault(row["customer"], []).append(row["email"])
    return found


def test_rows_past_their_time_are_in_no_byte_of_any_store(tmp_path: Path) -> None:
    project = planted(tmp_path, 'ms.Retention(days=90, purpose="fraud")')
    holding.hold(project, [subject(project, BEN)], "case 4711")
    before = found_in(tmp_path / ".mainspring")
    planned = retaining.plan(project)
    assert {each.store: each.rows for each in planned.held} == {"lake/purchases": 1, "lake/purchases__quarantine": 1}
    assert (planned.rebuilt, len(planned.commits)) == (["Spending", "Shop"], 1)
    assert found_in(tmp_path / ".mainspring") == before
    assert "lake/purchases__quarantine" in " ".join(before)

    with patch.object(retaining, "_AT_ONCE", 1):
        done = retaining.retain(project)
    assert done is not None
    receipt = verified(done.receipt.encode(), project.signing_key.public)
    assert [each["how"] for each in receipt["stores"]] == ["deleted before 2024-03-22T00:00:00Z, kept for fraud"] * 2
    assert receipt["not_reached"] == ["lake/purchases__dead_letters: kept, as they may quote subjects on hold"]
    assert {path.split("/")[1] for path in found_in(tmp_path / ".mainspring")} == {"purchases__dead_letters"}
    assert customers(project) == [BEN, "eve"]
    assert project.lake.describe("purchases__dead_letters").rows == 2
    with pytest.raises(NotFound):
        project.lake.scan("purchases", 0)
    assert retaining.retain(project) is None
    assert [each.action for each in project.audit.read(100)].count("retention.run") == 2

    holding.release(project, [subject(project, BEN)])
    done = retaining.retain(project)
    assert done is not None
    assert found_in(tmp_path / ".mainspring") == []
    assert project.lake.describe("purchases__dead_letters").rows == 1
    assert emails(project) == {BEN: ["b@mail"], "eve": ["e@mail"]}
    assert project.erasures.all()[0] == done


def test_values_past_their_time_are_removed_and_their_rows_stay(tmp_path: Path) -> None:
    project = planted(tmp_path, '[ms.Retention(days=90, purpose="mail", columns="email"), ms.Retention(days=365)]')
    done = retaining.retain(project)
    assert done is not None
    assert emails(project) == {ANA: [None], BEN: [None, "b@mail"], "eve": ["e@mail"]}
    left = [path for path in (tmp_path / ".mainspring").rglob("*") if path.is_file()
            and b"ana.erased@" in path.read_bytes()]  # fmt: skip
    assert left == []
    with patch.object(retaining, "_marks", wraps=retaining._marks) as marks:
        assert retaining.retain(project) is None
    assert {call.args[1].table for call in marks.call_args_list} == {"purchases__quarantine"}  # whose times are text


def test_rows_are_kept_while_nobody_can_tell_whether_they_are_of_a_subject_on_hold(tmp_path: Path) -> None:
    project = project_with(tmp_path, "ms.Retention(days=90)")
    unreadable = [f"{ANA},{shop},a@mail,-1.0,{OLD}T12:00:00Z" for shop in ("seven", "")]
    ingest(project, tmp_path, *rows(ANA, "a@mail", [1.0, -1.0], OLD), *unreadable)

    def left(table: str) -> list[str]:
        return sorted(str(each) for batch in duck.batches(project.lake.scan(table), ["shop"]) for each in batch["shop"])

    of_nothing = LegalHold(bytes(32), "former", "an entity that is no longer declared", NOW, "eve")
    project.erasures.hold(of_nothing)
    told = "rows kept, as it cannot be told whether they are of a subject on hold"
    assert retaining.plan(project).outside == [f"lake/purchases: 1 {told}", f"lake/purchases__quarantine: 3 {told}"]
    assert retaining.retain(project) is None
    project.erasures.release(of_nothing.subject)

    (shop,) = find_subjects(project, "shop", ["9"])
    holding.hold(project, [shop], "case 4711")
    done = retaining.retain(project)
    assert done is not None
    receipt = verified(done.receipt.encode())
    assert {each["store"]: each["rows"] for each in receipt["stores"]} == {
        "lake/purchases": 1, "lake/purchases__quarantine": 1,
    }  # fmt: skip
    assert receipt["not_reached"] == [f"lake/purchases__quarantine: 2 {told}"]
    assert (left("purchases"), left("purchases__quarantine")) == ([], ["None", "seven"])
    assert retaining.retain(project) is None
    holding.release(project, [shop])
    assert retaining.retain(project) is not None
    assert left("purchases__quarantine") == []


@pytest.mark.parametrize("at", ["lake/purchases__quarantine", "view Shop"])
def test_a_run_that_was_killed_is_ended_by_the_next(tmp_path: Path, at: str) -> None:
    project = planted(tmp_path, "ms.Retention(days=90)")

    class Killed(Exception):
        pass

    def told(store: str) -> None:
        if store == at:
            raise Killed

    with pytest.raises(Killed):
        retaining.retain(project, told)
    assert found_in(tmp_path / ".mainspring") != []
    assert project.erasures.all()[0].done_at is None
    project.close()
    with (tmp_path / "erased_shop.py").open("a") as module:  # of which alone rows are due after a kill at a view
        module.write(
            '\nclicks = ms.Source("clicks", schema={"n": ms.Int64}, event_time="at", retention=ms.Retention(days=1))\n'
        )
    project = at_now(tmp_path)
    (tmp_path / "clicks.csv").write_text(f"n,at\n1,{OLD}T00:00:00Z\n")
    land(project, "clicks", str(tmp_path / "clicks.csv"))
    assert retaining.retain(project) is not None
    assert found_in(tmp_path / ".mainspring") == []


def test_nothing_is_decrypted_to_delete_rows(tmp_path: Path) -> None:
    write(tmp_path, retention="ms.Retention(days=90)")
    project = opened(tmp_path, pii_encrypted=True)
    project.__dict__["wall"] = ManualClock(NOW)
    ingest(project, tmp_path, *rows(ANA, "ana.erased@example.org", [1.0], OLD), *rows("eve", "e@mail", [3.0], YOUNG))

    class Rebuilding(Exception):
        pass

    def told(store: str) -> None:
        if store.startswith("view"):
            raise Rebuilding

    with patch.object(SealedLake, "_open", side_effect=ValueError), pytest.raises(Rebuilding):
        retaining.retain(project, told)
    assert customers(project) == ["eve"]


def test_the_record_of_a_run_and_its_event_are_one(tmp_path: Path) -> None:
    project = planted(tmp_path, "ms.Retention(days=90)")
    with pytest.raises(NotFound), patch.object(project.audit, "append", side_effect=NotFound("no room")):
        retaining.retain(project)
    assert project.erasures.all() == []


def test_a_day_is_kept_whole_and_what_cannot_be_is_refused(tmp_path: Path) -> None:
    assert Retention(days=1).before(5 * DAY + 1) == Retention(days=1).before(6 * DAY - 1) == 4 * DAY
    for days in (0, -1, True, 1.5, "90", 10**6):
        with pytest.raises(Invalid, match="days"):
            Retention(days=days)  # type: ignore[arg-type]
    schema = {"a": ms.String, "amount": ms.Float64}
    wrong: dict[str, Any] = {
        "'at' alone": Retention(days=1, columns="at"),
        "'b' alone": Retention(days=1, columns=["b"]),
        "several times": [Retention(days=1), Retention(days=2)],
        "retention of source": 90,
    }
    for told, retention in wrong.items():
        with pytest.raises(Invalid, match=told):
            ms.Source("s", schema=schema, event_time="at", retention=retention)
    ms.Source("s", schema=schema, event_time="at", retention=[Retention(days=1, columns="a"), Retention(days=2)])
    with pytest.raises(InvalidDefinition, match="'purchases' cannot lose 'customer' alone: 'Spending' has it as key"):
        project_with(tmp_path, 'ms.Retention(days=90, columns=["email", "customer"])').definitions  # noqa: B018


def test_evidence_says_how_retention_stands(tmp_path: Path) -> None:
    def state(project: Project) -> str:
        return measured(project, ("retention-of-rows",))["retention-of-rows"].state.name

    project = project_with(tmp_path, "ms.Retention(days=90)")
    assert state(project) == "HOLDS"
    project.erasures.begin(Erasure("01" * 13, "", (), 1))
    assert state(project) == "FAILS"
    assert state(project_with(tmp_path, "()")) == "FAILS"
    project.erasures.finish("01" * 13, "{}", 2)
    assert state(project_with(tmp_path, "()")) == "OFF"
    assert state(project_with(tmp_path, 'ms.Retention(days=90, columns="amount")')) == "OFF"
    assert state(project_with(tmp_path, 'ms.Retention(days=90, columns="email")')) == "HOLDS"
    for retention in ("ms.Retention(days=90)", 'ms.Retention(days=90, columns="email")'):  # of what is computed as well
        write(tmp_path, retention=retention)
        with (tmp_path / "erased_shop.py").open("a") as module:
            module.write(COMPUTED)
        assert state(at_now(tmp_path)) == "HOLDS"
