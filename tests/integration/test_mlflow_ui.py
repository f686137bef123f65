"""MLflow's own pages, of the full package, show our runs: asked over the REST API that they use."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from kit.depth import deep
from kit.full_mlflow import full_mlflow
from kit.waiting import free_port, wait_until
from mainspring.core.time import SECOND, ManualClock
from mainspring.registry.adapters.mlflow_tracking import MlflowTracking
from mainspring.training.runs.run import Run

pytestmark = deep


class Pages:
    """MLflow's server."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}"

    def get(self, address: str, /, **query: str) -> bytes:
        whole = f"{self._base}{address}" + (f"?{urlencode(query)}" if query else "")
        with urllib.request.urlopen(whole, timeout=30) as reply:
            return bytes(reply.read())

    def api(self, what: str, /, **query: str) -> Any:
        return json.loads(self.get(f"/api/2.0/mlflow/{what}", **query))

    def search(self, experiment: str) -> list[Any]:
        body = json.dumps({"experiment_ids": [experiment], "max_results": 100}).encode()
        address = f"{self._base}/api/2.0/mlflow/runs/search"
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as reply:
            return list(json.loads(reply.read())["runs"])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run, Run]:
    """A store with a run of each kind of thing, and a run that is part of it."""
    folder = tmp_path_factory.mktemp("store")
    tracking = MlflowTracking(f"sqlite:///{folder / 'tracking.db'}", folder / "runs")
    run_id = tracking.start("late-order", {"code_version": "0123abc", "seed": "7"}, SECOND)
    with Run(tracking, run_id, ManualClock(5 * SECOND), seed=7, system_every_s=0.05) as run:
        for step in range(1_500):
            run.log_metric("val/loss", 1.0 / (step + 1), step)
        run.log_params({"depth": 3, "rate": 0.1})
        run.set_tag("stage", "try")
        run.log_text("notes/first.txt", "hello")
        run.log_artefact("raw.bin", bytes(range(256)))
        with run.nested("fold 1", params={"fold": 1}) as fold:
            fold.log_metric("val/loss", 0.5)
        time.sleep(0.2)
    tracking.finish(run_id, "FINISHED", 9 * SECOND)
    tracking.close()
    return folder, run, fold


@pytest.fixture(scope="module")
def pages(written: tuple[Path, Run, Run]) -> Iterator[Pages]:
    folder, _, _ = written
    port = free_port()
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "HOME": str(folder)}
    command = [
        str(full_mlflow() / "mlflow"), "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder / 'tracking.db'}", "--default-artifact-root", str(folder / "runs"),
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True)
        try:
            found = Pages(port)
            wait_until(lambda: process.poll() is not None or found.get("/health"), "MLflow's page", every_s=0.2)
            assert process.poll() is None, (folder / "log").read_text()
            yield found
        finally:
            os.killpg(process.pid, 15)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()


def test_mlflows_pages_show_the_run(pages: Pages, written: tuple[Path, Run, Run]) -> None:
    _, ours, fold = written
    experiment = pages.api("experiments/get-by-name", experiment_name="late-order")["experiment"]["experiment_id"]
    runs = {found["info"]["run_id"]: found for found in pages.search(experiment)}
    assert set(runs) == {ours.id, fold.id}

    found = runs[ours.id]
    assert (found["info"]["status"], found["info"]["end_time"]) == ("FINISHED", 9000)
    params = {each["key"]: each["value"] for each in found["data"]["params"]}
    tags = {each["key"]: each["value"] for each in found["data"]["tags"]}
    newest = {each["key"]: (each["value"], int(each["step"])) for each in found["data"]["metrics"]}
    assert params == {"depth": "3", "rate": "0.1"}
    assert (tags["stage"], tags["seed"], tags["mlflow.source.git.commit"]) == ("try", "7", "0123abc")
    assert newest["val/loss"] == (1.0 / 1500, 1499)
    assert newest["system/system_memory_usage_percentage"][0] > 0  # under this name they stand on a page of their own

    parts = {each["key"]: each["value"] for each in runs[fold.id]["data"]["tags"]}
    assert (parts["mlflow.parentRunId"], parts["mlflow.runName"]) == (ours.id, "fold 1")
    assert runs[fold.id]["info"]["run_name"] == "fold 1"


def test_mlflows_pages_show_the_whole_history_of_a_metric(pages: Pages, written: tuple[Path, Run, Run]) -> None:
    _, ours, _ = written
    history = pages.api("metrics/get-history", run_id=ours.id, metric_key="val/loss", max_results="25000")["metrics"]
    assert sorted((int(each["step"]), each["value"]) for each in history) == [(n, 1.0 / (n + 1)) for n in range(1_500)]


def test_mlflows_pages_show_the_files(pages: Pages, written: tuple[Path, Run, Run]) -> None:
    _, ours, _ = written
    top = pages.api("artifacts/list", run_id=ours.id)["files"]
    assert {each["path"]: int(each.get("file_size", 0)) for each in top} == {"notes": 0, "raw.bin": 256}
    below = pages.api("artifacts/list", run_id=ours.id, path="notes")["files"]
    assert [each["path"] for each in below] == ["notes/first.txt"]
    assert pages.get("/get-artifact", path="notes/first.txt", run_uuid=ours.id) == b"hello"
    assert pages.get("/get-artifact", path="raw.bin", run_uuid=ours.id) == bytes(range(256))


def test_the_page_itself_is_there(pages: Pages) -> None:
    assert b"<html" in pages.get("/").lower()
