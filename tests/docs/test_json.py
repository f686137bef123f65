"""The reference of JSON output is current, names every command, and what commands print is as it says."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from types import ModuleType

import click
import duckdb
import jsonschema_rs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kit import documents, prefork
from kit.depot import MODEL, Depot, opened
from kit.incidents import incident
from kit.model_signers import write_signer
from kit.models import mlp
from kit.pages import DOCS, script
from kit.people import known
from mainspring.cli.main import cli
from mainspring.core.time import DAY, to_datetime
from mainspring.cost.catalogue.offers import catalogue_lines, shipped
from mainspring.monitoring.incidents.model import Taken
from mainspring.operations.auditing import unfinished
from mainspring.operations.keys import create_key
from mainspring.registry.processes import local_user
from mainspring.security.model import UserSession

# What needs a process that goes on, or long work: `kit.depot` compares each document of these in other tests.
ELSEWHERE = {
    "budgets", "export project", "export training-job", "advise size", "advise machine",
    *("bench", "ci", "demo", "migrate", "monitor run", "objectives", "predict", "promote", "quotas", "replay"),
    *(f"prompts {name}" for name in ("list", "show", "diff", "point", "aliases")),
    *("llm approvals", "llm approve", "llm deny", "llm usage"),
    *("data publish", "edge page", "endpoints callers", "login", "predictions show", "restore"),
    *(f"streams {name}" for name in ("list", "show", "dead-letters", "run", "send", "seek", "replay")),
    *("explain", "models label-issues", "models exposure", "optimize", "reproduce", "search", "train"),
    *("up", *(f"rollout {name}" for name in ("start", "status", "stop", "promote", "rollback", "list"))),
    *(f"pipelines {name}" for name in ("list", "run", "status", "retry", "approve", "cancel", "logs", "graph")),
    *(f"pipelines {name}" for name in ("run-step", "step", "export")),
    "batch", *(f"encoders {name}" for name in ("add", "list", "show")),
    *(f"collections {name}" for name in ("list", "show", "build", "search")),
    "collections evaluate", *(f"answers {name}" for name in ("ask", "evaluate", "list", "replay", "watch")),
    *(f"answers {name}" for name in ("agreement", "judge", "promote", "rate", "rollback", "versions")),
}  # fmt: skip


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    return script("json_reference")


def test_the_page_and_the_schema_are_current(reference: ModuleType) -> None:
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), "run `python docs/json_reference.py`"
    assert json.loads(reference.SCHEMA.read_text(encoding="utf-8")) == reference.schemas()


def commands(group: click.Group, *path: str) -> Iterator[str]:
    for name in group.list_commands(click.Context(group)):
        found = group.get_command(click.Context(group), name)
        if isinstance(found, click.Group):
            yield from commands(found, *path, name)
        else:
            yield " ".join((*path, name))


def test_every_command_has_its_document(reference: ModuleType) -> None:
    fixed = set(commands(cli))
    assert reference.DOCUMENTS.keys() == fixed


def test_the_schema_refuses_a_document_that_lacks_a_field() -> None:
    with pytest.raises(jsonschema_rs.ValidationError, match='"findings" is a required property'):
        documents.check(["doctor"], {"well": True})


EVENTS: dict[str, str] = script("access_reference").EVENTS
# Commands below that find nothing to change.
UNCHANGED = {name: EVENTS[name] for name in ("apply", "encryption rewrite", "logout", "models import", "retention")}
# Command whose event is not seen below -> the test that sees it.
SEEN = {
    **dict.fromkeys(("collections build", "encoders add"), "integration/test_collections_command.py"),
    **{f"answers {each}": "integration/test_answer_versions.py" for each in ("judge", "promote", "rate", "rollback")},
    "advise size": "integration/test_advise_size.py",
    "apply": "integration/test_personal_values.py", "batch": "integration/test_batch.py",
    **dict.fromkeys(("llm approve", "llm deny"), "unit/operations/test_held_calls.py"),
    "optimize": "integration/test_optimise.py", "prompts point": "unit/operations/test_prompts.py",
    "data publish": "unit/operations/test_publishing.py", "login": "integration/test_login.py",
    **dict.fromkeys(("llm approve", "llm deny"), "unit/operations/test_held_calls.py"),
    "logout": "integration/test_login.py", "migrate": "e2e/test_migrate.py",
    "export project": "integration/test_export_project.py",
    "encryption rewrite": "integration/test_erase.py", "retention": "integration/test_retention.py",
    "models import": "integration/test_registry_life.py", "replay": "unit/operations/test_replay.py",
    **dict.fromkeys(("pipelines cancel", "pipelines retry", "pipelines run"), "unit/operations/test_effects.py"),
    "pipelines approve": "integration/test_pipelines.py", "restore": "integration/test_backup.py",
    **{f"rollout {each}": "unit/operations/test_rollout.py" for each in ("promote", "rollback", "start", "stop")},
    "search": "integration/test_search.py", "streams send": "integration/test_stream_endpoints.py",
    **dict.fromkeys(("streams run", "streams seek"), "unit/operations/test_effects.py"),
    "train": "integration/test_data_batches.py", "up": "integration/test_jobs_command.py",
}  # fmt: skip
# Events of commands that change nothing, which name whom they revealed.
REVEALED = {
    "features entity": ["features.reveal"], "audit search": ["audit.reveal"], "audit proof": ["audit.reveal"]
}  # fmt: skip


# Runs each command of a list and prints the documents, and the actions of the events that each left in the audit log; a
# word such as {jobs run[id]} is of a document before it.
_COMMANDS = """
import json, os, sqlite3, sys, tempfile
from mainspring.cli.main import cli
output, said, left = os.dup(1), {}, {}
catalog = sqlite3.connect(".mainspring/catalog.db")
events = lambda: [action for action, in catalog.execute("SELECT action FROM audit_events ORDER BY seq")]
for name, words in json.load(sys.stdin):
    before = len(events())
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 1)
        try:
            cli([*name.split(), *(word.format_map(said) for word in words), "--json"])
        except SystemExit as end:
            assert end.code in (0, 1, 3, 13), (name, words, end.code)
        file.seek(0)
        said[name] = json.load(file)
    left[name] = left.get(name, []) + events()[before:]
os.write(output, json.dumps([said, left]).encode())
"""


def test_a_test_sees_the_event_of_every_command_that_changes_something() -> None:
    unseen = {
        name
        for name, path in SEEN.items()
        if f'"{EVENTS[name]}"' not in (DOCS.parent / "tests" / path).read_text("utf-8")
    }
    assert unseen == set()
    assert EVENTS.keys() & ELSEWHERE - {"promote"} | UNCHANGED.keys() == SEEN.keys()


@pytest.mark.slow
def test_what_commands_print_is_as_the_schema_says(reference: ModuleType, depot: Depot) -> None:
    root, project = depot.root, opened(depot)
    now = to_datetime(project.wall.now())
    with (root / "mainspring.toml").open("a") as settings:
        settings.write('\n[profiles.local.prices]\nmachine = "0.40 EUR"\n')
        settings.write(
            '\n[profiles.local.warehouse]\nurl = "duckdb:///there.duckdb"\narrivals = { scans = "loaded" }\n'
        )
    (root / "more.csv").write_text((root / "scans.csv").read_text().replace("north", "west"))
    (root / "wrong.csv").write_text(f"parcel,hub,weight,posted_at\nx,north,-1,{now.isoformat()}\n")
    (root / "parcels" / "maths.py").write_text("def doubled(x):\n    return x * 2\n")
    (root / "clicks.jsonl").write_text('{"user": "ana"}\n')
    (root / "cases.csv").write_text("who,action,resource,expected\nrole:viewer,model.read,project,denied\n")
    (root / "m.onnx").write_bytes(mlp())
    (root / "prices.csv").write_text("\n".join(catalogue_lines(shipped()[:2])) + "\n")
    write_signer(root)
    known(project, local_user(), "local:ben")
    (root / "key").write_text(create_key(project, "ben", ["manage"], DAY, created_by="local:ben"))
    pq.write_table(pa.table({"hub": ["north"], "when": pa.array([now])}), root / "rows.parquet")
    with duckdb.connect(str(root / "there.duckdb")) as con:
        con.execute(f"CREATE TABLE asked AS FROM '{root / 'rows.parquet'}'")
        con.execute("CREATE TABLE scans (hub TEXT, backlog FLOAT, scanned_at TIMESTAMPTZ, loaded BIGINT)")
    node = {"name": "one", "model": "twice@1", "inputs": {"x": "x"}}
    (root / "graph.json").write_text(json.dumps({"nodes": [node], "outputs": {"y": "one.y"}}))
    spec = ["--input", "x:FP32:-1,4", "--output", "y:FP32:-1,4"]
    shed = Taken(action=f"shed {MODEL}", at=0, state="done", share=0.1, until=project.wall.now() + DAY)
    at = project.wall.now()
    project.user_sessions.add(UserSession("s" * 32, "somebody", at, at + DAY, at, b""), at)
    project.incidents.save([incident(MODEL, project.clock.now(), actions=(shed,))])
    one = "{incidents list[0][id]}"
    key, version = ["--key-file", "key"], f"{MODEL}:2"
    addresses = ["--repository", "https://r.example.org", "--broker", "mqtts://b.example.org"]
    ran = [
        ("init", ["elsewhere"]), ("apply", []), ("ingest", ["posted", "wrong.csv"]),
        ("data quarantine", ["posted"]), ("data commit", []), ("data tag", ["old", "now"]), ("data log", []),
        ("data batches", ["posted"]), ("data sign", ["scans", "more.csv"]),
        ("models near-duplicates", [MODEL, "--threshold", "0.9"]),
        ("models influence", [MODEL, "--by", "posted.hub", "--most", "1"]),
        ("data profile", ["scans"]), ("ingest", ["scans", "more.csv"]), ("data diff", ["old"]),
        ("data restore", ["old"]), ("data untag", ["old"]), ("data vacuum", []), ("materialize", ["--rebuild"]),
        ("features list", []), ("features show", ["HubLoad"]), ("features explain", [MODEL]),
        ("features entity", ["HubLoad", "north", "--reveal"]), ("features verify", ["HubLoad", "--sample", "3"]),
        ("features sql", ["HubLoad", "--dialect", "spark"]),
        ("features read", ["HubLoad", "--labels", "rows.parquet", "--at", "when", "--to", "read.parquet"]),
        ("features unload", ["HubLoad", "--observations", "asked", "--at", "when", "--to", "unloaded"]),
        ("topics create", ["clicks"]), ("topics list", []), ("topics show", ["clicks"]),
        ("topics produce", ["clicks", "clicks.jsonl"]), ("topics tail", ["clicks"]),
        ("jobs run", ["tidy"]), ("jobs list", []), ("jobs show", ["{jobs run[id]}"]),
        ("jobs cancel", ["{jobs run[id]}"]), ("jobs retry", ["{jobs run[id]}"]), ("jobs schedules", []),
        ("jobs logs", ["{jobs run[id]}"]),
        ("models approve", [version, *key]), ("models show", [version]), ("models card", [version]),
        ("sbom", [version]),
        ("evidence", ["gdpr"]),
        ("models waive", [version, "auc", "--reason", "a test", "--until", "7d", *key]), ("models waivers", [version]),
        ("models withdraw", [version, *key]), ("models history", [MODEL]), ("models export", [version, "v.tar"]),
        ("edge build", [version, "--to", "edge", "--stored-as-inputs"]), ("edge check", [version]),
        ("edge publish", ["edge"]),
        ("edge register", ["depot-7", "--package", MODEL, "--key", "ab" * 32, "--to", "depot-7.json", *addresses]),
        ("edge rollout", [MODEL, "2"]), ("edge devices", []), ("edge device", ["depot-7"]), ("edge status", []),
        ("edge remove", ["depot-7"]), ("edge withdraw", [MODEL, "2"]),
        ("edge keys", []), ("edge rotate", ["timestamp"]), ("edge sign", []),
        ("models import", ["v.tar"]), ("models key", []), ("models trust", ["other", "ab" * 32]),
        ("models sign", [version, "signed", "--key", "signer.pem"]),
        ("models verify", ["signed", "--signed-by", "signer.pub.pem"]),
        ("models add", ["network", "m.onnx"]), ("models function", ["twice", "parcels.maths:doubled", *spec]),
        ("models compose", ["pair", "graph.json"]), ("models list", []), ("models delete", ["network:1"]),
        ("models restore", ["network:1"]), ("models gc", []),
        ("promote", [MODEL, "2"]), ("rollback", [MODEL]), ("rollout plan", [MODEL]),
        ("incidents list", []), ("incidents own", [one]), ("incidents silence", [one, "--for", "8h"]),
        ("incidents end-shed", [one]), ("incidents verdict", [one, "real"]),
        ("incidents show", [one]), ("incidents close", [one]),
        ("keys create", ["ana", "--scope", "view"]), ("keys list", []), ("keys revoke", ["{keys list[0][id]}"]),
        ("whoami", []), ("logout", []), ("sessions list", []),
        ("sessions end", ["s" * 32, "--reason", "why"]),
        ("users add", ["ana", "--email", "ana@example.org"]), ("users list", []),
        ("groups add", ["risk"]), ("groups add-member", ["risk", "user:ana"]), ("groups list", []),
        ("service-accounts add", ["nightly"]), ("service-accounts list", []),
        ("roles grant", ["engineer", "group:risk"]), ("roles list", []), ("roles revoke", ["engineer", "group:risk"]),
        ("groups remove-member", ["risk", "user:ana"]), ("groups remove", ["risk"]),
        ("users bind", ["ana@example.org", "local:ana"]), ("service-accounts bind", ["nightly", "local:runner"]),
        *((f"users {name}", ["ana@example.org"]) for name in ("disable", "enable", "remove")),
        *((f"service-accounts {name}", ["nightly"]) for name in ("disable", "enable", "remove")),
        ("encryption status", []), ("encryption rotate", []), ("encryption rewrite", []),
        ("backup make", ["--to", "backups"]), ("backup list", ["backups"]), ("backup verify", ["backups"]),
        ("simulate", [MODEL, "--load", "40/s for 2s", "--measure", "1", "--in-time", "0.5", "--apply"]),
        ("targets render", ["here", "--to", "rendered"]), ("deploy", ["here"]), ("targets list", []),
        ("targets status", ["here"]), ("targets destroy", ["here", "--yes"]),
        ("policy check", []), ("policy explain", ["role:viewer", "model.promote"]), ("policy test", ["cases.csv"]),
        ("console", []), *((f"export {name}", []) for name in ("prometheus-rules", "prometheus-scrape", "grafana")),
        ("export training", [MODEL, "--to", "jobset", "--image", "shop:1", "--claim", f"stores:{depot.root}"]),
        ("predictions list", []), ("fairness", [f"{MODEL}@champion", "--by", "HubLoad.scans_3h"]),
        ("runs list", []), ("runs show", ["{runs list[0][id]}"]),
        ("runs compare", ["{runs list[0][id]}", "{runs list[1][id]}"]),
        ("runs rename", ["{runs list[0][id]}", "deeper"]), ("runs note", ["{runs list[0][id]}", "Before the winter."]),
        ("endpoints list", []), ("endpoints show", [MODEL]), ("endpoints scaling", []), ("monitor skew", [MODEL]),
        ("audit search", ["--limit", "3", "--subjects"]), ("audit verify", []),
        ("audit export", ["events.jsonl"]), ("audit proof", ["0", "--subjects"]),
        ("subject export", ["parcel", "x", "--output", "x.zip"]),
        ("subject hold", ["parcel", "x", "--reason", "a case"]), ("subject holds", []),
        ("subject release", ["parcel", "x"]), ("erase", ["parcel", "x"]), ("subject receipts", []),
        ("retention", []),
        ("subject receipt", ["{subject receipts[0][id]}", "--output", "receipt.json"]),
        ("subject verify", ["receipt.json"]),
        ("monitor query", ["SELECT count(*) AS n FROM incidents"]), ("status", []),
        ("advise next", []), ("advise cost", []),
        ("profile list", []), ("profile check", []), ("tenant plan", ["acme"]), ("doctor", []),
        ("completion", ["bash"]), ("llm plan", ["llama-3.1-8b", "--gpus", "1xH100"]),
        ("prices list", ["--gpu", "L4"]), ("prices show", ["aws/eu-west-1/m7i.large"]),
        ("cost show", ["--by", "measure"]), ("cost export", ["costs.parquet"]),
        ("prices import", ["prices.csv", "--format", "catalogue"]),
    ]  # fmt: skip
    done = subprocess.run(
        [prefork.programs() / "python", "-c", _COMMANDS], cwd=root, capture_output=True, text=True, check=False,
        input=json.dumps(ran), env=depot.environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said, left = json.loads(done.stdout)
    for command, document in said.items():
        documents.check(command.split(), document)
    empty = {command for command, document in said.items() if document == []}
    assert not empty
    assert reference.DOCUMENTS.keys() - said.keys() == ELSEWHERE - {"promote"}
    assert unfinished(opened(depot)) == ()
    missing = {name: EVENTS[name] for name, actions in left.items() if EVENTS.get(name) not in {*actions, None}}
    assert missing == UNCHANGED
    untold = {name: actions for name, actions in left.items() if actions and name not in EVENTS}
    assert untold == REVEALED
