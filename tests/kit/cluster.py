"""The part of Kubernetes' API that runs Jobs, with a process of this machine for each pod; and that of other objects
(`kit.cluster_objects`).

It answers as the API does where the client depends on it: 401 without the token, 409 for a name that is taken and for
another `uid`, and a deleted Job stays for a while with its pod. It schedules nothing and pulls no image.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from kit import prefork
from kit.cluster_objects import Objects

TOKEN = "t0ken"
_JOBS = re.compile(r"/apis/batch/v1/namespaces/([a-z0-9-]+)/jobs(?:/([a-z0-9-]+))?")
_PODS = re.compile(r"/api/v1/namespaces/([a-z0-9-]+)/pods(?:/([a-z0-9-]+)/log)?")


class Pod:
    """A Job with its pod."""

    def __init__(self, job: dict[str, Any], logs: Path, python: Path) -> None:
        self.job = job
        self.uid = str(uuid4())
        self.name = f"{job['metadata']['name']}-x7k2p"
        self.leaving = 0
        self.log = logs / f"{self.uid}.log"
        [container] = job["spec"]["template"]["spec"]["containers"]
        assert container["command"][0] == "python"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [python, *container["command"][1:], *container["args"]],
                cwd=container["workingDir"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def as_job(self) -> dict[str, Any]:
        code = self.process.poll()
        conditions = [] if code is None else [{"type": "Failed" if code else "Complete", "status": "True"}]
        leaving = {"deletionTimestamp": "2026-01-01T00:00:00Z"} if self.leaving else {}
        metadata = {**self.job["metadata"], "uid": self.uid, **leaving}
        return {**self.job, "metadata": metadata, "status": {"conditions": conditions}}

    def as_pod(self) -> dict[str, Any]:
        code = self.process.poll()
        state = {"running": {}} if code is None else {"terminated": {"exitCode": code, "reason": "Error"}}
        return {"metadata": {"name": self.name}, "status": {"containerStatuses": [{"state": state}]}}


class Cluster(ThreadingHTTPServer):
    """The API. `asked` lists the requests, `waiting` replaces the state of every pod, `away` requests get 503.

    Args:
        forked: Pods are forked (`prefork`): for tests that kill none.
    """

    daemon_threads = True

    def __init__(self, logs: Path, *, forked: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Asked)
        self.logs = logs
        self.python = prefork.programs() / "python" if forked else Path(sys.executable)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.asked: list[tuple[str, str]] = []
        self.jobs: list[dict[str, Any]] = []
        self.pods: dict[str, Pod] = {}
        self.away = 0
        self.waiting: dict[str, Any] | None = None
        self.objects: Objects | None = None
        self.changing = threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        for pod in self.pods.values():
            pod.kill()


class _Asked(BaseHTTPRequestHandler):
    server: Cluster

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, status: int, content: Any) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
        with self.server.changing:
            self.server.asked.append((self.command, parts.path))
            if self.headers["Authorization"] != f"Bearer {TOKEN}":
                self._answer(401, {"message": "Unauthorized"})
            elif self.server.away:
                self.server.away -= 1
                self._answer(503, {"message": "etcdserver: leader changed"})
            elif self.server.objects is not None:
                query = {name: value for name, [value] in parse_qs(parts.query).items()}
                given = self.headers.get("Content-Type", "")
                self._answer(*self.server.objects.answer(self.command, parts.path, query, given, body))
            elif found := _JOBS.fullmatch(parts.path):
                self._job(found[2], body)
            elif found := _PODS.fullmatch(parts.path):
                self._pod(found[2], parse_qs(parts.query))
            else:
                self._answer(404, {"message": f"no {parts.path}"})

    do_GET = do_POST = do_DELETE = do_PATCH = _handle

    def _job(self, name: str | None, body: Any) -> None:
        name = body["metadata"]["name"] if name is None else name
        pod = self.server.pods.get(name)
        if self.command == "POST":
            if pod is not None:
                return self._answer(409, {"message": f"{name} exists"})
            self.server.jobs.append(body)
            pod = self.server.pods[name] = Pod(body, self.server.logs, self.server.python)
            return self._answer(201, pod.as_job())
        if pod is None:
            return self._answer(404, {"message": f"no {name}"})
        if self.command == "DELETE":
            if body.get("preconditions", {}).get("uid", pod.uid) != pod.uid:
                return self._answer(409, {"message": "another uid"})
            assert body["propagationPolicy"] == "Foreground"
            pod.leaving = 2
        elif pod.leaving:
            pod.leaving -= 1
            if not pod.leaving:
                pod.kill()
                del self.server.pods[name]
        return self._answer(200, pod.as_job())

    def _pod(self, name: str | None, query: dict[str, list[str]]) -> None:
        if name is None:
            key, _, wanted = query["labelSelector"][0].partition("=")
            pods = [each for each in self.server.pods.values() if _labels(each)[key] == wanted]
            items = [each.as_pod() for each in pods]
            if self.server.waiting is not None:
                for each in items:
                    each["status"]["containerStatuses"] = [{"state": {"waiting": self.server.waiting}}]
            return self._answer(200, {"items": items})
        for pod in self.server.pods.values():
            if pod.name == name:
                return self._answer(200, pod.log.read_bytes())
        return self._answer(404, {"message": f"no {name}"})


def _labels(pod: Pod) -> dict[str, str]:
    found: dict[str, str] = pod.job["spec"]["template"]["metadata"]["labels"]
    return found
