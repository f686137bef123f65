"""`mainspring encoders` and `collections` on a project in a folder: register, build, search, and the job."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kit.depot import Depot
from kit.encoders import write_encoder
from mainspring.cli import exits
from mainspring.core.time import to_datetime

DECLARED = """
import mainspring as ms

pages = ms.Source(
    "pages",
    schema={"path": ms.String, "body": ms.String, "team": ms.String, "page": ms.Int64},
    event_time="at",
    id="path",
)
small = ms.Encoder("small")
ms.Encoder("far", service="provider", model="big", dimension=4, timeout="1s")
given = {"source": pages, "text": "body", "key": "path", "encoder": small}
ms.Collection("docs", chunk=ms.chunks.markdown(tokens=12), fields=["page"], words=True, **given)
page = ms.Entity("written_page", keys={"path": ms.String})
pinned = ms.Encoder("pinned", model="small:1", dimension=8)
ms.embedding("PageText", source=pages, column="body", entity=page, encoder=pinned)
ms.Collection("theirs", chunk=ms.chunks.sentences(tokens=12), tenant="team", **given)
"""


@pytest.fixture
def folder(depot: Depot, tmp_path: Path) -> Path:
    (depot.root / "parcels" / "pages.py").write_text(DECLARED)
    toml = depot.root / "mainspring.toml"
    toml.write_text(toml.read_text().replace("modules = [", 'modules = ["parcels.pages", '))
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    rows = [
        {"path": "cat", "body": "# The cat\n\nThe cat sat on a mat.", "team": "a", "page": 1},
        {"path": "dog", "body": "# Dogs\n\nDogs ran far away.\n\n## Why\n\nWhile dogs ran.", "team": "b", "page": 2},
        {"path": "none", "body": None, "team": "b", "page": 3},
    ]
    table = pa.Table.from_pylist([{**row, "at": to_datetime(1_700_000_000_000_000)} for row in rows])
    pq.write_table(table, depot.root / "pages.parquet")
    return write_encoder(encoder)


def test_documents_are_registered_built_and_found(depot: Depot, folder: Path) -> None:
    lost = depot.run("collections", "search", "docs", "the cat")
    assert (lost.code, "collections build docs" in lost.stderr) == (exits.NOT_FOUND, True), lost
    added = depot.json("encoders", "add", "small", folder)
    assert (added["version"], added["new"], added["outputs"][0]["shape"]) == ("1", True, [-1, 8])
    assert "Next: mainspring collections build" in depot.run("encoders", "add", "small", folder).stdout
    depot.json("ingest", "pages", "pages.parquet")
    before = {each["name"]: each for each in depot.json("encoders", "list")}
    assert (before["small"]["dimension"], before["small"]["collections"]) == (8, ["docs", "theirs"])
    docs, theirs = depot.json("collections", "build")
    assert (docs["collection"], docs["documents"], docs["chunks"], docs["refused"]) == ("docs", 2, 3, {"no text": 1})
    assert theirs["embedded"] == theirs["chunks"] == 3
    assert [each["embedded"] for each in depot.json("collections", "build")] == [0, 0]
    (hit,) = depot.json("collections", "search", "docs", "# The cat\n\nThe cat sat on a mat.", "--limit", "1")
    assert (hit["document"], hit["path"], hit["start"], hit["fields"]["page"]) == ("cat", ["The cat"], 0, 1)
    assert hit["similarity"] == pytest.approx(1, abs=1e-3)  # its headings are embedded with it
    found = depot.json("collections", "search", "docs", "cat", "--where", "page=2")
    assert {each["document"] for each in found} == {"dog"}
    found = depot.json("collections", "search", "theirs", "cat", "--tenant", "b")
    assert {each["document"] for each in found} == {"dog"}
    assert depot.run("collections", "search", "docs", "cat", "--where", "page=x").code == exits.USAGE
    listed = {each["name"]: (each["chunks"], each["behind"]) for each in depot.json("collections", "list")}
    assert listed == {"docs": (3, False), "theirs": (3, False)}
    assert depot.json("collections", "show", "docs")["build"]["examples"] == {"none": "no text"}
    known = depot.json("encoders", "show", "small")
    assert (known["version"], known["digest"], known["dimension"]) == ("1", added["digest"], 8)
    assert (known["outdated"], known["problem"]) == ([], "")
    assert (before["far"]["dimension"], before["far"]["timeout"], before["far"]["digest"]) == (4, "1s", None)
    assert "has no upstream 'provider', of encoder 'far'" in before["far"]["problem"]
    assert "did you mean 'small'" in depot.run("encoders", "show", "smal").stderr
    said = depot.run("collections", "search", "docs", "# The cat\n\nThe cat sat on a mat.", "--mode", "hybrid").stdout
    assert "cat [0:32]  The cat\n   vectors: rank 1, score 1.000, adds 0.0164\n   words: rank 1, score " in said
    (hit,) = depot.json("collections", "search", "docs", "mat", "--mode", "words")
    assert hit["document"] == "cat"
    with closing(sqlite3.connect(depot.state / "catalog.db")) as catalog:
        actions = [action for (action,) in catalog.execute("SELECT action FROM audit_events ORDER BY seq")]
    assert {"add", "collections.build"} <= {*actions}
    (view,) = depot.json("materialize", "PageText")
    assert (view["entities"], view["rows"]) == (3, 3)
    assert depot.json("features", "verify", "PageText")["equal"]
    job = depot.json("jobs", "run", "collections", '{"collections": ["docs"]}', "--here")
    assert job["result"] == {"docs": {"documents": 2, "chunks": 3, "embedded": 0}}
