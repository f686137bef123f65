"""A project's whole life by the command line: begun, landed, trained, promoted, served, watched, rolled back."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kit.depot import ENDPOINT, MODEL, PARCELS, Depot, ask, inputs, keyed, lay_out
from kit.waiting import wait_until
from mainspring.cli import exits
from mainspring.cli.main import COMMANDS

INFER = f"/v2/models/{ENDPOINT}/infer"
Trained = tuple[Path, dict[str, Any]]


def test_a_new_project_works_as_it_is(tmp_path: Path) -> None:
    depot = Depot(tmp_path)
    assert depot.json("init", "corner-shop") == {"project": str(tmp_path / "corner-shop")}
    depot.root = tmp_path / "corner-shop"
    assert {change["change"] for change in depot.json("apply")["changes"]} == {"new"}
    assert depot.json("apply")["changes"] == []
    landed = depot.json("ingest", "orders", "corner_shop.data:orders")
    assert (landed["quarantined"], landed["already"]) == (1, 0)
    again = depot.json("ingest", "orders", "corner_shop.data:orders")
    assert (again["rows"], again["already"]) == (0, landed["rows"] + 1)
    [refused] = depot.json("data", "quarantine", "orders")
    assert refused["customer"] == "bo"
    assert "amount" in refused["_reason"]
    shown = json.loads(depot.run("data", "quarantine", "orders").stdout.splitlines()[1])  # as JSON, no Python
    assert shown == {name: value for name, value in refused.items() if not name.startswith("_")}
    committed = depot.run("data", "commit", "-m", "one").stdout
    assert re.fullmatch(r"Dataset commit \w+: orders version 0, orders__quarantine version 0\n", committed)
    depot.json("ingest", "outcomes", "corner_shop.data:outcomes")
    [view] = depot.json("materialize")
    assert (view["view"], view["entities"]) == ("ReturnRecord", 8)
    assert depot.json("doctor")["well"]


@pytest.mark.slow
def test_the_model_of_a_new_project_is_trained_and_served(tmp_path: Path) -> None:
    """Run the commands that `init` prints, to the letter; `up` beside the last."""
    depot = Depot(tmp_path)
    printed = depot.run("init", "corner-shop").stdout
    depot.root = tmp_path / "corner-shop"
    commands = [line.split() for line in re.findall(r"^  mainspring (.+)$", printed, re.MULTILINE)]
    assert [command[0] for command in commands] == [
        "apply", "ingest", "ingest", "train", "promote", "up", "predict",
    ]  # fmt: skip
    *before, _, predict = commands
    ran = [depot.json(*command) for command in before]
    assert ran[-2]["metrics"]["auc"] > ran[-2]["baseline"]["auc"] + 0.05
    assert ran[-1]["promoted"]
    with depot.up() as up:
        up.until_serving()
        answer = depot.json(*predict)
    assert answer["version"] == "1"
    assert 0 < answer["outputs"]["probability"] < 1


def test_what_made_the_trained_project_says_what_it_did(trained: Trained) -> None:
    told = trained[1]
    assert len(told["apply"]["changes"]) == told["apply"]["definitions"] == 9
    assert [told[f"ingest {source}"]["rows"] for source in ("posted", "scans", "deliveries")] == [
        PARCELS,
        2 * PARCELS,
        PARCELS,
    ]
    first, second = told["train"], told["train again"]
    assert (first["version"], second["version"]) == ("1", "2")
    assert first["training_rows"] > 500
    assert 0.6 < first["baseline"]["auc"] + 0.1 < first["metrics"]["auc"] < 0.95
    assert first["metrics"] == second["metrics"]  # the same rows and the same seed
    assert first["digest"] != second["digest"]  # of two runs
    promotion = told["promote"]
    assert (promotion["promoted"], promotion["version"], promotion["previous"]) == (True, "1", None)


@pytest.mark.slow
def test_it_is_served_watched_and_rolled_back(depot: Depot, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with depot.up(environment={"HOME": str(home)}) as up:
        admin = up.document["admin_key"]
        assert admin.startswith("msp_")
        up.until_serving()

        # by key over the command line, by key and by full inputs over HTTP
        now = datetime.now(UTC).isoformat()
        by_key = depot.json("predict", ENDPOINT, "parcel=new", "hub=north", "weight=4.5", f"posted_at={now}")
        assert (by_key["version"], by_key["model"]) == ("1", MODEL)
        asked = up.ask("POST", INFER, keyed("new-2", 4.5), key=admin).body
        [prediction_id] = asked["parameters"]["prediction_ids"]
        scores = {output["name"]: output["data"][0] for output in asked["outputs"]}
        assert scores == by_key["outputs"]
        metadata = up.ask("GET", f"/v2/models/{ENDPOINT}", key=admin).body
        shown = up.ask("GET", f"/api/predictions/{prediction_id}", key=admin, plane="control").body
        features = shown["prediction"]["features"]
        assert set(features) == {tensor["name"] for tensor in metadata["inputs"]}
        full = inputs(**{name: float("nan") if value is None else value for name, value in features.items()})
        for tensor, described in zip(full["inputs"], metadata["inputs"], strict=True):
            tensor["datatype"] = described["datatype"]
        full["inputs"] = [
            tensor | {"data": [None if value != value else value for value in tensor["data"]]}
            for tensor in full["inputs"]
        ]
        by_inputs = up.ask("POST", INFER, full, key=admin)
        assert by_inputs.status == 200, by_inputs.text
        assert {output["name"]: output["data"][0] for output in by_inputs.body["outputs"]} == scores

        # labels that land later are joined
        known = datetime.now(UTC).isoformat()
        (depot.root / "late.csv").write_text(f"parcel,late,delivered_at\nnew,true,{known}\nnew-2,false,{known}\n")
        assert depot.json("ingest", "deliveries", "late.csv")["rows"] == 2
        windows = depot.json("monitor", ENDPOINT)
        assert sum(window["predictions"] for window in windows) == 3
        assert sum(window["labels"] for window in windows) == 2

        # another version goes live without anybody being turned away, and back
        assert depot.json("promote", MODEL, "2")["previous"] == "1"
        wait_until(lambda: _version(up, admin) == "2", "version 2")
        assert depot.json("rollback", MODEL)["version"] == "1"
        wait_until(lambda: _version(up, admin) == "1", "version 1")

        status = depot.json("status")
        assert status["up"]["pid"] == up.process.pid
        assert status["endpoints"][0]["versions"] == {"1": 1.0}
        assert depot.json("doctor")["well"]
        assert len(depot.json("runs", MODEL)) == 2
        assert up.ask("GET", "/metrics", key=admin).text.startswith("#")
    assert up.process.returncode == 0
    assert depot.json("status")["up"] is None
    assert depot.json("doctor")["well"]
    assert list(home.iterdir()) == []  # the state folder is the only one that is written to


def _version(up: Any, key: str) -> str:
    answer = up.ask("POST", INFER, keyed("any"), key=key)
    assert answer.status == 200, answer.text
    return str(answer.body["model_version"])


def test_a_revoked_key_is_refused_while_the_gateway_runs(depot: Depot) -> None:
    with depot.up() as up:
        up.until_serving()
        made = depot.json("keys", "create", "caller", "--scope", "predict", "--expires", "1h")
        key, key_id = made["key"], made["key"].split("_")[1]
        assert up.ask("POST", INFER, keyed("a"), key=key).status == 200
        [listed] = [each for each in depot.json("keys", "list") if each["id"] == key_id]
        assert (listed["name"], listed["scopes"], listed["revoked_at"]) == ("caller", ["predict"], None)
        assert key not in json.dumps(depot.json("keys", "list"))
        assert depot.json("keys", "revoke", key_id) == {"revoked": key_id}
        wait_until(lambda: up.ask("POST", INFER, keyed("a"), key=key).status == 401, "the key to be refused")


def test_versions_of_the_data_are_named_and_kept(depot: Depot) -> None:
    [trained, *_] = depot.json("data", "log")["commits"]
    tagged = depot.json("data", "tag", "trained-on", trained["id"])
    assert tagged == {"tag": "trained-on", "commit": trained["id"]}
    (depot.root / "more.csv").write_text("parcel,hub,weight,posted_at\nx,north,1.5,2024-01-01T00:00:00Z\n")
    assert depot.json("ingest", "posted", "more.csv")["rows"] == 1
    committed = depot.json("data", "commit", "-m", "one more")
    assert committed["versions"]["posted"] > trained["versions"]["posted"]
    log = depot.json("data", "log")
    assert log["commits"][0]["id"] == committed["id"]
    assert log["tags"] == {"trained-on": trained["id"]}
    before = _files(depot.state / "lake")
    would = depot.json("data", "vacuum", "--dry-run")
    assert _files(depot.state / "lake") == before
    assert depot.json("data", "vacuum")["files"] == would["files"]
    assert depot.json("data", "untag", "trained-on") == {"untagged": "trained-on"}
    assert depot.json("doctor")["well"]


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*.parquet")}


DATA_VERBS = ("commit", "log", "diff", "restore", "tag", "untag", "vacuum", "profile", "quarantine")


def _verbs() -> list[tuple[str, ...]]:
    groups = {"keys": ("create", "list", "revoke"), "data": DATA_VERBS}
    return [(verb, *sub) for verb in COMMANDS for sub in ([(each,) for each in groups.get(verb, ())] or [()])]


ARGUMENTS = {
    ("init",): ["taken"],
    ("ingest",): ["posted", "posted.csv"],
    ("train",): [MODEL],
    ("promote",): [MODEL],
    ("rollback",): [MODEL],
    ("predict",): [ENDPOINT],
    ("monitor",): [ENDPOINT],
    ("prediction",): ["p1"],
    ("keys", "create"): ["somebody", "--scope", "view"],
    ("keys", "revoke"): ["nobody"],
    ("data", "tag"): ["name", "commit"],
    ("data", "diff"): ["commit"],
    ("data", "restore"): ["commit"],
    ("data", "profile"): ["posted"],
    ("data", "untag"): ["name"],
    ("data", "quarantine"): ["posted"],
}


@pytest.mark.parametrize("verb", _verbs(), ids=" ".join)
def test_an_error_is_one_json_document_too(verb: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "something").touch()
    (tmp_path / "flights").mkdir()
    depot = Depot(tmp_path)
    ran = depot.run(*verb, *ARGUMENTS.get(verb, []), "--json")
    error = ran.document["error"]
    assert ran.code == error["exit"] != 0
    assert error["what"]
    assert error["fix"]
    assert "Traceback" not in ran.stderr
    assert error["what"].splitlines()[0] in ran.stderr


@pytest.mark.parametrize(
    "arguments", [["aply"], ["train"], ["ingest", "--no-such-option"], ["keys"], ["data", "log", "--limit", "many"], []]
)
def test_wrong_usage_is_one_json_document_too(arguments: list[str], tmp_path: Path) -> None:
    ran = Depot(tmp_path).run(*arguments, "--json")
    assert ran.code == ran.document["error"]["exit"] == 2
    assert re.search(r"mainspring.* --help", ran.document["error"]["fix"])


def test_a_command_line_without_json_speaks_to_people(tmp_path: Path) -> None:
    depot = lay_out(tmp_path / "depot")
    ran = depot.run("apply")
    assert "9 definitions applied, 9 of them changed." in ran.stdout
    assert ran.stderr == ""
    ran = depot.run("promote", "nothing")
    assert ran.stdout == ""
    assert ran.stderr.splitlines()[0].startswith("Error: ")
    assert ran.stderr.splitlines()[1].startswith("  Fix: ")


def test_nobody_else_may_read_the_state(trained: Trained) -> None:
    state = trained[0] / ".mainspring"
    modes = {path: path.stat().st_mode & 0o777 for path in (state, *state.rglob("*"))}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {path: oct(mode) for path, mode in modes.items() if path.is_file() and mode != 0o600} == {}


def test_nobody_answers_where_nothing_is_up(depot: Depot) -> None:
    before = depot.json("keys", "list")
    ran = depot.run("predict", ENDPOINT, "parcel=a", "hub=north", "weight=1", "--json")
    assert ran.code == 10
    assert "mainspring up" in ran.document["error"]["fix"]
    assert depot.json("keys", "list") == before
    with pytest.raises(ConnectionRefusedError):
        ask(depot.gateway, "GET", "/v2/health/live")


def test_every_exit_code_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "exit-codes.md").read_text()
    documented = {name: int(code) for code, name in re.findall(r"^\| (\d+) \| `([A-Z_]+)` \|", page, re.MULTILINE)}
    assert documented == {name: value for name, value in vars(exits).items() if name.isupper() and name[0] != "_"}
