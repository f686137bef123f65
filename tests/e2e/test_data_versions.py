"""A project's data over its versions, by the real command line: what differs, what it holds, going back, going on."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kit import prefork
from kit.depot import Depot, lay_out
from mainspring.cli import exits


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose data has landed, is tagged and materialised; to be copied."""
    depot = lay_out(tmp_path_factory.mktemp("landed") / "depot")
    depot.json("apply")
    depot.ingest_all()
    depot.json("data", "tag", "good", "now")
    materialise(depot)
    return depot.root


@pytest.fixture
def depot(landed: Path, tmp_path: Path) -> Depot:
    return Depot(Path(shutil.copytree(landed, tmp_path / "depot")))


def more(depot: Depot, rows: int = 5) -> None:
    """Write scans of just now, of a hub that is full, and one that is not a scan."""
    now = datetime.now(UTC)
    lines = [f"north,{99},{(now - timedelta(seconds=each + 1)).isoformat()}" for each in range(rows)]
    (depot.root / "more.csv").write_text("\n".join(["hub,backlog,scanned_at", *lines, f"north,much,{now.isoformat()}"]))


ONLINE = """
import json, sys
import mainspring as ms

project = ms.open(sys.argv[1])
if sys.argv[2:]:
    project.materialize()
else:
    rows = project.online("HubLoad", [{"hub": "north"}, {"hub": "south"}], as_="arrow")
    print(json.dumps(rows["HubLoad.backlog"].to_pylist()))
"""


def in_code(depot: Depot, *arguments: str) -> str:
    command = [prefork.programs() / "python", "-c", ONLINE, str(depot.root), *arguments]
    return subprocess.run(command, env=depot.environment, capture_output=True, text=True, check=True).stdout


def materialise(depot: Depot) -> None:
    in_code(depot, "materialize")


def online(depot: Depot) -> list[float]:
    """Return the newest backlog of the two hubs, as an endpoint would be given it."""
    values: list[float] = json.loads(in_code(depot))
    return values


def test_bad_data_is_seen_undone_and_landed_again(depot: Depot) -> None:
    before = online(depot)
    more(depot)
    assert depot.json("ingest", "scans", "more.csv")["rows"] == 5
    materialise(depot)
    assert online(depot) == [99.0, before[1]]

    tables = {each["table"]: each for each in depot.json("data", "diff", "good")["tables"]}
    assert set(tables) == {"scans", "scans__quarantine"}
    assert (tables["scans"]["added"], tables["scans"]["removed"], tables["scans"]["rows"]) == (5, 0, 1_805)
    assert depot.json("data", "diff", "good", "now", "--table", "posted")["tables"] == []

    report = depot.json("data", "restore", "good")
    assert {each["table"]: each["rows"] for each in report["tables"]} == {
        "deliveries": 900,
        "posted": 900,
        "scans": 1_800,
        "scans__quarantine": 0,
    }
    assert online(depot) == before
    assert depot.json("data", "diff", "good", report["commit"])["tables"][0]["added"] == 0
    newest, undone, good = depot.json("data", "log")["commits"]
    assert (newest["id"], undone["id"]) == (report["commit"], report["before"])
    assert [(each["table"], each["rows_before"], each["rows"]) for each in newest["changes"]] == [
        ("scans", 1_805, 1_800),
        ("scans__quarantine", 1, 0),
    ]
    assert {each["table"] for each in good["changes"]} == {"deliveries", "posted", "scans"}

    # The same file lands as if it had never been there, and the way back is open.
    again = depot.json("ingest", "scans", "more.csv")
    assert (again["rows"], again["quarantined"], again["already"]) == (5, 1, 0)
    materialise(depot)
    assert online(depot) == [99.0, before[1]]
    depot.json("data", "restore", "good", "--table", "scans")
    assert online(depot) == before
    depot.json("data", "restore", undone["id"][:10])
    assert online(depot) == [99.0, before[1]]
    assert depot.json("doctor")["well"]


def test_what_people_read(depot: Depot) -> None:
    more(depot, 200)
    depot.json("ingest", "scans", "more.csv")
    said = depot.run("data", "diff", "good", environment={"COLUMNS": "100"}).stdout
    assert "scans @0 -> @1: 1,800 -> 2,000 rows, 200 added, 0 removed" in said
    assert "backlog" in said
    said = depot.run("data", "profile", "scans", environment={"COLUMNS": "100"}).stdout
    assert "scans version 1: 2,000 rows" in said
    assert "north 1,100, south 900" in said
    assert any(sign in said for sign in "▁▂▃▄▅▆▇█")
    said = depot.run("data", "restore", "good").stdout
    assert "scans version 2 is as version 0: 2,000 -> 1,800 rows." in said
    assert "scans__quarantine version 1 is empty (it did not exist then): 1 -> 0 rows." in said
    assert "Undo with `mainspring data restore " in said
    log = depot.run("data", "log").stdout
    assert log.index("restored all to good") < log.index("before the restore of good") < log.index("tagged good")
    assert "-200 rows" in log


def test_a_profile_hides_what_identifies_a_person(depot: Depot) -> None:
    file = depot.root / "parcels" / "features.py"
    file.write_text(file.read_text().replace('event_time="scanned_at")', 'event_time="scanned_at", pii=["hub"])'))
    columns = {each["column"]: each for each in depot.json("data", "profile", "scans", "--at", "good")["columns"]}
    assert (columns["hub"]["distinct"], columns["hub"]["low"], columns["hub"]["top"]) == (2, None, [])
    assert columns["backlog"]["quantiles"]["p50"] > 0
    said = depot.run("data", "profile", "scans").stdout
    assert "hidden" in said
    assert "north" not in said
    more(depot, 2_000)
    depot.json("ingest", "scans", "more.csv")
    scans = depot.json("data", "diff", "good", "--table", "scans")["tables"][0]
    hub = next(each for each in scans["columns"] if each["column"] == "hub")
    assert (hub["differs"], hub["shares"]) == (True, [])


def test_a_schema_that_changed_is_applied_and_recorded(depot: Depot) -> None:
    file = depot.root / "parcels" / "features.py"
    declared = file.read_text()
    wider = '{"hub": ms.String, "backlog": ms.Float64, "gate": ms.String}'
    file.write_text(declared.replace('{"hub": ms.String, "backlog": ms.Float32}', wider))
    (table,) = [each for each in depot.json("apply", "--dry-run")["changes"] if each["kind"] == "table"]
    assert table == {
        "change": "changed",
        "kind": "table",
        "name": "scans",
        "details": ["backlog float -> double", "+ gate string"],
    }
    assert depot.json("apply")["applied"]
    assert depot.json("apply")["changes"] == []
    depot.json("data", "commit", "-m", "wider")
    (change,) = depot.json("data", "log")["commits"][0]["changes"]
    assert (change["table"], change["rows"], change["schema"]) == (
        "scans",
        1_800,
        ["backlog float -> double", "+ gate string"],
    )
    now = datetime.now(UTC).isoformat()
    (depot.root / "more.csv").write_text(f"hub,backlog,gate,scanned_at\nnorth,7,G1,{now}\n")
    assert depot.json("ingest", "scans", "more.csv")["rows"] == 1
    materialise(depot)
    assert online(depot)[0] == 7.0
    # Back to before the change: what is declared now is done to the table again.
    depot.json("data", "restore", "good")
    assert depot.json("apply")["changes"] == []
    assert online(depot)[0] != 7.0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"backlog": ms.Float32', '"backlog": ms.String', "'backlog' of table 'scans' is float, not string"),
        ('event_time="scanned_at"', 'event_time="seen_at"', "'scans' has no column 'seen_at'"),
        (
            'event_time="scanned_at"',
            'event_time="scanned_at", recorded_time="seen_at"',
            "'scans' has no column 'seen_at'",
        ),
    ],
)
def test_a_schema_that_cannot_be_is_refused_with_the_way_out(old: str, new: str, said: str, depot: Depot) -> None:
    file = depot.root / "parcels" / "features.py"
    text = file.read_text()
    if "String" in new:  # else the views would be refused first
        text = text.replace('    mean_backlog_3h = ms.mean("backlog", window="3h")\n', "")
    file.write_text(text.replace(old, new))
    for command, code in ((["apply"], exits.USAGE), (["ingest", "scans", "scans.csv"], exits.DATA)):
        if command[0] == "ingest":
            rows = (depot.root / "scans.csv").read_text().replace("scanned_at", "scanned_at,seen_at", 1)
            (depot.root / "scans.csv").write_text(
                "\n".join(
                    line if "," not in line or "hub" in line else f"{line},{line.rsplit(',', 1)[1]}"
                    for line in rows.splitlines()
                )
            )
        ran = depot.run(*command)
        assert ran.code == code, ran
        assert said in ran.stderr
        assert "another name" in ran.stderr
    assert depot.json("data", "diff", "good")["tables"] == []


def test_a_column_that_a_view_uses_cannot_go(depot: Depot) -> None:
    file = depot.root / "parcels" / "features.py"
    text = file.read_text()
    file.write_text(text.replace(', "backlog": ms.Float32', ""))
    ran = depot.run("apply")
    assert ran.code == exits.USAGE
    assert "HubLoad.backlog uses 'backlog', which the source does not have" in ran.stderr
    file.write_text(text)
    assert depot.json("data", "diff", "good")["tables"] == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["restore", "nothing"], exits.NOT_FOUND, "nothing"),
        (["restore", "good", "--table", "parcels"], exits.NOT_FOUND, "parcels"),
        (["diff", "nothing"], exits.NOT_FOUND, "nothing"),
        (["diff", "good", "--table", "parcels"], exits.NOT_FOUND, "parcels"),
        (["profile", "parcels"], exits.NOT_FOUND, "parcels"),
        (["profile", "scans", "--at", "nothing"], exits.NOT_FOUND, "nothing"),
        (["tag", "now", "good"], exits.USAGE, "'now'"),
        (["tag", "restoring.scans", "good"], exits.USAGE, "restoring.scans"),
    ],
)
def test_what_is_not_there(arguments: list[str], code: int, said: str, depot: Depot) -> None:
    ran = depot.run("data", *arguments, "--json")
    assert ran.code == code
    assert said in ran.document["error"]["what"]
    assert ran.document["error"]["fix"]
