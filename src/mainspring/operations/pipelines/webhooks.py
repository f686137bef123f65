"""Webhooks of git hosts: a signed delivery starts the pipelines that name the webhook, once.

GitHub signs the body (`X-Hub-Signature-256`, HMAC-SHA-256); GitLab sends the secret (`X-Gitlab-Token`). Of the body
only a commit's digest and a ref's name are used, and only as values of parameters that a pipeline has.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mainspring.core.errors import Conflict, Denied, Invalid, NotFound
from mainspring.core.ids import new_id
from mainspring.core.time import HOUR, SECOND, parse_instant
from mainspring.jobs.model import Job
from mainspring.jobs.pipelines.graph import Trigger
from mainspring.jobs.plain import Plain
from mainspring.operations.auditing import audit
from mainspring.operations.pipelines.names import of_run
from mainspring.project import Project
from mainspring.security.signing import hmac_signature

WINDOW_US = HOUR  # how old or new a delivery may be
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REF = re.compile(r"refs/[\w./+-]{1,200}", re.ASCII)
_DELIVERY = re.compile(r"[\w-]{1,128}", re.ASCII)


def deliver(project: Project, name: str, headers: Mapping[str, str], body: bytes) -> list[Job]:
    """Start the pipelines that name a webhook, and return their runs. A ping or a branch's end starts none.

    Args:
        headers: By lower-case name.

    Raises:
        Denied: No secret is set, the signature is wrong, or the signed delivery is older or newer than an hour.
        Invalid: The body or the delivery's id is not valid.
        NotFound: No pipeline names the webhook.
        Conflict: The same delivery has come before.
    """
    _check_signed(project.settings.webhook_secret, headers, body)
    document = _document(body)
    delivery = headers.get("x-github-delivery") or headers.get("x-gitlab-event-uuid") or ""
    if not _DELIVERY.fullmatch(delivery):
        raise Invalid("The delivery has no valid id.", fix="send X-GitHub-Delivery or X-Gitlab-Event-UUID.")
    if headers.get("x-github-event") == "ping" or _removes(document):
        return []
    if "x-hub-signature-256" in headers:
        _check_time(document, project.wall.now())
    wanted = Trigger("webhook", name)
    graphs = [each.graph for each in project.definitions.pipelines.values() if wanted in each.graph.triggers]
    if not graphs:
        raise NotFound(
            "No pipeline names this webhook.", fix=f'declare @ms.pipeline(when=[ms.webhook("{name[:128]}")]).'
        )
    given = _values(document)
    # The body is what is signed, the delivery's id is not: a copy with another id is still the same delivery.
    key = "webhook:" + hashlib.sha256(name.encode() + b"\0" + body).hexdigest()
    jobs, ids = [], []
    for graph in graphs:
        known = dict(graph.parameters)
        parameters = {each: value for each, value in given.items() if each in known}
        argument: Plain = {"parameters": parameters, "by": f"webhook:{name}", "trigger": {"webhook": name, **given}}
        ids.append(new_id())
        jobs.append(replace(of_run(graph, argument, key), id=ids[-1]))
    with project.audit.together():
        made = project.jobs.enqueue(jobs, project.wall.now())
        if all(job.id not in ids for job in made):
            raise Conflict("This delivery has come before; it started its pipelines then.", fix="send a new event.")
        audit(project, "webhook.delivered", f"webhook/{name}", delivery, who=f"webhook:{name}")
    return made


def _check_signed(secret: str, headers: Mapping[str, str], body: bytes) -> None:
    signature, token = headers.get("x-hub-signature-256"), headers.get("x-gitlab-token")
    right = False
    if secret and signature is not None:
        right = hmac.compare_digest(hmac_signature(secret, body).encode(), signature.encode())
    elif secret and token is not None:
        right = hmac.compare_digest(secret.encode(), token.encode())
    if not right:
        raise Denied(
            "The webhook's signature is missing or wrong.",
            fix="give the git host the secret that MAINSPRING_WEBHOOK_SECRET has here.",
        )


def _document(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Invalid("The webhook's body is not a JSON object.", fix="choose the content type application/json.")
    return found


def _removes(document: Mapping[str, Any]) -> bool:
    """Return whether a push removes a branch or tag: then it names the commit 000..."""
    after = document.get("after")
    return isinstance(after, str) and _COMMIT.fullmatch(after) is not None and not after.strip("0")


def _check_time(document: Mapping[str, Any], now: int) -> None:
    at = _time(document)
    if at is None:
        raise Invalid("The event names no time.", fix="send push events.")
    if abs(now - at) > WINDOW_US:
        raise Denied("The event is older or newer than an hour.", fix="check both clocks, or push again.")


def _time(document: Mapping[str, Any]) -> int | None:
    """Return the time of a push by GitHub. GitLab names only the time at which the last commit was made, which may be
    long ago; whoever has GitLab's token could write any time.
    """
    repository, head = document.get("repository"), document.get("head_commit")
    pushed = repository.get("pushed_at") if isinstance(repository, dict) else None
    if isinstance(pushed, int) and not isinstance(pushed, bool):
        return pushed * SECOND
    text = head.get("timestamp") if isinstance(head, dict) else None
    try:
        return parse_instant(text) if isinstance(text, str) else None
    except Invalid:
        return None


def _values(document: Mapping[str, Any]) -> dict[str, Plain]:
    commit, ref = document.get("after") or document.get("checkout_sha"), document.get("ref")
    found: dict[str, Plain] = {}
    if isinstance(commit, str) and _COMMIT.fullmatch(commit):
        found["commit"] = commit
    if isinstance(ref, str) and _REF.fullmatch(ref):
        found["ref"] = ref
    return found
