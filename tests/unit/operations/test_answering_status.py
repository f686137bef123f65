"""`mainspring status` has a line for each language model and each chain of answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

import mainspring as ms
from kit.answered import chain, help_project
from kit.console.flights import NOW, Project, declared
from mainspring.cli.commands.status import show_answers, show_model
from mainspring.core.time import DAY
from mainspring.llm.usage import FOLDER
from mainspring.llm.usage_table import UsageRow, UsageTable, Used
from mainspring.operations import answering_status
from mainspring.operations.answering_status import answers_statuses, model_statuses

ASKED = ms.Source("asked", schema={"q": ms.String, "doc": ms.String}, event_time="at")
DOCS = ms.Collection("docs", source=ASKED, text="q", key="doc", chunk=ms.chunks.tokens(64), encoder=ms.Encoder("words"))
NEAREST = ms.Retriever("nearest", collection=DOCS)
MODEL = ms.LanguageModel("local", upstreams=[ms.UpstreamModel("here", "tiny"), ms.UpstreamModel("there", "tiny")])
QUESTIONS = ms.EvaluationSet("questions", source=ASKED, query="q", relevant="doc")
CHAINS = {
    "help": ms.Answers("help", retriever=NEAREST, model=MODEL),
    "held": ms.Answers("held", retriever=NEAREST, gates=[ms.gates.at_least("answered", 0.9)], evaluation=QUESTIONS),
}


def shown(show: Callable[[Console, Any], None], *rows: object) -> list[str]:
    told = StringIO()
    for row in rows:
        show(Console(file=told, width=200), row)
    return [line.strip() for line in told.getvalue().splitlines()]


def test_a_model_is_shown_with_its_upstreams_and_the_answers_of_today(tmp_path: Path) -> None:
    settings = replace(Project().settings, state=tmp_path)
    project = Project(settings, definitions=declared(language_models={"local": MODEL}))
    assert shown(show_model, *model_statuses(project)) == ["model     local on here, there: no answers today"]
    today = NOW // DAY * DAY
    table = UsageTable(tmp_path / FOLDER)
    counts = ((today - DAY, "local", 7), (today, "local", 2), (today, "local", 1), (today, "gone", 5))
    lines = [
        msgspec.json.encode(UsageRow(day=day, key=f"k{count}", model=model, used=Used(requests=count)))
        for day, model, count in counts
    ]
    table.write(lines, NOW, seal=True)
    table.close()
    assert shown(show_model, *model_statuses(project)) == ["model     local on here, there: 3 answers today"]


def test_a_chain_is_shown_with_what_answers_and_why_nothing_does() -> None:
    project = Project(definitions=declared(answers=CHAINS))
    held, answering = answers_statuses(project)
    assert "no version has passed them" in held.problem
    told = shown(show_answers, held, answering, msgspec.structs.replace(answering, versions={"2": 0.9, "3": 0.1}))
    assert told[0] == "answers   held from docs by quotes: nothing yet"
    assert "`mainspring answers promote held`" in told[1]
    assert told[2] == "answers   help from docs by local: as declared"
    assert told[3] == "answers   help from docs by local: version 2 (90%), version 3 (10%)"


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_chain_is_shown_with_its_answers_of_today(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, in_memory: bool
) -> None:
    with help_project(tmp_path) as library:
        if not in_memory:
            del library.parts["prediction_log"], library.parts["predictions"]
        project = library.declare(chain())
        assert "today" not in shown(show_answers, *answers_statuses(project))[0]
        library.ask(project)
        library.clock.advance(DAY)
        for system in ("Answer well.", "Answer badly.", "Answer well."):
            project = library.declare(chain(system))
            library.ask(project)
        (told,) = shown(show_answers, *answers_statuses(project))
        assert told.endswith("; 3 answers today, 1 of them not found")
        project.predictions.compact()
        monkeypatch.setattr(answering_status, "_FEW", 1)
        (found,) = answers_statuses(project)
        assert (found.answers_today, found.not_found_today) == (3, 1)
