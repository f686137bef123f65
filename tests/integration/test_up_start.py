"""How `up` starts: it waits for its catalog, and a signal meanwhile cuts nothing short."""

from __future__ import annotations

import signal
from pathlib import Path

from kit.depot import ENDPOINT, Depot, ask, keyed, logged, opened
from kit.depth import deep
from kit.servers import PostgresServer, running
from kit.standing import Standing
from kit.waiting import wait_until
from mainspring.core.time import DAY
from mainspring.operations.keys import create_key
from mainspring.processes.supervisor import Supervisor


def test_a_signal_while_it_starts_loses_no_answer(depot: Depot) -> None:
    service = depot.root / "parcels" / "service.py"
    service.write_text(service.read_text().replace(", log=ms.Log(sync=True)", ""))
    left = depot.state / ".gateway.copy.0a1b2c.partial"  # of a gateway that was killed
    left.write_bytes(b"half")
    project = opened(depot)
    key = create_key(project, "test", ["predict"], DAY)
    project.close()
    upstream = {"MAINSPRING_LLM_AWAY_URL": "http://127.0.0.1:1/v1", "MAINSPRING_LLM_AWAY_KEY_FILE": "no/provider.key"}
    with depot.begun("up", "--json", environment=upstream) as begun:  # which takes nothing else away
        wait_until(lambda: ask(depot.gateway, "GET", "/v2/health/ready").status == 200, "the gateway to serve")
        told = []
        for number in range(6):
            answer = ask(depot.gateway, "POST", f"/v2/models/{ENDPOINT}/infer", keyed(f"c{number}"), key=key)
            told += answer.body["parameters"]["prediction_ids"]
        begun.process.send_signal(signal.SIGTERM)
        ended = begun.end(60)
    assert ended.code == 0
    assert "Warning: The key of the upstream 'away' " in ended.stderr
    project = opened(depot)
    project.predictions.compact()
    assert set(told) <= logged(project)
    project.close()
    assert not left.exists()


@deep
def test_a_start_waits_for_its_catalog(tmp_path: Path) -> None:
    with running(PostgresServer) as server:
        standing = Standing(tmp_path / "project", catalog=server.fresh().text)
        standing.publish()
        standing.project.close()
        server.stop(signal.SIGKILL)
        waited: list[str] = []

        def tell(text: str) -> None:
            waited.append(text)
            server.start()

        project = standing.opened()
        supervisor = Supervisor(project, parts=("gateway", "control"), tell=tell)
        with supervisor.running(ready_within_s=2):
            wait_until(lambda: standing.ready().status == 200, "the gateway to serve")
        project.close()
    assert len(waited) == 1
    assert "Waiting for the catalog" in waited[0]
