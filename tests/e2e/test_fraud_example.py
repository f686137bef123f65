"""The second example, card fraud, followed by its own README: labels that mature, corrections, average precision."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from kit.depth import deep
from kit.pages import ROOT, Reader
from kit.stream_project import documents
from kit.waiting import free_port
from mainspring.core.time import DAY
from mainspring.operations.stream_endpoints.replaying import replay
from mainspring.operations.stream_endpoints.showing import status
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings

EXAMPLE = ROOT / "examples" / "fraud"


@deep
@pytest.mark.timeout(300)
def test_the_example_does_what_its_readme_says(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", ".mainspring"))
    with Reader(tmp_path, (free_port(), free_port())) as reader:
        reader.follow(EXAMPLE / "README.md")

    project = open_project(load_settings(tmp_path))
    check_stream(project)
    champion = project.versions.get("fraud", "champion")
    bundle = project.bundles.load(champion.digest)
    extra, metrics = bundle.manifest.extra, bundle.manifest.metrics
    assert metrics["average_precision"] > metrics["baseline.average_precision"] + 0.02
    assert (extra["matures_us"], extra["otherwise"]) == (40 * DAY, False)
    assert extra["dropped"].keys() == {"not_mature"}  # no payment without a merchant lost its label

    held_out = pq.read_table(io.BytesIO(bundle.files["holdout.parquet"]))
    share = pc.mean(held_out["_label"].cast("float64")).as_py()
    assert 0.01 < share < 0.1
    known = project.lake.scan("chargebacks")
    assert known.files
    newest = max(pc.max(pq.read_table(file)["_visible_at"]).as_py() for file in known.files)
    assert (newest - pc.max(held_out["_at"]).as_py()).days == 40
    project.close()


def check_stream(project: Project) -> None:
    """The producer's payments were judged once each, and the desk was told of the stolen card once."""
    found = status(project, "fraud-stream")
    assert (found.total("processed"), found.total("duplicates"), found.total("dead"), found.lag) == (65, 1, 1, 0)
    scores = [row for file in project.lake.scan("fraud_scores").files or () for row in pq.read_table(file).to_pylist()]
    assert len({row["event_id"] for row in scores}) == len(scores) == 65
    (stolen,) = [each for each in documents(project, "fraud-alerts") if each["key"] == {"card": "c0013"}]
    assert {"three payments within ten minutes", "two countries within an hour"} & {*stolen["outputs"]["reasons"]}
    logged = project.predictions.find(scores[0]["event_id"])
    assert (logged.endpoint, logged.outputs["probability"]) == ("fraud-stream", scores[0]["score"])
    assert all(not each.different for each in replay(project, "fraud-stream"))
