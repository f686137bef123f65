"""What does the gateway for language models cost? The same requests to an upstream, through ours, nginx and LiteLLM.

The upstream is llm_upstream.py, whose answers are made: all that is measured is what stands before it. Ours runs as a
project's does: a key on every request, the right to the model, each event read and its usage counted. nginx passes
bytes on without looking at them; LiteLLM's proxy runs with one worker and without keys. Each gateway has a core of its
own; the client and the upstream share the last one, so where a gateway is faster than they are, what counts is how many
requests and tokens it passes on per second of its own processor.

All servers run; they are measured in turns, in another order each round. Figures are medians of the rounds, and so are
the ratios, each of two turns of one round: what else the machine does meanwhile falls on both.

nginx is Debian's package `nginx-light` (`apt-get install nginx-light`; `tests/servers.sh --bench` installs it).
LiteLLM: `python bench/peers.py litellm`. The usual rounds take five minutes.
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

import starting
from environments import PEERS
from mainspring.serving.load.generator import http_request, run
from report import Case, report
from starting import CORES, HERE, free_ports, missing, process, processor_s

TOKENS = 64
CONNECTIONS = 32
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


@dataclass(frozen=True)
class Side:
    """A server and what it wants in a head."""

    port: int
    headers: tuple[tuple[str, str], ...] = ()
    gateway: bool = True

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
    """Measure a server whose answers are the upstream's, for as long for each load, and half as long for first tokens.

    Args:
        upstream: The upstream's process.

    Raises:
        RuntimeError: They are not.
    """
    check(side)
    first_tokens(side, 10)
    firsts = first_tokens(side, int(100 * seconds))
    figures = {}
    for name, stream, each in (("requests", False, 1), ("tokens", True, TOKENS)):
        requests = [side.request(stream=stream)]
        run(("127.0.0.1", side.port), requests, connections=CONNECTIONS, seconds=0.3)
        busy = processor_s() - own_s(upstream)
        load = run(("127.0.0.1", side.port), requests, connections=CONNECTIONS, seconds=seconds)
        busy = processor_s() - own_s(upstream) - busy
        if set(load.statuses) != {200}:
            raise RuntimeError(f"statuses {dict(load.statuses)}")
        figures[f"{name}_per_s"] = round(load.per_second * each)
        if busy > 0.05 and side.gateway:
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
        raise RuntimeError("not installed: run `apt-get install nginx-light`, or `tests/servers.sh --bench`")
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
    if why := missing("litellm"):
        raise RuntimeError(why)
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
    parser.add_argument("--seconds", type=float, default=1.5, help="how long a turn keeps each load up")
    parser.add_argument("--rounds", type=int, default=10, help="turns of each; LiteLLM has half as many")
    parser.add_argument("--no-peers", action="store_true")
    arguments = parser.parse_args()
    notes: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as temporary, made(Path(temporary)) as (upstream, pid), ExitStack() as running:
        sides = {"upstream": Side(upstream, gateway=False)}
        for name, serve in (("ours", ours), ("nginx", nginx), ("litellm", litellm)):
            if name == "litellm" and arguments.no_peers:
                continue
            folder = Path(temporary) / name
            folder.mkdir()
            try:
                sides[name] = running.enter_context(serve(folder, upstream))
            except (RuntimeError, OSError) as error:
                if name == "ours":
                    raise
                notes[name] = str(error).splitlines()[-1]  # of its log
        rounds = []
        for number in range(arguments.rounds):
            turns = [name for name in sides if name != "litellm" or number % 2 == 0]
            turns = turns[number % len(turns) :] + turns[: number % len(turns)]
            rounds.append({name: measured(sides[name], arguments.seconds, pid) for name in turns})
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
    report("llm", cases(rounds, notes))


def cases(rounds: Sequence[Mapping[str, Measured]], notes: Mapping[str, str]) -> list[Case]:
    """Return the cases, of medians: the floor of delays is the bare upstream's, which is taken off; of throughput it is
    nginx."""

    def figures(name: str, figure: str, *, less: str = "") -> dict[int, float]:
        """Return the figure of a side by round, less than that of another in the same round."""
        found = {}
        for number, turns in enumerate(rounds):
            value = getattr(turns[name], figure) if name in turns else None
            off = getattr(turns[less], figure) if less else 0
            if value is not None and off is not None:
                found[number] = value - off
        return found

    def case(title: str, unit: str, figure: str, *, less: str = "") -> Case:
        found = {name: figures(name, figure, less=less) for name in ("ours", "nginx", "litellm")}
        medians = {name: round(median(values.values())) if values else None for name, values in found.items()}
        paired = {}
        for name in ("nginx", "litellm"):
            both = found[name].keys() & found["ours"].keys()
            if both and not less:
                ratio = median(found["ours"][number] / found[name][number] for number in both)
                paired["floor" if name == "nginx" else name] = round(ratio, 3)
        return Case(
            title, unit, medians["ours"], medians["nginx"], {"litellm": medians["litellm"]}, notes,
            more_is_better=not less, paired=paired,
        )  # fmt: skip

    return [
        case("delay added at the first token, one caller, p50", "µs", "first_p50_us", less="upstream"),
        case("delay added at the first token, one caller, p99", "µs", "first_p99_us", less="upstream"),
        case(f"whole answers, {CONNECTIONS} callers", "requests/s", "requests_per_s"),
        case("whole answers, per second of the gateway's processor", "requests", "requests_per_busy_s"),
        case(f"streams of {TOKENS} tokens, {CONNECTIONS} callers", "tokens/s", "tokens_per_s"),
        case("streams, per second of the gateway's processor", "tokens", "tokens_per_busy_s"),
    ]


if __name__ == "__main__":
    main()
