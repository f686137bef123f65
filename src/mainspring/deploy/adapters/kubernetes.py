"""Steps as Kubernetes Jobs: one is created, looked at until it ends, and deleted with its pod.

A runner that dies leaves its Job. The next runner of the step follows that Job, if it was asked the same: what a step
has done while nobody looked is not done again.
"""

from __future__ import annotations

import hashlib
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from mainspring.core.errors import MainspringError, Unavailable
from mainspring.core.settings import Settings
from mainspring.deploy.engines.asking import Watch, asked, value
from mainspring.deploy.engines.kubernetes_api import Api, Reply, configured, in_cluster
from mainspring.deploy.engines.manifest import LABEL, job_name, manifest
from mainspring.jobs.logs import append_last
from mainspring.jobs.model import StepFailed
from mainspring.jobs.pipelines.ports import StepCall
from mainspring.jobs.plain import Plain
from mainspring.jobs.runner import JobRun

_LOOK_S = 0.5
_AWAY_S = 30.0  # during which the API may be away before the attempt has failed
_LOG_BYTES = 8 << 20  # of a pod: with the answer in its last line, which may have a few megabytes
_GONE_S = 120.0  # until a deleted Job and its pod must be gone
_HOPELESS = ("CreateContainerConfigError", "ErrImageNeverPull", "ImagePullBackOff", "InvalidImageName")
_AT_ONCE = {"propagationPolicy": "Foreground", "gracePeriodSeconds": 0}  # the Job is gone after its pod


class KubernetesRunner:
    """Runs each step as a Job. What a step writes is in its log when the Job has ended.

    Args:
        settings: The project's; `settings.engines` has the image, the namespace and the rest.
        api: By default the cluster that this process runs in, else that of the kubeconfig.
    """

    def __init__(self, settings: Settings, api: Api | None = None) -> None:
        self._settings = settings
        self._api = api or in_cluster() or configured(Path(settings.engines.kubernetes_config).expanduser())
        self._jobs = f"/apis/batch/v1/namespaces/{settings.engines.kubernetes_namespace}/jobs"
        self._pods = f"/api/v1/namespaces/{settings.engines.kubernetes_namespace}/pods"

    def run(self, call: StepCall, attempt: JobRun) -> Plain:
        """See `StepRunner.run`. Raises `StepFailed` also if the image cannot be had, or the pod was ended."""
        watch, name = Watch(attempt), job_name(attempt.id)
        there = replace(self._settings, root=Path(self._settings.engines.kubernetes_folder))
        # Equal requests have equal marks, so that the answer of a Job that was left is found.
        mark = hashlib.sha256(asked(there, call, attempt.id).encode()).hexdigest()[:32]
        request = asked(there, call, attempt.id, mark=mark)
        job = manifest(self._settings.engines, name, request, attempt.timeout_us, call.resources)
        if (uid := self._left(name, job, watch)) is not None:
            _, answer = self._follow(name, uid, mark, call, watch)
            if answer is not None:
                return value(answer, attempt.id)
        self._delete(name)
        reply = self._api.ask("POST", self._jobs, job)
        if reply.status != 201:
            raise StepFailed(f"Kubernetes did not create the Job {name}: it answers {reply.status}.")
        ended, answer = self._follow(name, reply.json()["metadata"]["uid"], mark, call, watch)
        if answer is None:
            raise StepFailed(f"Its Kubernetes Job {name} {ended}.", fix=f"read {call.log}.")
        return value(answer, attempt.id)

    def _left(self, name: str, job: dict[str, Any], watch: Watch) -> str | None:
        """Return the uid of a Job that a dead runner left, if it runs the same request, or did; else `None`."""
        reply = self._look(name, watch)
        found = reply.json() if reply.status == 200 else {}
        if not found or found["metadata"].get("deletionTimestamp") or _container(found) != _container(job):
            return None
        return str(found["metadata"]["uid"])

    def _follow(self, name: str, uid: str, mark: str, call: StepCall, watch: Watch) -> tuple[str, str | None]:
        """Wait for a Job's end, append what it wrote to the log, and delete it; return how it ended, and its answer."""
        try:
            try:
                ended = self._wait(name, watch)
            finally:
                told, answer = self._output(name, mark)
                append_last(call.log, told)
            return ended if answer is not None else f"{ended}{self._why(name)}", answer
        finally:
            self._delete(name, uid)

    def _look(self, name: str, watch: Watch) -> Reply:
        """Return the API's answer about a Job; the API may be away for a while."""
        seen = time.monotonic()
        while True:
            watch.look()
            try:
                return self._api.ask("GET", f"{self._jobs}/{name}")
            except Unavailable:
                if time.monotonic() - seen > _AWAY_S:
                    raise
            time.sleep(_LOOK_S)

    def _wait(self, name: str, watch: Watch) -> str:
        """Wait for the Job's end, and return how it ended."""
        while True:
            reply = self._look(name, watch)
            if reply.status == 404:
                return "was deleted"
            for each in reply.json().get("status", {}).get("conditions") or []:
                if each["type"] in ("Complete", "Failed") and each["status"] == "True":
                    return f"ended as {each['type']} {each.get('reason', '')}".rstrip()
            with suppress(Unavailable):  # the next look asks again
                self._check_hope(name)
            time.sleep(_LOOK_S)

    def _check_hope(self, name: str) -> None:
        """Raise if the pod waits for what will not come."""
        for state in self._states(name):
            waiting = state.get("waiting", {})
            if waiting.get("reason") in _HOPELESS:
                raise StepFailed(
                    f"The pod of Job {name} cannot start: {waiting['reason']}: {waiting.get('message', '')}",
                    fix="check kubernetes_image and kubernetes_secret.",
                )

    def _why(self, name: str) -> str:
        ends = [state["terminated"] for state in self._states(name) if "terminated" in state]
        return "".join(f": {end.get('reason', '')} with exit code {end.get('exitCode')}" for end in ends)

    def _states(self, name: str) -> list[dict[str, Any]]:
        pods = self._find_pods(name)
        return [each.get("state", {}) for pod in pods for each in pod.get("status", {}).get("containerStatuses") or []]

    def _find_pods(self, name: str) -> list[dict[str, Any]]:
        reply = self._api.ask("GET", self._pods, labelSelector=f"{LABEL}={name}")
        return list(reply.json()["items"]) if reply.status == 200 else []

    def _output(self, name: str, mark: str) -> tuple[bytes, str | None]:
        """Return what the step wrote, and its answer, `None` without one."""
        told = b""
        with suppress(MainspringError):  # it never started, or its node is away
            for pod in self._find_pods(name):
                reply = self._api.ask("GET", f"{self._pods}/{pod['metadata']['name']}/log", last=_LOG_BYTES)
                told += reply.content if reply.status == 200 else b""
        before, found, after = told.rpartition(f"\n{mark} ".encode())
        if not found or not after.endswith(b"\n"):  # an answer without its end was cut off
            return told, None
        return before, after.decode()

    def _delete(self, name: str, uid: str | None = None) -> None:
        """Delete a Job and wait until its pod is gone.

        Args:
            uid: Delete only this one: another runner may have replaced it.
        """
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", **_AT_ONCE}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        until = time.monotonic() + _GONE_S
        asked = False
        while True:
            try:
                if not asked:
                    reply = self._api.ask("DELETE", f"{self._jobs}/{name}", options)
                    if reply.status in (404, 409):  # it is gone, or another
                        return
                    asked = True
                reply = self._api.ask("GET", f"{self._jobs}/{name}")
                if reply.status == 404 or (uid is not None and reply.json()["metadata"]["uid"] != uid):
                    return
            except Unavailable:
                if time.monotonic() > until:
                    raise
            if time.monotonic() > until:
                raise StepFailed(f"The Kubernetes Job {name} is not gone {_GONE_S:.0f} s after it was deleted.")
            time.sleep(_LOOK_S)


def _container(job: dict[str, Any]) -> tuple[str, list[str]]:
    """Return the image of a Job's pod, and its arguments: the request."""
    [container] = job["spec"]["template"]["spec"]["containers"]
    return container["image"], container["args"]
