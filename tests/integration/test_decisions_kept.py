"""Decisions of a real gateway on its models, and what it measured of them, after a kill and a restart."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from kit.standing import Standing
from kit.waiting import wait_until
from mainspring.operations.scaling import decisions, history, live, scaling
from mainspring.project.model_memory import model_memory
from mainspring.serving.residency.memory import What

BOUND = {"MAINSPRING_GATEWAY_MEMORY": "1GB"}


def test_what_a_killed_gateway_decided_is_listed_and_its_successor_knows_the_sizes(tmp_path: Path) -> None:
    standing = Standing(tmp_path / "standing")
    standing.publish()
    (digest,) = [each.arms[0].digest for each in standing.project.routes.current().values()]
    token = standing.key()
    with standing.gateway(environment=BOUND) as process:
        assert standing.predict(token).status == 200
        told = live(standing.project)
        uses = told.uses
        assert (told.processes, uses.limit) == (1, 10**9)
        assert uses.endpoints["late-arrival"].executors == 1
        assert uses.endpoints["late-arrival"].nbytes == uses.used > 0
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        (loaded,) = decisions(standing.project, 0, "late-arrival")
        assert (loaded.what, loaded.process, loaded.digest, loaded.endpoints) == (
            What.LOADED, "gateway-0", digest, ("late-arrival",),
        )  # fmt: skip
        assert (loaded.used, loaded.budget, loaded.executors) == (uses.used, 10**9, 1)
        process.returncode = 0  # the end that this test wanted
        process.send_signal = lambda _: None
    sizes = model_memory(standing.project.settings, "").sizes
    first = sizes.find(digest)
    assert first is not None
    assert not first.sure
    with standing.gateway(environment=BOUND):
        wait_until(lambda: len(decisions(standing.project, 0)) == 2, "the decision of the second run")
        report = scaling(standing.project, 0)
        assert (report.processes, report.memory_limit) == (1, 10**9)
        assert [each.what for each in report.decisions] == ["loaded", "loaded"]
    found = decisions(standing.project, 0)
    assert [each.what for each in found] == [What.LOADED, What.LOADED, What.ENDED]
    assert len({each.run for each in found}) == 2
    states = history(found, "late-arrival", [found[0].at, found[1].at, found[-1].at])
    assert [state.executors if state else None for state in states] == [1, 1, 0]
    again = sizes.find(digest)
    assert again is not None
    assert again.at > first.at
