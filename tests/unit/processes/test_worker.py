"""The worker's duties: a slow one delays those of no other lane; a project's parts are built once for all of them."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mainspring.core.errors import Unavailable
from mainspring.processes.worker import Duty, run_lanes
from mainspring.project import open_project
from mainspring.project.settings import load_settings


def test_a_slow_duty_delays_no_other_lane() -> None:
    stop, slow, enough = threading.Event(), threading.Event(), threading.Event()
    runs: list[str] = []

    def hang() -> None:
        runs.append("slow")
        slow.wait(60)

    def quick() -> None:
        runs.append("quick")
        if runs.count("quick") == 3:
            enough.set()

    work = [Duty("slow", hang, 0.0, lane="one"), Duty("behind it", lambda: runs.append("behind"), 0.0, lane="one")]
    with run_lanes([*work, Duty("quick", quick, 0.0)], stop):
        assert enough.wait(60)
        assert runs.count("slow") == 1
        assert "behind" not in runs
        stop.set()
        slow.set()


def test_a_duty_that_has_failed_for_a_day_is_done_again() -> None:
    def fail() -> None:
        raise Unavailable("The catalog does not answer.")

    duty = Duty("publishing routes", fail, 5.0, failures=5000)
    duty.run(100.0)
    assert duty.due == 160.0


def test_a_part_of_a_project_is_built_once_for_all_threads(tmp_path: Path) -> None:
    (tmp_path / "mainspring.toml").write_text('name = "small"\n')
    project = open_project(load_settings(tmp_path, environment={}))
    together = threading.Barrier(8)

    def build(_: int) -> tuple[int, int]:
        together.wait(60)
        return id(project.predictions), id(project.lake)

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(build, range(8)))) == 1
    project.close()
