"""A version reaches a device, and its predictions the log: the command line, `mainspring up`, `mainspring-edge run`."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from kit.depot import MODEL, Depot
from kit.depth import deep
from kit.mosquitto import CONTROL, broker
from kit.waiting import wait_until

SOURCE = Path(__file__).parents[2] / "edge-runtime" / "src"
DEVICE = "depot-7"
ROW = {"weight": 2.5, "HubLoad.scans_3h": 3, "HubLoad.mean_backlog_3h": 12.5, "HubLoad.backlog": None}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@deep
def test_a_device_runs_what_is_rolled_out_and_its_predictions_arrive(depot: Depot, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mainspring_edge.cli"]
    with (
        broker(tmp_path / "broker", "depot", [DEVICE]) as mqtt,
        served(depot.state / "edge" / "repository") as repository,
    ):
        depot.json("edge", "build", f"{MODEL}:1", "--to", tmp_path / "package", "--stored-as-inputs")
        published = depot.json("edge", "publish", tmp_path / "package")
        assert (published["name"], published["version"]) == (MODEL, 1)
        key = subprocess.run(
            [*command, "key", str(tmp_path / "device")],
            env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        with depot.up(environment={"MAINSPRING_FLEET": mqtt.address(CONTROL)}) as up:
            control = up.running["control"]
            address = f"mqtt://127.0.0.1:{mqtt.port}"
            depot.json(
                "edge", "register", DEVICE, "--package", MODEL, "--key", key, "--to", tmp_path / "setup.json",
                "--repository", repository, "--broker", address, "--control", control,
            )  # fmt: skip
            depot.json("edge", "rollout", MODEL, "1", "--rings", "1", "--soak", "0s")
            setup = json.loads((tmp_path / "setup.json").read_text())
            setup |= {"upload_every_s": 0.5, "report_every_s": 1.0}
            (tmp_path / "setup.json").write_text(json.dumps(setup))
            environment = {"PYTHONPATH": str(SOURCE), "MAINSPRING_EDGE_BROKER": mqtt.address(DEVICE)}
            run = [*command, "run", str(tmp_path / "device"), "--setup", str(tmp_path / "setup.json")]
            with subprocess.Popen(
                run, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
            ) as process:
                assert process.stdin is not None
                assert process.stdout is not None
                wait_until(lambda: depot.json("edge", "device", DEVICE)["condition"] == "healthy", "it runs version 1")
                for _ in range(5):
                    process.stdin.write(json.dumps(ROW) + "\n")
                    answer = json.loads(process.stdout.readline())
                    assert 0 < answer["probability"] < 1
                wait_until(lambda: depot.json("edge", "device", DEVICE)["uploaded"] == 5, "its rows are uploaded")
                process.stdin.close()
                assert process.wait(90) == 0
            listed = depot.run("predictions", "list", "--limit", "5", "--json")
            found = json.loads(listed.stdout)["predictions"]
            mine = [each for each in found if each["principal"] == f"device:{DEVICE}"]
            assert len(mine) == 5
            assert {each["outputs"]["probability"] for each in mine} == {answer["probability"]}
            assert depot.json("edge", "status")["rollouts"][0]["status"] == "done"
