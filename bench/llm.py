"""What does the gateway for language models cost? The same requests to an upstream, through ours, nginx and LiteLLM.

The upstream is llm_upstream.py, whose answers are made: all that is measured is what stands before it. Ours runs as a
project's does: a key on every request, the right to the model, each event read and its usage counted. nginx passes
bytes on without looking at them; LiteLLM's proxy runs with one worker and without keys. Each gateway has a core of its
own; the client and the upstream share the last one, so where a gateway is faster than they are, what counts is how many
requests and tokens it passes on per second of its own processor.

nginx is Debian's package `nginx-light`. LiteLLM: `python bench/peers.py litellm`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import starting
from environments import PEERS
from mainspring.serving.load.generator import http_request, run
from report import Case, report
from starting import CORES, HERE, free_ports, process, processor_s
from turns import best, turns_of

TOKENS = 64
CONNECTIONS = 32
MORE = ("requests_per_s", "tokens_per_s", "requests_per_busy_s", "tokens_per_busy_s")
MESSAGES = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "When does the train leave?"}]
SERVICE = """import mainspring as ms

ms.LanguageModel("made", upstreams=[ms.UpstreamModel("bench", "made")])
"""
NGINX = """worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.errors;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream made {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port}; keepalive_requests 1000000;
    location / {{
      proxy_pass http://made; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Measured:
    """First token of one caller alone, µs; requests and tokens a second of many; and per second of the processor of
    what stands before the upstream."""

    first_p50_us: float | None = None
    first_p99_us: float | None = None
    requests_per_s: float | None = None
    tokens_per_s: float | None = None
    requests_per_busy_s: float | None = None
    tokens_per_busy_s: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Side:
    """A server and what it wants in a head."""

    port: int
    headers: tuple[tuple[str, str], ...] = ()

    def request(self, *, stream: bool) -> bytes:
        more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        body = json.dumps({"model": "made", "messages": MESSAGES, **more}).encode()
        return http_request(f"127.0.0.1:{self.port}", "/v1/chat/completions", body, self.headers)


def first_tokens(side: Side, count: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the times from a request to the first bytes of its stream's events, µs, over one connection."""
    request = side.request(stream=True)
    found = []
    with socket.create_connection(("127.0.0.1", side.port), 20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            begun, heard = time.perf_counter(), b""
            connection.sendall(request)
            while b"data: " not in heard:
                heard += _more(connection)
            found.append((time.perf_counter() - begun) * 1e6)
            while not heard.endswith(b"\r\n0\r\n\r\n"):
                heard = heard[-16:] + _more(connection)
            time.sleep(0.002)
    return np.array(found)


def _more(connection: socket.socket) -> bytes:
    part = connection.recv(1 << 16)
    if not part:
        raise OSError("the connection was closed")
    return part


def measured(side: Side, seconds: float, upstream: int) -> Measured:
    """Measure a server whose answers are the upstream's.

    Args:
        upstream: The upstream's process.

    Raises:
        RuntimeError: They are not.
    """
    check(side)
    first_tokens(side, 50)
    firsts = first_tokens(side, int(150 * seconds))
    figures = {}
    for name, stream, each in (("requests", False, 1), ("tokens", True, TOKENS)):
        requests = [side.request(stream=stream)]
        run(("127.0.0.1", side.port), requests, connections=CONNECTIONS, seconds=1.0)
        busy = processor_s() - own_s(upstream)
        load = run(("127.0.0.1", side.port), requests, connections=CONNECTIONS, seconds=seconds)
        busy = processor_s() - own_s(upstream) - busy
        if set(load.statuses) != {200}:
            raise RuntimeError(f"statuses {dict(load.statuses)}")
        figures[f"{name}_per_s"] = round(load.per_second * each)
        if busy > 0.05:
            figures[f"{name}_per_busy_s"] = round(load.answered * each / busy)
    p50, p99 = (float(np.quantile(firsts, share)) for share in (0.5, 0.99))
    return Measured(round(p50), round(p99), **figures)


def own_s(pid: int) -> float:
    """Return the processor time so far of one process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def check(side: Side) -> None:
    """Raise unless a whole answer and a stream have all tokens."""
    for stream in (False, True):
        with socket.create_connection(("127.0.0.1", side.port), 20) as connection:
            connection.sendall(side.request(stream=stream))
            heard = b""
            while heard.count(b" word") < TOKENS and b"error" not in heard:
                heard += _more(connection)
        if heard.count(b" word") != TOKENS:
            raise RuntimeError(f"an answer has {heard.count(b' word')} tokens: {heard[:300]!r}")


@contextmanager
def made(folder: Path) -> Iterator[tuple[int, int]]:
    """Run the upstream beside the client; yield its port and process."""
    port = free_ports()
    with (folder / "upstream.log").open("wb") as out:
        command = [sys.executable, str(HERE / "llm_upstream.py"), str(port), str(TOKENS)]
        child = subprocess.Popen(command, stdout=out, stderr=out)
    os.sched_setaffinity(child.pid, CORES[-1:])
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield port, child.pid
    finally:
        child.terminate()
        child.wait()


@contextmanager
def ours(folder: Path, upstream: int) -> Iterator[Side]:
    os.environ["MAINSPRING_LLM_BENCH_URL"] = f"http://127.0.0.1:{upstream}/v1"
    project = starting.project(folder, SERVICE)
    project.applied.replace(project.definitions.contents(), 1)
    with starting.gateway(project, folder) as (port, token):
        time.sleep(1.5)  # until the definitions are read
        yield Side(port, (("Authorization", f"Bearer {token}"),))


@contextmanager
def nginx(folder: Path, upstream: int) -> Iterator[Side]:
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if found is None:
        raise RuntimeError("not installed: apt-get install nginx-light")
    port = free_ports()
    settings = folder / "nginx.conf"
    settings.write_text(NGINX.format(folder=folder, upstream=upstream, port=port))
    with process([found, "-c", str(settings), "-p", str(folder)], port, folder, "nginx"):
        yield Side(port)


@contextmanager
def litellm(folder: Path, upstream: int) -> Iterator[Side]:
    port = free_ports()
    settings = folder / "litellm.yaml"
    params = {"model": "openai/made", "api_base": f"http://127.0.0.1:{upstream}/v1", "api_key": "none"}
    settings.write_text(json.dumps({"model_list": [{"model_name": "made", "litellm_params": params}]}))
    command = [str(PEERS / "litellm" / "bin" / "litellm"), "--config", str(settings), "--port", str(port)]
    quiet = {
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        "LITELLM_LOG": "ERROR",
        "LITELLM_TELEMETRY": "False",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    with process([*command, "--host", "127.0.0.1", "--num_workers", "1"], port, folder, "litellm", **quiet):
        yield Side(port)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each load is kept up")
    parser.add_argument("--rounds", type=int, default=2, help="turns of ours, the upstream and nginx")
    parser.add_argument("--no-peers", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, made(Path(temporary)) as (upstream, pid):

        def turn(kind: str, serve: Callable[[Path, int], AbstractContextManager[Side]], number: int) -> Measured:
            folder = Path(temporary) / f"{kind}{number}"
            folder.mkdir()
            with serve(folder, upstream) as side:
                return measured(side, arguments.seconds, pid)

        sides: dict[str, Sequence[Measured]] = {}
        bare = [measured(Side(upstream), arguments.seconds, pid) for _ in range(arguments.rounds)]
        sides["upstream"] = [replace(each, requests_per_busy_s=None, tokens_per_busy_s=None) for each in bare]
        sides["ours"] = [turn("ours", ours, number) for number in range(arguments.rounds)]
        try:
            sides["nginx"] = [turn("nginx", nginx, number) for number in range(arguments.rounds)]
        except RuntimeError as error:
            sides["nginx"] = [Measured(note=str(error))]
        if not arguments.no_peers:
            sides |= turns_of(("litellm",), lambda kind: [turn(kind, litellm, 0)], Measured)
    report("llm", cases({name: best(each, MORE) for name, each in sides.items()}))


def cases(sides: dict[str, Measured]) -> list[Case]:
    """Return the cases: the floor of delays is zero and so not named; of throughput it is nginx."""
    bare, notes = sides.pop("upstream"), {name: each.note for name, each in sides.items() if each.note}

    def added(name: str, figure: str) -> float | None:
        one, other = getattr(sides[name], figure), getattr(bare, figure)
        return None if one is None or other is None else round(one - other)

    def case(title: str, unit: str, figure: str) -> Case:
        others = {name: getattr(each, figure) for name, each in sides.items() if name not in ("ours", "nginx")}
        return Case(
            title, unit, getattr(sides["ours"], figure), getattr(sides["nginx"], figure), others, notes,
            more_is_better=True,
        )  # fmt: skip

    delays = [
        Case(
            f"delay added at the first token, one caller, {figure[6:9]}", "µs", added("ours", figure),
            added("nginx", figure), {name: added(name, figure) for name in sides if name not in ("ours", "nginx")},
        )
        for figure in ("first_p50_us", "first_p99_us")
    ]  # fmt: skip
    return [
        *delays,
        case(f"whole answers, {CONNECTIONS} callers", "requests/s", "requests_per_s"),
        case("whole answers, per second of the gateway's processor", "requests", "requests_per_busy_s"),
        case(f"streams of {TOKENS} tokens, {CONNECTIONS} callers", "tokens/s", "tokens_per_s"),
        case("streams, per second of the gateway's processor", "tokens", "tokens_per_busy_s"),
    ]


if __name__ == "__main__":
    main()
