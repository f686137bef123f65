"""Each chunk engine gives what this process gives alone, each row once, also after its driver was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kit import scoring
from kit.beam_runs import beam_job_service, beam_pickles, slow_answers
from kit.chunk_engines import ThreadChunks, opened_at
from kit.depth import deep
from mainspring.core.errors import Conflict, Unavailable
from mainspring.data import duck
from mainspring.deploy.engines.ports import ChunkEngine
from mainspring.operations.batch.running import run_batch
from mainspring.operations.batch.values import BatchReport, Request
from mainspring.project.backends.engines import chunk_engine

TESTS = Path(__file__).parents[1]
OF_RUN = {"run", "output", "seconds", "rows_per_s", "resumed", "ended_at", "cost"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return opened_at(tmp_path_factory.mktemp("engines") / "project")


def numbers(root: Path) -> Path:
    """Write rows of the network, of which some lack an instant."""
    rows, path = scoring.numbers(200), root / "numbers.parquet"
    made = [None if row in (3, 60, 61) else scoring.NOW + row for row in range(200)]
    pq.write_table(rows.append_column("posted_at", pa.array(made, scoring.INSTANT)), path)
    return path


def parcels(root: Path) -> Path:
    path = root / "parcels.parquet"
    pq.write_table(scoring.parcels(200), path)
    return path


def run(project: Any, model: str, source: Path, output: object, engine: ChunkEngine | None, **more: Any) -> BatchReport:
    request = Request(f"{model}:1", str(source), str(output), "posted_at", chunk_rows=25)
    return run_batch(project, request, engine=engine, **more)


def content(project: Any, output: object) -> list[list[dict[str, Any]]]:
    """Return predictions and quarantined rows without the ids, which are of a run."""
    if isinstance(output, Path):
        tables = [pq.read_table(output), pq.read_table(output / "_quarantine") if (output / "_quarantine").exists()
                  else pa.table({})]  # fmt: skip
    else:
        with duck.connect() as con:
            duck.register(con, "scored", project.lake.scan(output))
            tables = [con.sql("FROM scored").to_arrow_table(), pa.table({})]
    ids = tables[0]["prediction_id"].to_pylist()
    assert len(set(ids)) == len(ids)
    tables[0] = tables[0].drop_columns(["prediction_id"])
    return [sorted(table.to_pylist(), key=repr) for table in tables]


def facts(report: BatchReport) -> dict[str, Any]:
    return {name: getattr(report, name) for name in report.__struct_fields__ if name not in OF_RUN}


class ChunkEngineConformance:
    """For `engine`, an engine by the name of a test class."""

    name = ""

    def test_columns_into_files_are_those_of_one_process(
        self, engine: ChunkEngine, project: Any, tmp_path: Path
    ) -> None:
        source = numbers(tmp_path)
        told: list[int] = []
        alone = run(project, scoring.NETWORK, source, tmp_path / "alone", None)
        found = run(
            project, scoring.NETWORK, source, tmp_path / "out", engine, progress=lambda done, *_: told.append(done)
        )
        assert content(project, tmp_path / "out") == content(project, tmp_path / "alone")
        assert facts(found) == facts(alone)
        assert (found.predicted, found.quarantined, told[-1]) == (197, 3, 200)
        assert not list((tmp_path / "out").rglob("*.partial"))

    def test_features_into_the_lake_are_those_of_one_process(
        self, engine: ChunkEngine, project: Any, tmp_path: Path
    ) -> None:
        source, table = parcels(tmp_path), f"scored_{type(self).__name__.lower()}"
        alone = run(project, scoring.FEATURES, source, tmp_path / "alone", None)
        found = run(project, scoring.FEATURES, source, table, engine)
        assert content(project, table) == content(project, tmp_path / "alone")
        assert facts(found) == facts(alone)

    def test_what_fails_on_a_worker_is_named_and_what_is_there_is_kept(
        self, engine: ChunkEngine, project: Any, tmp_path: Path
    ) -> None:
        source = numbers(tmp_path)
        before, status = source.read_bytes(), source.stat()

        def stop(done: int, total: int, left: float | None) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(project, scoring.NETWORK, source, tmp_path / "out", engine, progress=stop)
        source.write_bytes(before[:-1])
        with pytest.raises(Conflict, match=r"numbers\.parquet was changed since this batch run was planned") as raised:
            run(project, scoring.NETWORK, source, tmp_path / "out", engine)
        assert raised.value.fix
        source.write_bytes(before)
        os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert run(project, scoring.NETWORK, source, tmp_path / "out", engine).predicted == 197

    @deep
    def test_a_killed_driver_is_carried_on_by_any_engine(
        self, engine: ChunkEngine, project: Any, tmp_path: Path
    ) -> None:
        source, out = numbers(tmp_path), tmp_path / "out"
        # The driver kills itself when it is told of the first chunks, before it can end the run.
        driver = subprocess.run(
            [sys.executable, "-W", "ignore", __file__, self.name, str(project.settings.root), str(source), str(out)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])},
            stderr=subprocess.PIPE, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert driver.returncode == -signal.SIGKILL, driver.stderr
        found = run(project, scoring.NETWORK, source, out, engine)
        alone = run(project, scoring.NETWORK, source, tmp_path / "alone", None)
        assert found.resumed > 0
        assert facts(found) == facts(alone)
        assert content(project, out) == content(project, tmp_path / "alone")
        assert not list(out.rglob("*.partial"))


class TestThreads(ChunkEngineConformance):
    @pytest.fixture
    def engine(self) -> ChunkEngine:
        return ThreadChunks()


class _Installed(ChunkEngineConformance):
    @pytest.fixture
    def engine(self, project: Any) -> ChunkEngine | None:
        return chunk_engine(self.name, project.settings)


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
class TestRay(_Installed):
    name = "ray"


@pytest.mark.skipif(find_spec("pyspark") is None, reason="Spark is not installed")
class TestSpark(_Installed):
    name = "spark"


@pytest.mark.skipif(find_spec("apache_beam") is None, reason="Beam is not installed")
class TestBeam(_Installed):
    """In this process, with threads."""

    name = "beam"

    def test_closed_its_workers_stop(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        calls, request = slow_answers(tmp_path, monkeypatch)
        running = self.beam("").run("slowly", request, range(200), 1)
        while not calls.exists():
            next(running)
        running.close()
        before = len(calls.read_text())
        time.sleep(0.5)
        assert before == len(calls.read_text()) < 200

    def test_the_pipeline_has_names_and_texts_and_no_code_of_ours(self, tmp_path: Path) -> None:
        found = beam_pickles(self.beam("").pipeline("some.entry", "the request", "7", [[1], [2, 3]], f"{tmp_path}/a"))
        assert {name for names in found.values() for name in names if name.startswith("mainspring")} == {
            "mainspring.deploy.adapters.beam_chunks._answers"
        }
        assert [step for step, names in found.items() if any(each.startswith("mainspring") for each in names)] == [
            "Score"
        ]

    @deep
    def test_workers_beyond_a_job_service_answer_through_a_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls, request = slow_answers(tmp_path, monkeypatch)
        with beam_job_service(tmp_path) as service:
            engine = self.beam(f"{service} --temp_location={tmp_path}/temp/")
            found = [json.loads(each) for answers in engine.run("slowly", request, range(9), 2) for each in answers]
            assert sorted(each["done"] for each in found) == list(range(9))
            assert len(calls.read_text()) == 9
            assert not list((tmp_path / "temp").iterdir())
            with pytest.raises(Unavailable, match="No module named 'nowhere'"):
                list(engine.run("nowhere", request, range(2), 1))

    @staticmethod
    def beam(options: str) -> Any:
        from mainspring.deploy.adapters.beam_chunks import BeamChunks

        return BeamChunks(options)


class _Ended:
    """An engine whose calls end without a chunk."""

    def run(self, *_: object) -> Any:
        yield []


def test_an_engine_that_wrote_nothing_is_named(project: Any, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"the chunks \[0, 1, 2, 3, 4\] are not in"):
        run(project, scoring.NETWORK, numbers(tmp_path), tmp_path / "out", _Ended())


def main() -> None:
    name, root, source, out = sys.argv[1:]
    project = opened_at(Path(root))
    engine = chunk_engine(name, project.settings) if name else ThreadChunks()

    def die(done: int, total: int, left: float | None) -> None:
        if done:
            os.kill(os.getpid(), signal.SIGKILL)

    run(project, scoring.NETWORK, Path(source), Path(out), engine, progress=die)


if __name__ == "__main__":
    main()
