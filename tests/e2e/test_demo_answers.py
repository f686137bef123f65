"""`mainspring demo --rag`: the documentation searched and asked, with MiniLM and without network."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.depot import Depot
from kit.depth import deep
from mainspring.operations.demo.example import project_folder

pytestmark = [deep, pytest.mark.slow, pytest.mark.timeout(600)]


def test_it_answers_with_citations_and_embeds_nothing_twice(tmp_path: Path) -> None:
    depot = Depot(project_folder(tmp_path, "handbook"))
    first = depot.run("demo", "--rag", "--json", timeout_s=500)
    assert first.code == 0, first.stderr[-3000:]
    found = first.document
    assert found["embedded"] == found["chunks"] > 1_000
    assert found["figures"]["recall@10"]["value"] > 0.85
    pages = {each["question"]: {cited["page"] for cited in each["citations"]} for each in found["asked"]}
    assert pages["How do I roll back a bad model version?"] & {"howto/train-and-promote.md", "howto/roll-out.md"}
    assert "explanation/live-quality.md" in pages["How is quality estimated before labels arrive?"]
    for each in found["asked"]:
        assert each["found"] == bool(each["citations"]) == ("France" not in each["question"])
        for cited in each["citations"]:
            text = (tmp_path / "handbook" / "pages" / cited["page"]).read_text(encoding="utf-8")
            assert text[cited["start"] : cited["end"]].strip()
    assert depot.json("demo", "--rag")["embedded"] == 0
    assert "Never built" not in depot.run("collections", "list").stdout
