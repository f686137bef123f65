"""A whole project in open formats: read by a script without this package, masked, resumed, and never half there."""

from __future__ import annotations

import csv
import json
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema_rs
import pyarrow.parquet as pq
import pytest

from kit.console.projects import PROJECTS
from kit.depot import MODEL, Depot, copied, keyed
from kit.depot import opened as opened_depot
from kit.depth import deep
from kit.erased_shop import ANA, NEEDLES, found_in, opened, planted, subject, write
from kit.pages import DOCS, blocks
from kit.servers import PostgresServer
from mainspring.core.errors import Conflict, Invalid, NotFound
from mainspring.operations.ingest import land
from mainspring.operations.leaving.running import ExportedProject, export_project
from mainspring.operations.subjects import erasing
from mainspring.project import Project
from mainspring.security.model import AuditFilter

PAGE = DOCS / "howto" / "leave.md"
# The editable installation of this package is found by a path, so the name itself is taken.
ALONE = "import runpy, sys; sys.modules['mainspring'] = None; runpy.run_path(sys.argv[1], run_name='__main__')"
ASKED = 7
ACTION = "project.export"


def quiet(_stage: str, _done: float, _total: float | None, _note: str) -> None:
    pass


def export(project: Project, folder: Path, *, reveal: bool = False) -> ExportedProject:
    return export_project(project, folder, reveal=reveal, told=quiet)


def read_alone(folder: Path, script: Path) -> str:
    """Run the page's script with an interpreter that has none of this package, and return what it printed."""
    (block,) = [each for each in blocks(PAGE) if each.title == "read_export.py"]
    script.write_text(block.body)
    arguments = [sys.executable, "-I", "-c", ALONE.replace("sys.argv[1]", repr(str(script))), str(folder)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False, cwd=script.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Left:
    """A project that answered requests, its export, and the endpoint's answers by the predictions' ids."""

    def __init__(self, depot: Depot, folder: Path) -> None:
        self.depot, self.folder = depot, folder
        token = depot.json("keys", "create", "asks", "--scope", "predict")["key"]
        self.answers: dict[str, float] = {}
        with depot.up() as up:
            up.until_serving()
            for number in range(ASKED):
                reply = up.ask("POST", f"/v2/models/{MODEL}/infer", keyed(f"new{number}", 1.0 + number), key=token)
                assert reply.status == 200, reply
                (id_,) = reply.body["parameters"]["prediction_ids"]
                self.answers[id_] = reply.body["outputs"][0]["data"][0]
        with (depot.root / "known.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["parcel", "late", "delivered_at"])
            writer.writerows([f"new{number}", number % 2 == 1, datetime.now(UTC).isoformat()] for number in range(5))
        depot.json("ingest", "deliveries", "known.csv")
        self.document = depot.json("export", "project", "--to", folder)

    def rows(self, path: str) -> list[dict[str, Any]]:
        return pq.read_table(self.folder / path).to_pylist()

    def lines(self, path: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / path).read_bytes().split(b"\n")[:-1]]


@pytest.fixture(scope="module")
def left(trained: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Left:
    base = tmp_path_factory.mktemp("left")
    return Left(copied(trained[0], base / "depot"), base / "out")


def test_a_script_without_this_package_reads_all_of_it(left: Left, tmp_path: Path) -> None:
    said = read_alone(left.folder, tmp_path / "read_export.py")
    project = opened_depot(left.depot)
    versions, runs = project.versions.all(), project.tracking.search()
    assert len(versions) == 2
    pattern = (
        rf"\d+ files with \d+ rows\n\d+ records, \d+ events\n"
        rf"{len(versions)} versions, {ASKED} predictions answered again, off by at most (\S+)\n"
        rf"{len(runs)} runs with (\d+) files, {len(versions)} versions in MLflow\n"
    )
    found = re.fullmatch(pattern, said)
    assert found is not None, said
    assert float(found[1]) <= 1e-6
    assert int(found[2]) == sum(len(project.tracking.artefacts(each.id)) for each in runs)
    project.close()


def test_every_row_is_there_with_its_type_and_its_unit(left: Left) -> None:
    project = opened_depot(left.depot)
    for source, rows in (("posted", 900), ("scans", 1800), ("deliveries", 905)):
        table = pq.read_table(left.folder / f"tables/{source}.parquet")
        assert table.num_rows == rows
        assert {*project.definitions.sources[source].columns} <= {*table.column_names}
    schema = pq.read_schema(left.folder / "tables/posted.parquet")
    assert schema.field("posted_at").metadata == {
        b"type": b"timestamp", b"unit": b"microseconds since 1970-01-01T00:00:00Z",
    }  # fmt: skip
    (south,) = [each for each in left.rows("features/HubLoad.parquet") if each["hub"] == "south"]
    backlogs = [each for each in left.rows("tables/scans.parquet") if each["hub"] == "south"]
    newest = max(backlogs, key=lambda each: each["scanned_at"])
    assert (south["HubLoad.backlog"], len(left.rows("features/HubLoad.parquet"))) == (newest["backlog"], 2)
    project.close()


def test_predictions_and_labels_are_what_the_endpoint_answered(left: Left) -> None:
    predictions = {each["id"]: each for each in left.rows("predictions/predictions.parquet")}
    assert {id_: json.loads(each["outputs"])["probability"] for id_, each in predictions.items()} == left.answers
    labels = {json.loads(predictions[each["prediction"]]["keys"])["parcel"]: each["number"]
              for each in left.rows("predictions/labels.parquet")}  # fmt: skip
    assert labels == {f"new{number}": float(number % 2) for number in range(5)}


def test_records_are_as_their_schemas_say_and_have_no_secret(left: Left) -> None:
    names = {path.stem for path in (left.folder / "records").glob("*.jsonl")}
    assert {"alias_moves", "api_keys", "applied_definitions", "gate_evaluations", "routes", "dataset_commits"} <= names
    for name in names:
        schema = json.loads((left.folder / f"records/schemas/{name}.schema.json").read_bytes())
        validator = jsonschema_rs.Draft202012Validator(schema)
        for record in left.lines(f"records/{name}.jsonl"):
            validator.validate(record)
    (evaluation,) = left.lines("records/gate_evaluations.jsonl")
    assert evaluation["evaluation"]["results"][0]["passed"] is True
    assert all("digest" not in each for each in left.lines("records/api_keys.jsonl"))
    project = opened_depot(left.depot)
    keys = project.settings.state / "keys"
    secrets = [(keys / name).read_bytes() for name in ("pepper", "signing.ed25519")]
    exported = b"".join(path.read_bytes() for path in left.folder.rglob("*") if path.is_file())
    assert not [each for each in secrets for form in (each, each.hex().encode()) if form in exported]
    project.close()


def test_the_audit_log_is_verified_as_any_export_of_it(left: Left) -> None:
    assert left.depot.run("audit", "verify", left.folder / "audit.jsonl").code == 0
    head, *events = left.lines("audit.jsonl")
    validator = jsonschema_rs.Draft202012Validator(json.loads((left.folder / "audit.schema.json").read_bytes()))
    for line in (head, *events):
        validator.validate(line)
    assert (events[-1]["action"], events[-1]["detail"]) == (ACTION, "masked")


def test_files_are_private_and_checked_by_sha256sum(left: Left) -> None:
    done = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=left.folder, check=False)
    assert done.returncode == 0
    there = {path.relative_to(left.folder).as_posix() for path in left.folder.rglob("*") if path.is_file()}
    listed = {line.split("  ")[1] for line in (left.folder / "SHA256SUMS").read_text().splitlines()}
    assert there == {*listed, "SHA256SUMS"}
    assert {path.stat().st_mode & 0o077 for path in left.folder.rglob("*")} == {0}
    assert left.document["files"] == len(there)


def _contents(folder: Path) -> dict[str, Any]:
    """Return path -> digest of what two exports of one moment have alike, of features the rows without the instant."""
    paths = {each["path"]: each["sha256"] for each in json.loads((folder / "manifest.json").read_bytes())["files"]}
    features = {
        path: pq.read_table(folder / path).drop_columns("_at").to_pylist() for path in paths if "features/" in path
    }
    other = {
        "audit.jsonl",
        "README.md",
        "mlflow/mlflow.db",
    }  # each attempt is an event; a database's pages have no order
    return {path: digest for path, digest in paths.items() if path not in other} | features


class Stopped(Exception):
    pass


def stop(stage: str, _done: float, _total: float | None, _note: str) -> None:
    """Stop an export behind the tables of sources."""
    if stage == "predictions":
        raise Stopped


def test_an_interrupted_export_goes_on_to_the_same_files(tmp_path: Path) -> None:
    project = planted(tmp_path)
    project.prediction_log.close()
    project.predictions.compact()
    export(project, tmp_path / "whole")
    calls = 0

    def stop_later(_stage: str, _done: float, _total: float | None, _note: str) -> None:
        nonlocal calls
        calls += 1
        if calls > allowed:
            raise Stopped

    for allowed in range(0, 200, 3):
        calls = 0
        try:
            export_project(project, tmp_path / "pieces", reveal=False, told=stop_later)
        except Stopped:
            assert not (tmp_path / "pieces" / "manifest.json").exists()
            if allowed == 9:  # what came since is not in it
                shop = tmp_path / "purchases.csv"
                shop.write_text("customer,shop,email,amount,at\nlate,1,a@b,1.0,2024-03-22T00:00:00Z\n")
                land(project, "purchases", str(shop))
        else:
            break
    assert allowed > 12
    assert _contents(tmp_path / "pieces") == _contents(tmp_path / "whole")
    assert not [*(tmp_path / "pieces").rglob(".*")]
    project.close()


def test_personal_values_are_in_an_export_only_if_revealed_and_those_of_the_erased_never(tmp_path: Path) -> None:
    project = planted(tmp_path, ["email", "customer"])
    personal = NEEDLES[:2]
    export(project, tmp_path / "masked")
    assert found_in(tmp_path / "masked", personal) == []
    masked = pq.read_table(tmp_path / "masked" / "tables" / "purchases.parquet")
    assert (masked["customer"].null_count, masked["amount"].null_count) == (masked.num_rows, 0)
    assert masked.schema.field("email").metadata == {b"type": b"string", b"personal": b"masked"}
    export(project, tmp_path / "revealed", reveal=True)
    revealed = found_in(tmp_path / "revealed", personal)
    assert {"tables/purchases.parquet", "predictions/predictions.parquet", "features/Spending.parquet"} <= {*revealed}
    assert pq.read_table(tmp_path / "revealed" / "tables" / "purchases.parquet").num_rows == masked.num_rows
    assert [each.event.detail for each in project.audit.search(AuditFilter(action=ACTION))] == ["revealed", "masked"]
    with pytest.raises(Stopped):
        export_project(project, tmp_path / "half", reveal=True, told=stop)
    erasing.erase(project, [subject(project)])
    with pytest.raises(NotFound, match="versions of predictions, purchases, purchases__quarantine that"):
        export(project, tmp_path / "half", reveal=True)
    export(project, tmp_path / "after", reveal=True)
    assert found_in(tmp_path / "after", personal) == []
    assert ANA not in (tmp_path / "after" / "audit.jsonl").read_text()
    project.close()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rolled", {"rollouts", "rollout_looks", "routes"}),
        ("answering", {"collections", "prompt_versions"}),
        pytest.param("streaming", {"service_samples"}, marks=deep),
        pytest.param("pipelined", {"jobs", "job_steps"}, marks=deep),
        pytest.param("troubled", {"incidents"}, marks=deep),
        pytest.param("registered", {"model_approvals"}, marks=deep),
    ],
)
def test_what_projects_of_every_kind_have_is_as_the_schemas_say(tmp_path: Path, name: str, expected: set[str]) -> None:
    project, out = PROJECTS[name](tmp_path), tmp_path / "out"
    made = export(project, out, reveal=True)
    for path in out.glob("records/*.jsonl"):
        schema = json.loads((out / "records" / "schemas" / f"{path.stem}.schema.json").read_bytes())
        validator = jsonschema_rs.Draft202012Validator(schema)
        for line in path.read_bytes().split(b"\n")[:-1]:
            validator.validate(json.loads(line))
    assert expected <= {path.stem for path in out.glob("records/*.jsonl")}
    left_out = {each.what: each.why for each in made.left_out}
    if name == "rolled":  # a view that cannot be computed keeps nothing else back
        assert "was ingested before entity" in left_out["features/Weather.parquet"]
    project.close()


def test_what_is_not_an_export_of_this_kind_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path)
    project = opened(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    with pytest.raises(Conflict, match="other files"):
        export(project, tmp_path / "other")
    with pytest.raises(Invalid, match="is a file"):
        export(project, tmp_path / "other" / "mine.txt")
    assert [each.name for each in (tmp_path / "other").iterdir()] == ["mine.txt"]
    (tmp_path / ".mainspring" / "llm-usage").mkdir()
    used = {"day": 0, "key": "k", "model": "m", "upstream": "", "teams": ["risk"], "used": {"requests": 2, "micros": 9}}
    (tmp_path / ".mainspring" / "llm-usage" / "2026-11.0.jsonl").write_text(json.dumps(used) + '\n{"day":')
    made = export(project, tmp_path / "out")
    schema = json.loads((tmp_path / "out" / "usage" / "language-models.schema.json").read_bytes())
    (line,) = (tmp_path / "out" / "usage" / "language-models.jsonl").read_text().splitlines()
    jsonschema_rs.Draft202012Validator(schema).validate(json.loads(line))
    assert json.loads(line) == used
    assert [each.what for each in made.left_out if "features" in each.what] == [
        "features/Spending.parquet", "features/Shop.parquet",
    ]  # fmt: skip
    with pytest.raises(Conflict, match="finished export"):
        export(project, tmp_path / "out")
    (tmp_path / "left").mkdir()
    (tmp_path / "left" / "..unfinished.jsonl.0123456789ab.partial").write_text("killed at once")
    mine = tmp_path / "left" / ".mine"
    export_project(project, mine.parent, reveal=False, told=lambda *_: mine.touch())
    assert [*mine.parent.rglob(".*")] == [mine]
    (tmp_path / "half").mkdir()
    begun = {"project": "shop", "lake": "another", "at": 0, "reveal": True, "tables": {}}
    (tmp_path / "half" / ".unfinished.jsonl").write_text(json.dumps(begun) + "\n")
    with pytest.raises(Conflict, match="with --reveal"):
        export(project, tmp_path / "half")
    with project.own_locks.hold("export"), pytest.raises(Conflict):
        export(project, tmp_path / "another")
    project.close()


@deep
def test_a_project_on_postgres_leaves_in_the_same_formats(tmp_path: Path, postgres_server: PostgresServer) -> None:
    write(tmp_path)
    project = opened(tmp_path, catalog=postgres_server.fresh().text, tracking=postgres_server.fresh().text)
    run = project.tracking.start("late", {"name": "first"}, 1_000_000)
    project.tracking.log(run, metrics=[("auc", 0.75, 1, 2_000_000)], params={"depth": "3"})
    project.tracking.log_artefact(run, "plots/roc.txt", b"a curve")
    project.tracking.finish(run, "FINISHED", 3_000_000)
    version = project.versions.register("late", "ab" * 32, run, {}, 4)
    export(project, tmp_path / "out")
    with closing(sqlite3.connect(tmp_path / "out" / "mlflow" / "mlflow.db")) as store:
        assert store.execute("SELECT key, value, step FROM metrics").fetchall() == [("auc", 0.75, 1)]
        (place,) = store.execute("SELECT artifact_uri FROM runs").fetchone()
        assert store.execute("SELECT source FROM model_versions").fetchone() == (f"../models/late/{version.version}",)
    assert (tmp_path / "out" / "mlflow" / place / "plots" / "roc.txt").read_bytes() == b"a curve"
    assert not [*(tmp_path / "out").rglob(".*")]
    _head, event = (tmp_path / "out" / "audit.jsonl").read_text().splitlines()
    assert json.loads(event)["action"] == ACTION
    project.close()


@pytest.fixture
def killed(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> Depot:
    return copied(trained[0], tmp_path / "depot")


@deep
def test_an_export_that_is_killed_is_finished_by_the_next(killed: Depot, tmp_path: Path) -> None:
    for moment in range(20):
        with killed.begun("export", "project", "--to", tmp_path / "out", real=True) as begun:
            if not begun.killed_after(0.5 * 1.3**moment):
                break
        assert not (tmp_path / "out" / "manifest.json").exists() or (tmp_path / "out" / "SHA256SUMS").exists()
    assert not [*(tmp_path / "out").rglob(".*")]
    killed.json("export", "project", "--to", tmp_path / "whole")
    assert _contents(tmp_path / "out") == _contents(tmp_path / "whole")
