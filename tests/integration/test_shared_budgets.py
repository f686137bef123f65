"""Budgets of language models of two machines, whose gateways share a Redis: together they hold to the token."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from kit.scripted_upstream import scripted
from kit.servers import RedisServer
from kit.waiting import free_port, wait_until
from mainspring.core.environment import for_child
from mainspring.core.time import HOUR
from mainspring.operations import keys, quotas
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings
from mainspring.security.model import KeyScope

EACH, PASSING = 16, 30  # tokens of a call as its upstream tells them; calls that the budget is for
SERVICE = """import mainspring as ms

ms.LanguageModel(
    "assistant", upstreams=[ms.UpstreamModel("local", "tiny")],
    quotas=[ms.Quota("team", per="month", tokens={tokens}, by="all")],
)
"""
BODY = json.dumps({"model": "assistant", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 11}).encode()


def machine(folder: Path, online: str, upstream: str) -> tuple[Project, int, subprocess.Popen[bytes], str]:
    """Start a machine's gateway; return its project, port, process and a key."""
    folder.mkdir()
    (folder / "mainspring.toml").write_text('name = "shared"\nmodules = ["own_llm"]\n')
    (folder / "own_llm.py").write_text(SERVICE.format(tokens=EACH * PASSING))
    settings = {"MAINSPRING_ONLINE": online, "MAINSPRING_LLM_LOCAL_URL": upstream}
    project = open_project(load_settings(folder, environment=settings))
    project.applied.replace(project.definitions.contents(), 1)
    token, port = keys.create_key(project, "test", [KeyScope.PREDICT], HOUR), free_port()
    child = subprocess.Popen(
        [sys.executable, "-m", "mainspring.processes.gateway", "--project", str(folder)],
        env=for_child({**settings, "MAINSPRING_GATEWAY": f"127.0.0.1:{port}"}),
    )
    return project, port, child, token


def status(port: int, token: str, path: str = "/v1/chat/completions", body: bytes | None = BODY) -> int:
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, headers), timeout=20
        ) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_two_gateways_share_a_budget_to_the_token(tmp_path: Path, redis_server: RedisServer) -> None:
    with scripted() as upstream, ExitStack() as ended:
        machines = [machine(tmp_path / name, redis_server.url.text, upstream.url) for name in ("one", "other")]
        for _, port, child, token in machines:
            ended.callback(child.wait)
            ended.callback(child.send_signal, signal.SIGTERM)
            wait_until(
                lambda port=port, token=token: status(port, token, "/v1/models/assistant", None) == 200,
                "a gateway", within_s=60,
            )  # fmt: skip
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(status, port, token) for _ in range(PASSING) for _, port, _, token in machines]
            found = Counter(each.result() for each in asked)
        assert set(found) == {200, 429}
        project, port, _, token = machines[0]
        while status(port, token) == 200:  # those refused while others had reserved more than they used
            found[200] += 1
        (used,) = quotas.use(project)
        assert used.spent == found[200] * EACH
        assert used.left < EACH + 2
        assert [status(port, token) for _, port, _, token in machines] == [429, 429]
        redis_server.pause()
        try:
            assert status(port, token) == 503
        finally:
            redis_server.resume()
        wait_until(lambda: status(port, token) == 429, "the budget", within_s=20)
