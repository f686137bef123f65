"""Several gRPC processes on one address: who gets calls, who may have the address, and one that ends or dies."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from kit.fleet import Fleet
from kit.load import REST_S
from kit.serving import full_request
from kit.waiting import free_port, wait_until
from mainspring.core.errors import Conflict
from mainspring.core.listening import check_free
from mainspring.ledger.adapters.unread import unread
from mainspring.operations.doctor import examine
from mainspring.processes.supervisor import Supervisor
from mainspring.serving.grpc import wire
from mainspring.serving.plane import slots

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="SO_REUSEPORT shares connections out on Linux only")
ALONE = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own


def message() -> bytes:
    made = wire.InferRequest(model_name="late-arrival")
    for each in full_request()["inputs"]:
        filled = made.inputs.add(name=each["name"], datatype=each["datatype"], shape=each["shape"])
        values = [float("nan") if value is None else value for value in each["data"]]
        {"INT64": filled.contents.int64_contents, "FP32": filled.contents.fp32_contents,
         "FP64": filled.contents.fp64_contents}[each["datatype"]].extend(values)  # fmt: skip
    return bytes(made.SerializeToString())


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    found = Fleet(tmp_path, workers=1, settings={"grpc": f"127.0.0.1:{free_port()}", "grpc_workers": 2})
    found.publish("1")
    return found


@pytest.fixture
def up(fleet: Fleet) -> Iterator[Supervisor]:
    named = {**fleet.settings, "gateway": f"127.0.0.1:{fleet.port}"}
    environment = {f"MAINSPRING_{name.upper()}": str(value) for name, value in named.items()}
    supervisor = Supervisor(fleet.project, environment | {"OMP_NUM_THREADS": "1"}, parts=("gateway", "grpc"))
    with supervisor.running(ready_within_s=60):
        yield supervisor


def call(fleet: Fleet, channel: grpc.Channel, *, wait: bool = True) -> None:
    infer = channel.unary_unary(f"/{wire.SERVICE}/ModelInfer")
    reply = infer(message(), metadata=[("authorization", f"Bearer {fleet.key}")], timeout=60, wait_for_ready=wait)
    assert wire.InferResponse.FromString(reply).model_version == "1"


def channel(fleet: Fleet) -> grpc.Channel:
    return grpc.insecure_channel(str(fleet.settings["grpc"]), options=ALONE)


def test_connections_are_shared_out_and_a_scrape_shows_all(fleet: Fleet, up: Supervisor) -> None:
    def spread() -> bool:
        for _ in range(16):
            with channel(fleet) as each:
                call(fleet, each)
        return {"1", "2"} <= {slot for slot, count in fleet.answered().items() if count > 0}

    assert set(fleet.pids) == {"gateway", "grpc", "grpc-1"}
    wait_until(spread, "calls at both processes")
    assert 'mainspring_gateway_worker_up{slot="2"} 1' in fleet.scrape()
    (found,) = (each for each in examine(fleet.project) if each.check == "grpc")
    assert (found.ok, found.detail) == (True, f"answers on {fleet.settings['grpc']} from 2 processes")


def test_the_address_is_theirs(fleet: Fleet, up: Supervisor) -> None:
    address = fleet.project.settings.grpc
    assert address is not None
    with pytest.raises(Conflict, match="in use"):
        check_free(address, "grpc")
    with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
        stranger.bind((address.host, address.port))


def test_one_that_ends_answers_what_it_began_and_one_that_dies_loses_that(fleet: Fleet, up: Supervisor) -> None:
    """gRPC itself cancels what reaches a server in the instant in which it begins to end: that is not computed."""
    done, told, lost = threading.Event(), list[int](), list[grpc.StatusCode]()

    def ask() -> None:
        with channel(fleet) as each:
            while not done.is_set():
                try:
                    call(fleet, each)
                    told.append(1)
                except grpc.RpcError as error:
                    lost.append(error.code())
                done.wait(REST_S)

    def more(count: int) -> None:
        goal = len(told) + count
        wait_until(lambda: len(told) >= goal, f"{count} more answers")

    place = slots.folder(fleet.project.settings.state)
    with ThreadPoolExecutor(6) as threads:
        asking = [threads.submit(ask) for _ in range(6)]
        try:
            more(50)
            for name, slot in (("grpc", 1), ("grpc-1", 2)):
                fleet.until_replaced(name, fleet.kill(name, signal.SIGTERM))
                wait_until(lambda slot=slot: slots.ready(place, slot), f"a new {name}")
                more(50)
        finally:
            done.set()
        for each in asking:
            each.result(120)
        assert set(lost) <= {grpc.StatusCode.CANCELLED}
        assert len(lost) <= 2 * len(asking)
        wait = "predictions in the log, two a call, and no others"
        wait_until(lambda: len(list(unread(fleet.project.settings.state / "ledger"))) >= 2 * len(told), wait)
        assert len(list(unread(fleet.project.settings.state / "ledger"))) == 2 * len(told)

        done.clear()
        lost.clear()
        asking = [threads.submit(ask) for _ in range(6)]
        try:
            more(50)
            fleet.until_replaced("grpc", fleet.kill("grpc"))
            more(50)
        finally:
            done.set()
        for each in asking:
            each.result(120)
    assert set(lost) <= {grpc.StatusCode.UNAVAILABLE}
    assert len(lost) <= len(asking)
