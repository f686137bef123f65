"""Erasure of subjects: afterwards no byte of any store has their keys or values, and everybody else is as before."""

from __future__ import annotations

import shutil
import sqlite3
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kit.erased_shop import (
    AMOUNT,
    ANA,
    BEN,
    HOSTILE,
    MAIL,
    NEEDLES,
    customers,
    found_in,
    ingest,
    opened,
    planted,
    rows,
    subject,
    write,
)
from kit.waiting import wait_until
from mainspring.console.features.values import looked_up
from mainspring.core.errors import Conflict, Corrupt, Invalid, NotFound
from mainspring.data.sealed import SealedLake
from mainspring.data.streams.model import NewMessage
from mainspring.data.streams.reading import read_between
from mainspring.features.layout import slot
from mainspring.features.tilelog.rows import tiles_table
from mainspring.llm.answers.rating import FOLDER, Rating
from mainspring.operations.auditing import audit
from mainspring.operations.encryption import rewrite
from mainspring.operations.features.verifying import verify
from mainspring.operations.materialize import materialise_views
from mainspring.operations.streams.running import lander_of
from mainspring.operations.subjects import erasing, exporting, holding
from mainspring.operations.subjects.naming import Subject, find_subjects
from mainspring.operations.subjects.receipts import verified
from mainspring.operations.subjects.remains import remains
from mainspring.project import Project
from mainspring.registry.runs import PURPOSE
from mainspring.security.model import Binding, Erasure, KeyScope, Principal, Role
from mainspring.serving.streaming.event import DeadLetter, Output
from mainspring.serving.streaming.progress import BatchRecord, Part, Progress
from mainspring.serving.streaming.state import Commit, PartitionState, Waiting
from mainspring.training import label_issues as labels
from mainspring.training import near_duplicates as copies
from mainspring.training.label_issues import Suspect, Suspects
from mainspring.training.near_duplicates import NearDuplicate, NearDuplicates, Row
from mainspring.training.row_table import csv_table

ENDPOINTS = """

checks = ms.StreamEndpoint(
    "checks", model="m@champion", topic="asked", source=purchases, key="customer", to=[ms.to_topic("answers")]
)
shops = ms.StreamEndpoint("shops", model="m@champion", topic="asked", source=purchases, key="shop")
"""


def rated(state: Path) -> None:
    """Keep ratings of answers to Ana and Ben, of one that is gone, and one of Ben's that quotes her."""
    for place, answer, reason in (
        ("refused/one.json", "clear0", "She was told the sum."), ("two.json", "clear1", f"It is about {ANA}, not me."),
        ("three.taken", "clear1", "It helped."), ("refused/four.json", "gone0", "Whoever this was."),
    ):  # fmt: skip
        path = state / FOLDER / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            msgspec.json.encode(Rating(answers="late", answer=answer, column="good", value=True, reason=reason))
        )


def test_after_an_erasure_no_byte_of_any_store_is_the_subjects(tmp_path: Path) -> None:
    state = tmp_path / ".mainspring"
    project = planted(tmp_path)
    rated(state)
    wait_until(lambda: found_in(state / "ledger"), "the file of the log that is not compacted")
    before = " ".join(found_in(state))
    for store in (
        "purchases/",
        "purchases__quarantine/",
        "predictions/",
        "tiles__Shop",
        "tiles__Spending",
        "online.db",
    ):
        assert store in before
    assert "ledger/" in before
    assert "catalog.db" in before
    ana, ben = subject(project), subject(project, BEN)
    slots = [each for each in project.online.views() if each.startswith("Spending")]
    bens = project.online.payloads([(each, ben.encoded) for each in slots])
    with zipfile.ZipFile(_exported(project, tmp_path)) as archive:
        lines = {name: archive.read(name).splitlines() for name in archive.namelist()}
        manifest = msgspec.json.decode(archive.read("manifest.json"))
    assert manifest["keys"] == {"customer": ANA}
    assert {each["file"]: each["rows"] for each in manifest["files"]} == {
        "tables/purchases.jsonl": 2, "tables/purchases__quarantine.jsonl": 1, "features.jsonl": 1,
        "predictions.jsonl": 3, "ratings.jsonl": 2, "audit.jsonl": 3,
    }  # fmt: skip
    assert sum(ANA.encode() in line for line in lines["predictions.jsonl"]) == 3
    assert not any(BEN.encode() in line or b"ana-7f3e9c21x" in line for each in lines.values() for line in each)
    planned = erasing.plan(project, [ana])
    held = {each.store: each.rows for each in planned.held if "tiles" not in each.store}
    assert held == {
        "lake/purchases": 2, "lake/purchases__quarantine": 1, "ratings": 3, "online": 1, "predictions": 3, "keys": 1,
    }  # fmt: skip
    assert planned.rebuilt == ["Shop"]
    assert [each.partition(" ")[2] for each in planned.commits] == ["before"]
    assert " ".join(found_in(state)) == before

    erasure = erasing.erase(project, [ana], reason="asked")
    receipt = verified(erasure.receipt.encode(), project.signing_key.public)
    assert {each["store"]: each["rows"] for each in receipt["stores"] if "tiles" not in each["store"]} == held
    assert receipt["still_in"] == []
    assert found_in(state) == []
    assert [path.name for path in (state / FOLDER).rglob("*.*")] == ["three.taken"]
    assert project.erasures.all() == [erasure]
    with pytest.raises(Corrupt):
        verified(erasure.receipt.replace("asked", "ashed").encode())
    assert customers(project) == sorted({BEN, *HOSTILE})
    assert project.online.payloads([(each, ben.encoded) for each in slots]) == bens
    assert {each.id for each in project.predictions.recent()} == {"clear1", "clear2", "sealed1", "late1"}
    with pytest.raises(NotFound, match="vacuumed"):
        project.lake.scan("purchases", 0)
    assert erasing.plan(project, [ana]).held == []
    materialise_views(project)
    assert found_in(state) == []


def _exported(project: Project, folder: Path) -> Path:
    path = folder / "ana.zip"
    path.touch()
    with path.open("rb") as another:  # a user who could open the file that was there before
        exporting.export(project, subject(project), path)
        assert another.read() == b""
    assert path.stat().st_mode & 0o777 == 0o600
    return path


def test_events_of_revealed_values_are_exported_and_erased(tmp_path: Path) -> None:
    write(tmp_path)
    project = opened(tmp_path)
    ingest(project, tmp_path, *rows(ANA, MAIL, [AMOUNT]))
    materialise_views(project)
    who = Principal("local:eve", "eve", frozenset(KeyScope), roles=frozenset({Binding(Role.ADMINISTRATOR)}))
    looked_up(project, project.definitions.view("Spending"), {"customer": ANA}, reveal_to=who)
    with zipfile.ZipFile(_exported(project, tmp_path)) as archive:
        assert b"features.reveal" in archive.read("audit.jsonl")
    audit(project, "features.reveal", "view/Spending", subject=ANA)  # as former versions named the subject
    erasing.erase(project, [subject(project)])
    assert [each.subject for each in project.audit.read() if each.subject] == []


def test_a_key_beside_other_text_in_a_database_is_found(tmp_path: Path) -> None:
    write(tmp_path)
    project = opened(tmp_path)
    path = project.settings.state / "other.db"
    path.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE t (a TEXT, b TEXT, c TEXT)")
        connection.execute("INSERT INTO t VALUES ('email', ?, 'x')", [ANA])
    for name in ("data.mdb", "words.txt"):
        (path.parent / name).write_text(f"email{ANA}x")
    assert remains(project, [subject(project)]) == ["data.mdb", "other.db"]


def test_tables_of_runs_lose_rows_and_other_files_of_runs_are_decided_on(tmp_path: Path) -> None:
    state = tmp_path / ".mainspring"
    write(tmp_path)
    project = opened(tmp_path, tracking=f"sqlite:///{state / 'tracking.db'}")
    ana, of_ana, of_ben = subject(project), {"customer": ANA}, {"customer": BEN}
    suspects = tuple(Suspect(keys, 1, "late", "in time", 0.9, repeats=False) for keys in (of_ana, of_ben))
    rows_ = [Row(keys, 1, "training", "late") for keys in (of_ben, of_ana, of_ben)]
    repeats = tuple(NearDuplicate(*pair, 0.99) for pair in pairwise([*rows_, rows_[0]]))
    groups = csv_table(("group", "gain"), [(f"purchases.customer={each}", 0.1) for each in (ANA, BEN)])
    own = {
        "label issues": labels.table_of(Suspects(2, (), (), suspects)),
        "near duplicates": copies.table_of(NearDuplicates({}, {}, {}, (), repeats)),
        "influence": groups,
    }
    names = {}
    for purpose, content in own.items():
        names[purpose] = project.tracking.start("late", {PURPOSE: purpose}, 1), f"{purpose.replace(' ', '_')}.csv"
        project.tracking.log_artefact(*names[purpose], content)
    theirs = project.tracking.start("late", {}, 1)
    pq.write_table(pa.table({"who": [ANA] * 100}), tmp_path / "sample.parquet")
    for name, kept in {
        "errors/worst.txt": f"worst: {ANA}".encode(),
        "label_issues.csv": own["label issues"],
        "others.txt": b"ana-7f3e9c21x",
        "sample.parquet": tmp_path / "sample.parquet",
    }.items():
        project.tracking.log_artefact(theirs, name, kept)
    with closing(sqlite3.connect(state / "tracking.db")) as connection, connection:
        connection.execute("UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_uuid = ?", [theirs])
    left = [f"{theirs}/{name}" for name in ("errors/worst.txt", "label_issues.csv", "sample.parquet")]
    assert erasing.plan(project, [ana]).artefacts == left

    receipt = verified(erasing.erase(project, [ana]).receipt.encode())
    assert receipt["artefacts"] == [{"artefact": each, "decision": "keep"} for each in left]
    assert {each["store"]: each["rows"] for each in receipt["stores"]} == {
        "runs/" + "/".join(name): 2 if name[1].startswith("near") else 1 for name in names.values()
    } | {"keys": 1}
    found = found_in(state)
    assert found == receipt["still_in"] == sorted(each for each in found if f"/{theirs}/" in each)
    assert len(found) == len(left)
    assert project.tracking.artefact(*names["influence"]).decode().split() == [
        "group,gain",
        f"purchases.customer={BEN},0.1",
    ]
    assert [project.tracking.artefact(*names[each]).count(BEN.encode()) for each in names] == [1, 2, 1]

    receipt = verified(erasing.erase(project, [ana], decision="delete").receipt.encode())
    assert receipt["artefacts"] == [{"artefact": each, "decision": "delete"} for each in left]
    assert (found_in(state), receipt["still_in"]) == ([], [])
    assert list(project.tracking.artefacts(theirs)) == ["others.txt"]


def test_runs_whose_tags_name_a_subject_are_told(tmp_path: Path) -> None:
    write(tmp_path)
    project = opened(tmp_path)
    run = project.tracking.start("late", {"about": ANA}, 1)
    project.tracking.log_artefact(run, "worst.txt", ANA.encode())
    planned = erasing.plan(project, [subject(project)])
    assert planned.outside[0] == f"parameters or tags of run {run}"
    assert planned.artefacts == [f"{run}/worst.txt"]


def test_files_that_only_say_that_they_are_our_tables_keep_nobody_from_being_erased(tmp_path: Path) -> None:
    write(tmp_path)
    project = opened(tmp_path)
    contents = [b"customer,score\n\n", b"customer\n\xff\n", b"customer\n" + b"x" * 200_000 + b"\n", b"customer\n\0\n"]
    runs = [project.tracking.start("late", {PURPOSE: "label issues"}, 1) for _ in contents]
    for run, content in zip(runs, contents, strict=True):
        project.tracking.log_artefact(run, "label_issues.csv", content + ANA.encode())
    unnamed = project.tracking.start("late", {PURPOSE: ""}, 1)
    project.tracking.log_artefact(unnamed, "model.bin", b"\xff")
    planned = erasing.plan(project, [subject(project)])
    assert sorted(planned.artefacts) == sorted(f"{run}/label_issues.csv" for run in runs[:3])
    assert planned.held[0].store == f"runs/{runs[3]}/label_issues.csv"


def test_hostile_names_erase_only_themselves_also_at_once(tmp_path: Path) -> None:
    project = planted(tmp_path)
    with ThreadPoolExecutor(2) as threads:
        done = list(threads.map(lambda name: _erased(tmp_path, name), HOSTILE))
    assert [each.subjects for each in done] == [
        (project.subject_keys.digests([subject(project, name).name])[0],) for name in HOSTILE
    ]
    assert customers(project) == [ANA, BEN]
    assert {each.id for each in project.predictions.recent()} == {
        "clear0", "clear1", "sealed0", "sealed1", "late0", "late1",
    }  # fmt: skip


def _erased(folder: Path, name: str) -> Erasure:
    project = opened(folder)
    return erasing.erase(project, [subject(project, name)])


def test_a_restored_backup_brings_nobody_back(tmp_path: Path) -> None:
    state, backup = tmp_path / ".mainspring", tmp_path.with_name("backup")
    project = planted(tmp_path)
    names = ("lake", "online.db", "catalog.db")
    project.close()
    for name in names:
        _copied(state / name, backup / name)
    _erased(tmp_path, ANA)
    assert found_in(state) == []
    for path in (*state.glob("*.db-*"), *(state / name for name in names)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in names:
        _copied(backup / name, state / name)
    project = opened(tmp_path)
    assert ANA in customers(project)
    made, held = erasing.erase_again(project)
    assert held == 0
    assert [each.subjects for each in made] == [tuple(project.subject_keys.digests([subject(project).name]))]
    assert found_in(state) == []
    assert erasing.erase_again(project) == ([], 0)
    assert customers(project) == sorted({BEN, *HOSTILE})


def _copied(source: Path, to: Path) -> None:
    to.parent.mkdir(exist_ok=True)
    shutil.copytree(source, to) if source.is_dir() else shutil.copy(source, to)


def _interrupted(*_: object) -> None:
    raise RuntimeError("killed")


def test_personal_columns_are_in_no_file_and_everything_is_as_in_clear(tmp_path: Path) -> None:
    state, values = tmp_path / ".mainspring", NEEDLES[1:]
    project = planted(tmp_path, ("customer", "email", "amount"), pii_encrypted=True, online_encrypted=True)
    assert found_in(state, values) == []
    views = project.definitions.views.values()
    assert [each.mismatches for view in views for each in verify(project, view, sample=9)] == [(), ()]
    tiles = project.stored_lake.scan(tiles_table(slot(project.definitions.views["Spending"]))).schema
    counts = [each for each in tiles.names if each.startswith("_sealed_n_")]
    assert len(counts) == 1, "how often a marked column has a value tells it; how many rows there are does not"
    with zipfile.ZipFile(_exported(project, tmp_path)) as archive:
        kept = [msgspec.json.decode(line) for line in archive.read("tables/purchases.jsonl").splitlines()]
        (failed,) = map(msgspec.json.decode, archive.read("tables/purchases__quarantine.jsonl").splitlines())
    assert sorted((each["email"], each["amount"]) for each in kept) == [(MAIL, 3.0), (MAIL, AMOUNT)]
    assert (failed["email"], failed["amount"], failed["_reason"]) == (MAIL, "-1.0", "fails amount in [0, 1000]")
    assert rewrite(project) == []

    project = opened(tmp_path)
    assert {"purchases", "purchases__quarantine"} < {*rewrite(project)}
    assert any("purchases/" in each for each in found_in(state, values))
    project = opened(tmp_path, pii_encrypted=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(project.stored_lake), "forget", _interrupted)
        with pytest.raises(RuntimeError, match="killed"):
            rewrite(project, ["purchases"])
    project = opened(tmp_path, pii_encrypted=True)
    assert "purchases" in rewrite(project)
    assert found_in(state, values) == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SealedLake, "_open", _interrupted)
        assert erasing.erase_again(project) == ([], 0), "who is back is told by keys: nothing is decrypted"
    assert "encryption.rewrite" in {each.action for each in project.audit.read(5)}
    erasing.erase(project, [subject(project)])
    assert found_in(state) == []


def test_states_that_were_encrypted_are_erased_where_the_setting_is_switched_off(tmp_path: Path) -> None:
    write(tmp_path)
    encrypted = opened(tmp_path, online_encrypted=True)
    ingest(encrypted, tmp_path, *rows(ANA, "a@example.org", [1.0]), *rows(BEN, "b@example.org", [1.0]))
    materialise_views(encrypted)
    (spending,) = [each for each in encrypted.online.views() if each.startswith("Spending")]
    ana, ben = [(spending, subject(encrypted, each).encoded) for each in (ANA, BEN)]
    assert None not in encrypted.online.payloads([ana, ben])
    project = opened(tmp_path)
    assert {each.store: each.rows for each in erasing.plan(project, [subject(project)]).held}["online"] == 1
    erasing.erase(project, [subject(project)])
    assert [each is None for each in opened(tmp_path, online_encrypted=True).online.payloads([ana, ben])] == [
        True, False,
    ]  # fmt: skip
    left = [each.removeprefix("sealed.") for each in project.stored_online.views() if each.startswith("sealed.")]
    assert left == [spending]  # that of the shop had Ana as its buyer


def test_a_held_subject_is_not_erased(tmp_path: Path) -> None:
    write(tmp_path)
    project = opened(tmp_path)
    ingest(project, tmp_path, *rows(ANA, "a@example.org", [1.0]), *rows(BEN, "b@example.org", [1.0]))
    ana = [subject(project)]
    with ThreadPoolExecutor(1) as threads:
        with project.locks.hold(erasing.LOCK):  # an erasure is under way: nobody is told that it spares the subject
            held = threads.submit(holding.hold, project, ana, "case 4711")
            with pytest.raises(TimeoutError):
                held.result(0.5)
        held.result(60)
    for attempt in (erasing.plan, erasing.erase):
        with pytest.raises(Conflict, match="case 4711"):
            attempt(project, [*ana, subject(project, BEN)])
    assert customers(project) == [ANA, BEN]
    holding.release(project, ana)
    erasing.erase(project, ana)
    assert customers(project) == [BEN]
    with pytest.raises(NotFound):
        holding.release(project, ana)
    with pytest.raises(Invalid):
        holding.hold(project, ana, " ")


def test_messages_of_a_stream_are_erased_once_they_are_ingested(tmp_path: Path) -> None:
    write(tmp_path)
    module = tmp_path / "erased_shop.py"
    module.write_text(module.read_text() + '\nms.Stream(purchases, topic="bought", epoch="s")\n')
    project = opened(tmp_path)
    stream = project.definitions.streams["purchases"]
    lander = lander_of(project, stream, "test")
    project.streams.create("bought", 2)

    def produce(*customers: str) -> None:
        made = [{"customer": each, "shop": 1, "email": f"{each}@example.org", "amount": 2, "at": 1_700_000_000}
                for each in customers]  # fmt: skip
        project.streams.produce("bought", [NewMessage(msgspec.json.encode(each)) for each in made])

    produce(ANA, BEN, *HOSTILE, ANA)
    broken = NewMessage(f'{{"customer": "{ANA}", "shop": '.encode(), b"broken")
    project.streams.produce("bought", [broken, NewMessage(f"of {BEN}".encode())])
    while lander.step() is not None:
        pass
    produce(ANA)
    erasure = erasing.erase(project, [subject(project)])
    receipt = verified(erasure.receipt.encode())
    held = {each["store"]: each["rows"] for each in receipt["stores"]}
    assert (held["stream/purchases"], held["lake/purchases"], held["lake/purchases__dead_letters"]) == (3, 2, 1)
    assert receipt["not_reached"][0].startswith("messages of stream purchases that are not ingested yet: 1;")
    assert receipt["still_in"] == ["streams.db"]
    while lander.step() is not None:
        pass
    receipt = verified(erasing.erase(project, [subject(project)]).receipt.encode())
    assert (receipt["still_in"], len(receipt["not_reached"])) == ([], 1)
    assert found_in(tmp_path / ".mainspring") == []
    assert sorted(each for each in customers(project) if each != BEN) == sorted(HOSTILE)
    spans = project.streams.spans("bought", [0, 1])
    left = list(read_between(project.streams, "bought", {n: (s.first, s.next) for n, s in spans.items()}, 100))
    assert sum(len(each) for each in left) == len(HOSTILE) + 2


def test_states_batches_and_waiting_outputs_of_stream_endpoints_are_erased(tmp_path: Path) -> None:
    write(tmp_path)
    with (tmp_path / "erased_shop.py").open("a") as module:
        module.write(ENDPOINTS)
    project = opened(tmp_path)
    project.versions.register("m", "d" * 64, "run", {}, 1)
    ana, ben = subject(project), subject(project, BEN)
    events = [(ana, ANA, MAIL, AMOUNT), (ben, BEN, "ben@example.org", 10.0)]
    state = project.stream_states("checks").open(0, 1)
    state.enlist(["topic:answers"], ["predictions"])
    for number in (1, 2, 3):  # the third is Ben's alone
        _commit(state, number, events if number < 3 else events[1:])
    bens = state.states([ben.encoded])
    assert "streams/checks/0.db" in " ".join(found_in(tmp_path / ".mainspring"))
    planned = erasing.plan(project, [ana])
    assert {each.store: each.rows for each in planned.held} == {"stream endpoint/checks": 1 + 2 + 4, "keys": 1}
    assert planned.outside[:-1] == [
        *(f"messages of topic {each} in {project.settings.streams.shown}" for each in ("asked", "answers")),
        "states of stream endpoint shops by other keys",
    ]

    receipt = verified(erasing.erase(project, [ana]).receipt.encode())
    assert (found_in(tmp_path / ".mainspring"), receipt["still_in"]) == ([], [])
    assert (state.states([ana.encoded]), state.states([ben.encoded])) == ({}, bens)
    assert [(record.erased, [part.sent for part in record.parts]) for _, record in state.batches()] == [
        (each < 3, [{"customer": [BEN]}]) for each in (1, 2, 3)
    ]
    assert [bool(each.body) for each in state.waiting(0)] == [False, True, False] * 2 + [True, True]


def _commit(state: PartitionState, number: int, events: list[tuple[Subject, str, str, float]]) -> None:
    """Commit a batch with an event of each subject, and a dead letter that quotes the first."""
    names, mails, amounts = [each[1] for each in events], [each[2] for each in events], [each[3] for each in events]
    part = Part(
        model="m", version="1", bundle="d", rows=[*range(len(events))], statuses={}, units=[1] * len(events),
        features={"email": mails}, sent={"customer": names}, outputs={"score": amounts},
    )  # fmt: skip
    before = Progress(str(number), batch=number - 1, seq=3 * number - 3)
    undo: dict[bytes, bytes | None] = {who.encoded: mail.encode() for who, _, mail, _ in events}
    record = BatchRecord(before, "9", undo, ["7", "8"], [1, 1], [part], {"7": f"no shop sells to {names[0]}"})
    outputs: list[Output | DeadLetter] = [
        Output("checks-0-1", who.encoded, 1, "checks", "m", "1", {"customer": name}, {"to": mail, "score": amount})
        for who, name, mail, amount in events
    ]
    outputs.append(DeadLetter(0, "7", names[0].encode(), f"{{{names[0]}".encode(), 1, "torn"))
    waiting = [
        Waiting(before.seq + 1 + place, isinstance(each, DeadLetter), 3, msgspec.msgpack.encode(each))
        for place, each in enumerate(outputs)
    ]
    states = {who.encoded: (number, f"{mail} bought for {amount}".encode()) for who, _, mail, amount in events}
    progress = msgspec.structs.replace(before, batch=number, seq=3 * number)
    state.commit(Commit(progress, record, states, waiting))


@pytest.mark.parametrize(
    ("entity", "keys", "error"),
    [("nobody", ["1"], NotFound), ("shop", ["one"], Invalid), ("shop", [str(2**63)], Invalid)],
)
def test_a_name_of_no_subject_is_refused(tmp_path: Path, entity: str, keys: list[str], error: type[Exception]) -> None:
    write(tmp_path)
    with pytest.raises(error):
        find_subjects(opened(tmp_path), entity, keys)
