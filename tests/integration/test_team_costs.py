"""What a real project trains, scores, materialises, searches and optimises is charged to its team."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from kit.depot import MODEL, Depot, opened
from kit.depth import deep
from kit.searching import searched
from mainspring.cost.paying import DECLARED, NAMED
from mainspring.cost.usage import BATCH, RUN, VIEW
from mainspring.operations.batch.running import run_batch
from mainspring.operations.batch.values import Request
from mainspring.operations.cost.reporting import report
from mainspring.operations.cost.teams import named
from mainspring.operations.materialize import materialise
from mainspring.operations.train import train
from mainspring.project import Project
from mainspring.registry.processes import TEAM, TEAM_WHY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
TEAMS = f"""
ms.Team("parcels", models=["{MODEL}"])
ms.Team("hubs", views=["HubLoad"])
"""
_EVER = 10**18


def declared(depot: Depot) -> Depot:
    module = depot.root / "parcels" / "model.py"
    module.write_text(module.read_text() + TEAMS)
    return depot


def charged(project: Project) -> set[tuple[str, str, tuple[str, ...]]]:
    """Return who pays for each subject that used a processor."""
    project.metering.flush()
    found = [each.subject for each in project.usage.read(0, _EVER, kinds=[RUN, BATCH, VIEW]) if each.measure == "cpu"]
    return {(each.kind, each.id, each.teams) for each in found}


def test_a_training_a_batch_and_a_view_are_charged_to_their_teams(depot: Depot, tmp_path: Path) -> None:
    with closing(opened(declared(depot))) as project:
        before = charged(project)
        assert {teams for *_, teams in before} <= {()}
        made = train(project, MODEL)
        tags = project.tracking.get(made.run_id).tags
        assert (tags[TEAM], tags[TEAM_WHY]) == ("parcels", DECLARED)
        with named(project, "hubs"):
            done = run_batch(project, Request(f"{MODEL}:{made.version}", "posted", str(tmp_path / "scored")))
        materialise(project)
        assert charged(project) - before == {
            (RUN, made.run_id, ("parcels",)), (BATCH, done.run, ("hubs",)), (VIEW, "HubLoad", ("hubs",)),
        }  # fmt: skip
        costs = report(project, "team", since=0)
        assert {"parcels", "hubs", "(no team)"} <= {each.name for each in costs.lines if each.cpu_hours}
        assert sum(each.cpu_hours for each in costs.lines) == pytest.approx(costs.total.cpu_hours)
    refused = depot.run("materialize", "--team", "hup")
    assert refused.code != 0
    assert "There is no team 'hup'. Fix: there are hubs, parcels." in " ".join(refused.stderr.split())


@deep
def test_a_search_and_an_optimisation_are_charged_to_their_team(depot: Depot) -> None:
    declared(searched(depot))
    with closing(opened(depot)) as project:
        before = {run.id for run in project.tracking.search(MODEL)}
    depot.json("search", MODEL, "--trials", "2")
    depot.json("train", MODEL)
    version = depot.json("models", "list")[0]["version"]
    depot.json("optimize", f"{MODEL}:{version}", "--only", "fp16", "--team", "hubs")
    with closing(opened(depot)) as project:
        found = charged(project)
        made = [run.tags for run in project.tracking.search(MODEL) if run.id not in before]
    assert {(RUN, f"search of {MODEL}", ("parcels",)), (RUN, f"optimisation of {MODEL}", ("hubs",))} <= found
    assert len(made) == 5, "the search, its trials, the training and the optimisation"
    assert {(tags.get(TEAM), tags.get(TEAM_WHY)) for tags in made} == {("parcels", DECLARED), ("hubs", NAMED)}
