"""A gateway that is killed loses at most the last second of the usage of language models."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from kit.scripted_upstream import scripted
from kit.waiting import free_port, wait_until
from mainspring.core.environment import for_child
from mainspring.core.time import HOUR
from mainspring.llm.usage import FOLDER
from mainspring.llm.usage_table import rows
from mainspring.operations import keys
from mainspring.project import open_project
from mainspring.project.settings import load_settings
from mainspring.security.model import KeyScope

SERVICE = 'import mainspring as ms\n\nms.LanguageModel("assistant", upstreams=[ms.UpstreamModel("local", "tiny")])\n'
BODY = json.dumps({"model": "assistant", "messages": [{"role": "user", "content": "Hello"}]}).encode()


def test_a_killed_gateway_loses_at_most_a_second_of_usage(tmp_path: Path) -> None:
    (tmp_path / "mainspring.toml").write_text('name = "own"\nmodules = ["own_llm"]\n')
    (tmp_path / "own_llm.py").write_text(SERVICE)
    project = open_project(load_settings(tmp_path))
    project.applied.replace(project.definitions.contents(), 1)
    token, table = keys.create_key(project, "test", [KeyScope.PREDICT], HOUR), project.settings.state / FOLDER
    with scripted() as upstream:
        for life in range(1, 3):
            port = free_port()
            more = {"MAINSPRING_GATEWAY": f"127.0.0.1:{port}", "MAINSPRING_LLM_LOCAL_URL": upstream.url}
            child = subprocess.Popen(
                [sys.executable, "-m", "mainspring.processes.gateway", "--project", str(tmp_path)], env=for_child(more)
            )
            try:
                wait_until(lambda port=port: asked(port, token), "an answer", within_s=60)
                wait_until(lambda life=life: asked_for(table) == life, "the table to have it", within_s=60)
            finally:
                child.send_signal(signal.SIGKILL)
                child.wait()
            assert asked_for(table) == life
            assert [path.name.partition(".")[2] for path in table.iterdir()] == ["0.jsonl"]


def asked_for(table: Path) -> int:
    return sum(row.used.requests for row in rows(table, 0))


def asked(port: int, token: str) -> bool:
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, BODY, headers), timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
