"""The life of an answer chain at the command line: applied, promoted, rated, rolled out, and rolled back."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from kit import prefork
from kit.encoders import write_encoder
from kit.scripted_upstream import Upstream, scripted

TOML = """\
name = "help"
modules = ["helping"]
[profiles.local.llm.upstreams.local]
url = "{url}"
"""
DECLARED = """
import mainspring as ms

pages = ms.Source("pages", schema={"path": ms.String, "body": ms.String}, event_time="at", id="path")
asked = ms.Source("asked", schema={"q": ms.String, "doc": ms.String}, event_time="at")
ratings = ms.Source("ratings", schema={"answer": ms.String, "helpful": ms.Boolean, "fine": ms.Boolean}, event_time="at")
questions = ms.EvaluationSet("questions", source=asked, query="q", relevant="doc")
docs = ms.Collection(
    "docs", source=pages, text="body", key="path", chunk=ms.chunks.sentences(tokens=12), encoder=ms.Encoder("small"),
)
model = ms.LanguageModel("local", upstreams=[ms.UpstreamModel("local", "tiny")])
ms.Answers(
    "help", retriever=ms.Retriever("nearest", collection=docs, k=2), log=ms.Log(sync=True), max_tokens=TOKENS,
    evaluation=questions, gates=[ms.gates.at_least("recall@2", 0.9), ms.gates.beats("answered", margin=0.5)],
    judges=[ms.Judge("faithful", model=model, labels=ratings.fine, scores=ratings.helpful)],
)
ms.Rollout("help", guards=[ms.guards.errors(), ms.guards.output("found", higher_is_better=True)])
ms.Monitor("help", alarms_per_week=0.5)
"""
PAGES = {"cat": "The cat sat on a mat.", "dog": "Dogs ran far away."}
_RUN = """
import json, os, sys, tempfile
from mainspring.cli.main import cli
output, done, last = os.dup(1), [], ""
for words in json.load(sys.stdin):
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 1)
        code = None
        try:
            cli([word.replace("ID", last) for word in words])
        except SystemExit as end:
            code = end.code
        sys.stdout.flush()
        file.seek(0)
        done.append([code or 0, file.read().decode()])
    if '"id"' in done[-1][1]:
        last = json.loads(done[-1][1])["id"]
os.write(output, json.dumps(done).encode())
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    at = "2024-01-01T00:00:00Z"
    pages = [f"{path},{body},{at}" for path, body in PAGES.items()]
    asked = [f"{body},{path},{at}" for path, body in PAGES.items()]
    (tmp_path / "pages.csv").write_text("\n".join(["path,body,at", *pages]) + "\n")
    (tmp_path / "asked.csv").write_text("\n".join(["q,doc,at", *asked]) + "\n")
    (tmp_path / "encoder").mkdir()
    write_encoder(tmp_path / "encoder")
    return tmp_path


def ran(root: Path, upstream: Upstream, tokens: int, *commands: str) -> list[tuple[int, str]]:
    """Run commands in one process; `ID` in one is the id in the last document with one."""
    (root / "mainspring.toml").write_text(TOML.format(url=upstream.url))
    (root / "helping.py").write_text(DECLARED.replace("TOKENS", str(tokens)))
    words: list[list[str]] = [command.split() for command in commands]
    done = subprocess.run(
        [prefork.programs() / "python", "-c", _RUN],
        input=json.dumps(words),
        capture_output=True,
        text=True,
        cwd=root,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [(code, text) for code, text in json.loads(done.stdout)]


def test_a_chain_lives_as_a_model_does(root: Path) -> None:
    with scripted() as upstream:
        first = ran(
            root, upstream, 100,
            "ingest pages pages.csv", "ingest asked asked.csv", "encoders add small encoder", "apply",
            "collections build docs", "answers ask help cat", "answers versions help", "answers promote help",
            "answers ask help cat --session s1 --json", "answers rate ID fine=true", "answers agreement help faithful",
            "answers judge help faithful", "answers evaluate help --version 1",
        )  # fmt: skip
    assert [code for code, _ in first] == [0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 3, 0, 0], first
    told = [text for _, text in first]
    assert "version 1" in told[6]
    assert "declared" in told[6]
    assert "help version 1 is champion" in told[7]
    assert json.loads(told[8])["version"] == "1"
    assert "fine True" in told[9]
    assert "gates need 0.4 or more" in told[10]
    assert "answers judged" in told[11]
    with scripted() as upstream:
        second = ran(
            root, upstream, 200,
            "apply", "answers versions help", "rollout start help", "rollout status help",
            "answers versions help --json", "answers ask help cat --json", "rollout stop help",
            "answers promote help --reason longer", "answers ask help cat --json", "answers rollback help",
            "answers ask help cat --json", "models list help",
        )  # fmt: skip
    assert [code for code, _ in second] == [0] * 12, second
    told = [text for _, text in second]
    assert "max_tokens: 100 -> 200" in told[1]
    assert "champion" in told[1]
    assert "pending" in told[3] or "running" in told[3]
    assert [each["candidate"] for each in json.loads(told[4])] == [True, False]
    assert json.loads(told[5])["version"] == "1"
    assert json.loads(told[8])["version"] == "2"
    assert "version 1 is champion again" in told[9]
    assert json.loads(told[10])["version"] == "1"
    assert told[11].count("an answer chain") == 2
