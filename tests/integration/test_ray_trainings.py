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
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from kit import rank_depot
from kit.depot import opened
from kit.engines import ray_cluster
from kit.waiting import free_port, wait_until
from mainspring.core.errors import Invalid, MainspringError, Unavailable
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
UP = "will now block"  # says a node that has started
RAYS = Path("/tmp/ray")  # Ray's folder of sessions
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
def node(environment: Mapping[str, str], log: Path, *arguments: str, covered: Sequence[Path]) -> Iterator[Any]:
    """A node of a cluster, once it is up, with one processor and a file system of its own at some folders."""
    mounts = [f"mount -t tmpfs none {each}" for each in covered]
    any_port = ("--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0")
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus=1", "--block", *any_port, *arguments]
    command = ["unshare", "--mount", "sh", "-c", " && ".join([*mounts, f"exec {shlex.join(start)}"])]
    of_ray = {"worker_niceness": "0", "USAGE_STATS_ENABLED": "0", "memory_monitor_refresh_ms": "0"}
    whole = {**{f"RAY_{name}": value for name, value in of_ray.items()}, **environment}
    for _ in range(3):  # Ray gives a node fifteen seconds to start, of which a loaded machine needs more
        with (
            log.open("wb") as said,
            subprocess.Popen(
                command, env=whole, stdout=said, stderr=said, cwd="/", start_new_session=True
            ) as started,
        ):  # fmt: skip
            try:
                if wait_until(lambda: _up(log) or started.poll() is not None, "the node to start", within_s=300) == UP:
                    yield psutil.Process(started.pid)
                    return
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(started.pid, signal.SIGTERM)
    raise AssertionError(log.read_text())


def _up(log: Path) -> str:
    return UP if UP in log.read_text() else ""


@dataclass
class Apart:
    """A project on this machine, and a cluster whose nodes see neither its files nor its state."""

    machine: rank_depot.Machine
    port: int
    logs: Path
    authentication: Mapping[str, str]

    @property
    def address(self) -> str:
        import ray

        return f"{ray.util.get_node_ip_address()}:{self.port}"

    @property
    def words(self) -> Sequence[str]:
        """The command that trains on two nodes."""
        return "train", "late-parcel", "--machines", "2", "--processes", "1", "--runner", "ray", "--json"

    @property
    def environment(self) -> dict[str, str]:
        return {"MAINSPRING_RAY": self.address, "MAINSPRING_RAY_WAIT": "5m"}

    def node(self, number: int) -> AbstractContextManager[Any]:
        """A node of the cluster; number 0 is its head.

        Another one has a place of its own for Ray's copies, as a node that starts writes those of its session anew.
        """
        head = ("--head", f"--port={self.port}", "--include-dashboard=false", f"--ray-client-server-port={free_port()}")
        covered = [self.machine.root / "parcels", self.machine.state / "training"]
        return node(
            {**os.environ, **self.machine.environment, **self.authentication},
            self.logs / f"node-{number}.log",
            *(head if number == 0 else (f"--address={self.address}",)),
            covered=covered if number == 0 else [*covered, RAYS],
        )

    def run(self) -> Any:
        """Return the newest training that ended well."""
        project = opened(self.machine)
        run = project.tracking.search("late-parcel", status="FINISHED")[0]
        logs = [project.tracking.artefact(run.id, f"ranks/rank-{rank}.log") for rank in (0, 1)]
        assert all(b"runtime_resources" in log for log in logs), "the ranks worked in Ray's copy of the project"
        return run


def apart(trained: Path, folder: Path, authentication: Mapping[str, str]) -> tuple[Apart, Any]:
    """Return a project, and what two processes of this machine train from it."""
    depot = rank_depot.with_network(trained, folder / "depot")
    declared = depot.root / "parcels" / "model.py"
    declared.write_text(declared.read_text().replace("restarts=2, silence_s=3", "restarts=5, silence_s=60"))
    machine = rank_depot.Machine(depot.root, stores=depot.state)
    return Apart(machine, free_port(), folder, authentication), machine.json("train", "late-parcel")["metrics"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives a process mounts of its own")
def test_nodes_that_share_no_folder_and_ask_for_a_token_train_from_a_copy_of_the_code(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "of-this-test-alone"}
    project, expected = apart(trained[0], tmp_path, token)
    rank_depot.steer(project.machine, *(f"{rank} 1 print('rank', {rank}, 'is at', os.getcwd())" for rank in (0, 1)))
    with project.node(0), project.node(1):
        refused = project.machine.run(*project.words, environment=project.environment, timeout_s=300)
        ran = project.machine.run(*project.words, environment={**project.environment, **token}, timeout_s=600)
    assert refused.code != 0
    assert f"The Ray cluster at {project.address} asks for a token" in refused.stderr
    assert "RAY_AUTH_MODE=token" in refused.stderr
    assert ran.code == 0, ran
    assert ran.document["metrics"] == expected
    assert project.run().tags["processes"] == "2"


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives a process mounts of its own")
def test_a_node_that_joins_late_takes_part_and_one_whose_raylet_is_killed_is_replaced(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    disabled = {"RAY_AUTH_MODE": "disabled"}
    project, expected = apart(trained[0], tmp_path, disabled)
    rank_depot.steer(
        project.machine,
        *(f"{rank} 1 always print('rank', {rank}, 'is at', os.getcwd())" for rank in (0, 1)),
        *(f"{rank} 6 Path({str(tmp_path)!r}, 'rank-{rank}').write_text(str(os.getpid()))" for rank in (0, 1)),
        *(f"{rank} {step} time.sleep(2)" for rank in (0, 1) for step in range(7, 60)),
    )
    with ExitStack() as nodes:
        nodes.enter_context(project.node(0))
        environment = {**project.environment, **disabled}
        training = nodes.enter_context(project.machine.begun(*project.words, environment=environment))
        wait_until(lambda: _waits(project.address), "the training to wait for a node", within_s=300)
        late = nodes.enter_context(project.node(1))
        wait_until(lambda: training.ended or len(list(tmp_path.glob("rank-*"))) == 2, "six steps", within_s=300)
        assert not training.ended, training.end()
        processes = late.children(recursive=True)
        assert {int(path.read_text()) for path in tmp_path.glob("rank-*")} & {each.pid for each in processes}
        next(each for each in processes if each.name() == "raylet").kill()
        nodes.enter_context(project.node(2))
        ran = training.end()
    assert ran.code == 0, ran
    report = json.loads(ran.stdout)
    assert report["metrics"] == expected
    assert any("was lost with its machine" in note for note in report["notes"]), report["notes"]
    assert int(project.run().tags["replaced"]) >= 1


def _waits(address: str) -> bool:
    """Whether a training has asked for nodes that the cluster does not have."""
    import ray
    from ray.util.placement_group import placement_group_table

    from mainspring.core.ray_cluster import connect

    connect(address)
    try:
        return any(group["state"] == "PENDING" for group in placement_group_table().values())
    finally:
        ray.shutdown()


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives a process mounts of its own")
def test_a_machine_that_ray_ends_for_its_memory_is_named_with_the_reason(tmp_path: Path) -> None:
    import ray

    full = {"RAY_memory_monitor_refresh_ms": "30000", "RAY_memory_usage_threshold": "0.01", "RAY_AUTH_MODE": "disabled"}
    port, small = free_port(), Distributed(processes=1, machines=1, restarts=0)
    head = ("--head", f"--port={port}", "--include-dashboard=false", f"--ray-client-server-port={free_port()}")
    of_a_minute = job(tmp_path, *[[0, 0, step, "wait"] for step in range(1, 31) for _ in range(10)], distributed=small)
    said = r"Rank 0 of 1 was lost with its machine .*: Ray ended it, for the node's memory was .*GB used"
    with node({**os.environ, **full}, tmp_path / "node.log", *head, covered=[]):
        ranks = RayRanks(f"{ray.util.get_node_ip_address()}:{port}", wait_s=300)
        with pytest.raises(MainspringError, match=said):
            list(ranks.run(of_a_minute, lambda: 0))


def test_a_killed_launcher_leaves_no_process(cluster: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-c", LAUNCH, cluster.address, str(tmp_path), request(tmp_path, SLOW)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as launcher:
        assert launcher.stdout is not None
        while "Stage(name='train'" not in (line := launcher.stdout.readline()):
            assert line, "it has ended"
        assert len(processes_of(tmp_path)) >= 4, "two machines, two ranks and a launcher"
        launcher.send_signal(signal.SIGKILL)
    wait_until(lambda: not processes_of(tmp_path), "the ranks to end")
