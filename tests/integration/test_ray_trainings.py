"""Trainings on a Ray cluster that has no room, loses a node, goes away, or whose launcher is killed.

Run where Ray is installed: test_step_engines.py has an environment for it.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from kit import rank_depot
from kit.depot import opened
from kit.engines import ray_cluster
from kit.waiting import free_port, wait_until
from mainspring.core.errors import Invalid, Unavailable
from mainspring.deploy.adapters.ray_ranks import RayRanks
from mainspring.deploy.adapters.torchrun import LocalRunner
from mainspring.training.distributed import conformance
from mainspring.training.distributed.ports import Event, Job, Lost, Started, Stepped
from mainspring.training.distribution import Distributed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(800),
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed"),
]
TWO = Distributed(processes=1, machines=2, restarts=3)
SLOW = [0, 1, 0, "wait"]
LAUNCH = """
import sys
from pathlib import Path
from mainspring.deploy.adapters.ray_ranks import RayRanks
from mainspring.training.distributed import conformance
from mainspring.training.distributed.ports import Job
from mainspring.training.distribution import Distributed

address, folder, request = sys.argv[1:]
declared = Distributed(processes=1, machines=2)
for event in RayRanks(address).run(Job("run", conformance.__name__, request, Path(folder), declared), lambda: 0):
    print(event, flush=True)
"""


@contextmanager
def two_nodes() -> Iterator[Any]:
    """A cluster of two nodes on this machine, each with one processor."""
    with ray_cluster(1, 1) as made:
        yield made


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with two_nodes() as made:
        yield made


def job(folder: Path, *deeds: list[Any], distributed: Distributed = TWO) -> Job:
    return Job("run", conformance.__name__, request(folder, *deeds), folder, distributed)


def request(folder: Path, *deeds: list[Any]) -> str:
    return json.dumps({"folder": str(folder), "deeds": deeds})


def weights(folder: Path) -> str:
    every = {(folder / f"weights-{rank}.json").read_text() for rank in (0, 1)}
    assert len(every) == 1
    return every.pop()


def processes_of(folder: Path) -> list[psutil.Process]:
    """The machines' processes of a job, and their ranks."""
    return [each for each in psutil.process_iter(["cmdline"]) if str(folder) in (each.info["cmdline"] or [])]


def test_a_cluster_without_room_says_what_it_has_and_what_was_asked(cluster: Any, tmp_path: Path) -> None:
    wide = Distributed(processes=4, machines=2)
    with pytest.raises(Unavailable, match=r"no room for 2 x 4 CPU: 0 of 2 came within 2 s") as refused:
        list(RayRanks(cluster.address, wait_s=2).run(job(tmp_path, distributed=wide), lambda: 0))
    assert "It has 2 nodes: " in refused.value.what
    assert refused.value.what.endswith("; 2 CPU are free.")
    assert "ask for fewer processes" in str(refused.value.fix)


def test_a_node_that_does_not_see_the_folder_is_refused(cluster: Any, tmp_path: Path) -> None:
    import ray

    from mainspring.core.ray_cluster import connect
    from mainspring.deploy.adapters.ray_machines import RayMachines

    connect(cluster.address)
    try:
        machines = RayMachines(conformance.__name__, tmp_path, "owner", TWO, cpus=1, gpus=None)
        with pytest.raises(Invalid, match=f"does not see the folder {tmp_path}"):
            wait_until(lambda: machines.place(2), "a node to look")
        machines.close()
    finally:
        ray.shutdown()


def disturbed(events: Iterator[Event], after: int, disturb: Callable[[], None]) -> list[Event]:
    """Return the events of a training that something disturbs after a step."""
    told: list[Event] = []
    for event in events:
        told.append(event)
        if isinstance(event, Stepped) and event.step > after:
            disturb()
            after = sys.maxsize
    return told


def test_a_killed_node_is_replaced_and_the_weights_are_those_of_an_undisturbed_machine(
    cluster: Any, tmp_path: Path
) -> None:
    calm, folder = tmp_path / "calm", tmp_path / "disturbed"
    for each in (calm, folder):
        each.mkdir()
    local = Distributed(processes=2)
    list(LocalRunner().run(job(calm, distributed=local), lambda: 0))
    cluster.add_node(num_cpus=1)
    told = disturbed(
        RayRanks(cluster.address).run(job(folder, SLOW), lambda: 0), 2,
        lambda: cluster.remove_node(_with_a_rank(cluster, folder), allow_graceful=False),
    )  # fmt: skip
    [lost] = [each for each in told if isinstance(each, Lost)]
    assert "was lost with its machine" in lost.why
    assert [each.attempt for each in told if isinstance(each, Started)] == [0, 1]
    assert weights(folder) == weights(calm)


def _with_a_rank(cluster: Any, folder: Path) -> Any:
    """A node, but the head, on which a rank of the job runs."""
    ours = {each.pid for process in processes_of(folder) for each in process.parents()}
    return next(node for node in cluster.worker_nodes if ours & _pids(node))


def _pids(node: Any) -> set[int]:
    raylets = node.all_processes["raylet"]
    return {each.process.pid for each in raylets}


def test_a_cluster_that_goes_away_is_said_and_the_next_training_resumes(tmp_path: Path) -> None:
    killed: list[float] = []

    def kill_all() -> None:
        killed.append(time.monotonic())
        for node in [*lost.worker_nodes, lost.head_node]:
            node.kill_all_processes(allow_graceful=False, check_alive=False)

    with two_nodes() as lost:
        running = RayRanks(lost.address).run(job(tmp_path, SLOW), lambda: 0)
        with pytest.raises(Unavailable, match=f"The Ray cluster at {lost.address} went away") as gone:
            disturbed(running, 4, kill_all)
    assert time.monotonic() - killed[0] < 60
    assert "resumes from the last checkpoint" in str(gone.value.fix)
    wait_until(lambda: not processes_of(tmp_path), "the ranks to end")
    assert list((tmp_path / "checkpoints").glob("*/*"))
    with two_nodes() as other:
        told = list(RayRanks(other.address).run(job(tmp_path), lambda: 0))
    assert not [each for each in told if isinstance(each, Lost)]
    assert weights(tmp_path)


@contextmanager
def node(environment: Mapping[str, str], *arguments: str, covered: Sequence[Path] = ()) -> Iterator[None]:
    """A node of a cluster with one processor, for which folders are empty: it has a file system of its own there."""
    mounts = [f"mount -t tmpfs none {each}" for each in covered]
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus=1", "--block", *arguments]
    command = ["unshare", "--mount", "sh", "-c", " && ".join([*mounts, f"exec {shlex.join(start)}"])]
    settings = {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    with subprocess.Popen(
        command, env={**environment, **settings}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
        start_new_session=True,
    ) as started:  # fmt: skip
        try:
            yield
        finally:
            os.killpg(started.pid, signal.SIGTERM)


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives a process mounts of its own")
def test_nodes_that_share_no_folder_get_the_code_and_give_back_logs_and_report(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    import ray

    depot = rank_depot.with_network(trained[0], tmp_path / "depot")
    machine = rank_depot.Machine(depot.root, stores=depot.state)
    expected = machine.json("train", "late-parcel")["metrics"]
    rank_depot.steer(machine, *(f"{rank} 1 print('rank', {rank}, 'is at', os.getcwd())" for rank in (0, 1)))
    port = free_port()
    address, hidden = f"{ray.util.get_node_ip_address()}:{port}", [depot.root / "parcels", depot.state / "training"]
    open_to_all = {"RAY_AUTH_MODE": "disabled"}
    environment = {**os.environ, **machine.environment, **open_to_all}
    head = ("--head", f"--port={port}", "--include-dashboard=false")
    with (
        node(environment, *head, covered=hidden),
        node(environment, f"--address={address}", covered=hidden),
    ):
        words = ("train", "late-parcel", "--machines", "2", "--processes", "1", "--runner", "ray", "--json")
        of_ray = {"MAINSPRING_RAY": address, "MAINSPRING_RAY_WAIT": "5m", **open_to_all}
        ran = machine.run(*words, environment=of_ray, timeout_s=600)
    assert ran.code == 0, ran
    assert ran.document["metrics"] == expected
    project = opened(machine)
    run = project.tracking.search("late-parcel")[0]
    assert (run.status, run.tags["processes"]) == ("FINISHED", "2")
    for rank in (0, 1):
        assert b"runtime_resources" in project.tracking.artefact(run.id, f"ranks/rank-{rank}.log")


def test_a_killed_launcher_leaves_no_process(cluster: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-c", LAUNCH, cluster.address, str(tmp_path), request(tmp_path, SLOW)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as launcher:
        assert launcher.stdout is not None
        while "Stage(name='train'" not in (line := launcher.stdout.readline()):
            assert line, "it has ended"
        assert len(processes_of(tmp_path)) >= 4, "two machines, two ranks and a launcher"
        launcher.send_signal(signal.SIGKILL)
    wait_until(lambda: not processes_of(tmp_path), "the ranks to end")
