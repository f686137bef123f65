"""`mainspring collections evaluate` and `mainspring answers` on a project in a folder."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kit.depot import Depot
from kit.encoders import write_encoder
from kit.scripted_upstream import Script, scripted
from mainspring.cli import exits
from mainspring.core.time import to_datetime

DECLARED = """
import mainspring as ms

pages = ms.Source("pages", schema={"path": ms.String, "body": ms.String}, event_time="at", id="path")
asked = ms.Source("asked", schema={"q": ms.String, "doc": ms.String, "kind": ms.String}, event_time="at")
questions = ms.EvaluationSet("questions", source=asked, query="q", relevant="doc", tags="kind")
docs = ms.Collection(
    "docs", source=pages, text="body", key="path", chunk=ms.chunks.sentences(tokens=12), encoder=ms.Encoder("small"),
    evaluation=questions, gates=[ms.gates.at_least("recall@1", LEAST)],
)
nearest = ms.Retriever("nearest", collection=docs, k=2)
ms.Answers("help", retriever=nearest, keys="customer", log=ms.Log(sync=True))
guard = ms.Guard(personal={"email": "redact"})
model = ms.LanguageModel("kept", upstreams=[ms.UpstreamModel("local", "tiny")], guard=guard)
ms.Answers("guarded", retriever=nearest, model=model)
for name, judge in (("judged", ms.Reranker("judge")), ("told", ms.Reranker("far", service="judges", timeout="1s"))):
    ms.Answers(name, retriever=ms.Retriever(name, collection=docs, k=2, rerank=judge))
"""
PAGES = {"cat": "The cat sat on a mat.", "dog": "Dogs ran far away."}


@pytest.fixture
def folder(depot: Depot, tmp_path: Path) -> Path:
    declare(depot, "0.9")
    toml = depot.root / "mainspring.toml"
    toml.write_text(toml.read_text().replace("modules = [", 'modules = ["parcels.pages", '))
    at = to_datetime(1_700_000_000_000_000)
    pages = [{"path": path, "body": body, "at": at} for path, body in PAGES.items()]
    asked = [{"q": body, "doc": path, "kind": "word for word", "at": at} for path, body in PAGES.items()]
    asked.append({"q": "far away on a mat", "doc": None, "kind": "none", "at": at})
    for name, rows in (("pages", pages), ("asked", asked)):
        pq.write_table(pa.Table.from_pylist(rows), depot.root / f"{name}.parquet")
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    return write_encoder(encoder)


def declare(depot: Depot, least: str) -> None:
    (depot.root / "parcels" / "pages.py").write_text(DECLARED.replace("LEAST", least))


def test_a_collection_is_measured_asked_and_replayed(depot: Depot, folder: Path) -> None:
    depot.json("encoders", "add", "small", folder)
    for name in ("pages", "asked"):
        depot.json("ingest", name, f"{name}.parquet")
    depot.json("collections", "build", "docs")
    found = depot.json("collections", "evaluate", "docs", "--metric", "recall@2")
    assert (found["queries"], found["figures"]["recall@1"]["value"], found["figures"]["recall@2"]["queries"]) == (
        3,
        1,
        2,
    )
    assert [gate["passed"] for gate in found["gates"]] == [True]
    assert found["by_tag"]["kind=word for word"]["recall@1"]["low"] < 1
    said = depot.run("collections", "evaluate", "docs")
    assert "recall@1" in said.stdout
    declare(depot, "1.5")
    assert depot.run("collections", "evaluate", "docs").code == exits.GATE
    declare(depot, "0.9")

    assert [each["name"] for each in depot.json("answers", "list")] == ["guarded", "help", "judged", "told"]
    answer = depot.json("answers", "ask", "help", PAGES["dog"], "--key", "customer=c1")
    assert (answer["found"], answer["citations"][0]["document"]) == (True, "dog")
    assert answer["text"].startswith(PAGES["dog"])
    assert depot.run("answers", "ask", "help", PAGES["dog"]).code == exits.USAGE
    again = depot.json("answers", "replay", answer["id"])
    assert {again[part] for part in ("retrieved", "prompt", "reply")} == {"identical"}
    logged = (depot.state / "ledger").rglob("*")
    assert not any(b"ran far" in path.read_bytes() for path in logged if path.is_file())
    with closing(sqlite3.connect(depot.state / "catalog.db")) as catalog:
        actions = [action for (action,) in catalog.execute("SELECT action FROM audit_events ORDER BY seq")]
    assert "predictions.reveal" in actions
    measured = depot.json("answers", "evaluate", "help")
    assert measured["figures"]["answered"] == {**measured["figures"]["answered"], "value": 1, "queries": 2}
    assert measured["questions"] == 3
    watched = depot.json("answers", "watch", "help", "--window", "1d")
    assert (watched["questions"], watched["unanswered"]["value"], watched["drift"]) == (1, 0, None)
    assert "Too few questions" in depot.run("answers", "watch", "help").stdout
    cross = folder.parent / "cross"
    cross.mkdir()
    assert (
        "not reranked: Reranker 'judge' is not registered."
        in depot.run("answers", "ask", "judged", PAGES["dog"]).stdout
    )
    judge = depot.json("encoders", "add", "judge", write_encoder(cross, pairs=True))
    assert judge["outputs"][0]["shape"] == [-1, 1]
    judged = depot.json("answers", "ask", "judged", PAGES["dog"])
    assert (judged["index"].rpartition("+")[2], judged["rerank_failure"]) == (judge["digest"][:12], "")
    away = {"MAINSPRING_LLM_JUDGES_URL": "http://127.0.0.1:9"}
    said = depot.run("answers", "ask", "told", PAGES["dog"], environment=away).stdout
    assert said.startswith(PAGES["dog"])
    assert "not reranked: The service 'judges' of reranker model 'far' does not answer within 1 s." in said
    with scripted() as upstream:
        upstream.usual = Script(words=("Ask ", "ana@example.org ", "[1]."))
        local = {"MAINSPRING_LLM_LOCAL_URL": upstream.url}
        ran = depot.run("answers", "ask", "guarded", PAGES["cat"], "--json", environment=local)
        assert ran.code == 0, ran
        assert ran.document["found"]
        assert "ana@" not in ran.document["text"] + ran.document["reply"]
        sent = upstream.heard[-1].json["messages"][-1]
        assert "The cat sat" in str(sent)
        assert "provenance" not in str(sent)
