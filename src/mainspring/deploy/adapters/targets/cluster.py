"""A target in a Kubernetes cluster: its pieces are objects, made by server-side apply.

The API merges what the field manager `mainspring` says of an object with what others say of it
(https://kubernetes.io/docs/reference/using-api/server-side-apply/). An object carries the content that it was made
with, so that a field that somebody else changed is seen.
"""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mainspring.core.errors import Conflict, Denied, Invalid, Unavailable
from mainspring.deploy.adapters.targets.cluster_problems import problems
from mainspring.deploy.adapters.targets.object_states import state_of
from mainspring.deploy.engines.kubernetes_api import Api, Reply, message
from mainspring.deploy.manifests.kinds import KINDS, Kind, Object
from mainspring.deploy.manifests.serving.options import MANAGED
from mainspring.deploy.targets.model import ABSENT, Deployment, Needs, Piece, Seen

MANAGER = "mainspring"
DIGEST, APPLIED = "mainspring-digest", "mainspring-applied"  # annotations
_APPLY = "application/apply-patch+yaml"  # JSON is YAML
_LARGEST = 8 << 20  # bytes of an object; the API takes fewer
_GONE_S, _LOOK_S = 120.0, 0.2

Render = Callable[[Deployment], Sequence[tuple[Object, Needs | None]]]


@dataclass(frozen=True)
class ClusterTarget:
    """Objects of one namespace.

    Args:
        objects: Returns a deployment's objects in the order in which they are made, with the resources of their pods.
        connect: Returns the API; called when it is needed.
        gone_s: Longest time in which a deleted object has to be gone.
    """

    namespace: str
    objects: Render
    connect: Callable[[], Api]
    gone_s: float = _GONE_S

    @cached_property
    def _api(self) -> Api:
        return self.connect()

    def render(self, deployment: Deployment) -> list[Piece]:
        pieces = list[Piece]()
        for made, needs in self.objects(deployment):
            content = json.dumps(made, indent=2).encode() + b"\n"
            after = tuple(each.id for each in pieces)
            pieces.append(
                Piece(id=f"{made['kind']}/{made['metadata']['name']}", content=content, after=after, needs=needs)
            )
        return pieces

    def problems(self, pieces: Sequence[Piece]) -> list[str]:
        return problems(
            self._api, self.namespace, [(json.loads(each.content), each.needs) for each in pieces], self._try
        )

    def look(self, ids: Sequence[str]) -> list[Seen]:
        return [self._seen(id) for id in ids]

    def make(self, piece: Piece) -> None:
        # Fields of an object that somebody makes just now are not taken over.
        self._apply(piece, force=self._is_own(piece.id))

    def remove(self, id: str) -> None:
        found = self._find(id)
        if found is None or not _own(found):
            return
        uid = found["metadata"]["uid"]
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Foreground",
            "preconditions": {"uid": uid},
        }
        reply = self._api.ask("DELETE", self._path(id), options)
        until = time.monotonic() + self.gone_s
        while reply.status != 404 and (found := self._find(id)) is not None and found["metadata"]["uid"] == uid:
            if time.monotonic() > until:
                waits = ", ".join(found["metadata"].get("finalizers") or ["its pods"])
                raise Unavailable(
                    f"{id} is being deleted for {self.gone_s:.0f} s, and waits for {waits}.",
                    fix=f"`kubectl -n {self.namespace} describe` it; then destroy again.",
                )
            time.sleep(_LOOK_S)

    def _seen(self, id: str) -> Seen:
        found = self._find(id)
        if found is None:
            return ABSENT
        if "deletionTimestamp" in found["metadata"]:
            return Seen("starting", "", "it is being deleted")
        state, why = state_of(found, self._api, self.namespace)
        return Seen(state, _digest(found), why)

    def _find(self, id: str) -> Object | None:
        reply = self._api.ask("GET", self._path(id))
        return None if reply.status == 404 else reply.json()

    def _is_own(self, id: str) -> bool:
        """Return whether an object is there.

        Raises:
            Conflict: It is somebody else's, or is being deleted.
        """
        found = self._find(id)
        if found is None:
            return False
        if "deletionTimestamp" in found["metadata"]:
            raise Conflict(f"{id} is being deleted.", fix="wait until it is gone, then deploy again.")
        if not _own(found):
            raise Conflict(
                f"{id} is in the namespace {self.namespace!r}, and no deployment made it.",
                fix=f"remove it, or rename the target, or set another namespace; `kubectl -n {self.namespace} get` it.",
            )
        return True

    def _try(self, made: Object) -> str:
        """Return why the API would refuse an object; empty if it would take it."""
        piece = Piece(id=f"{made['kind']}/{made['metadata']['name']}", content=json.dumps(made).encode())
        try:
            self._apply(piece, force=True, dry=True)
        except (Invalid, Denied, Conflict) as error:
            return str(error)
        return ""

    def _apply(self, piece: Piece, *, force: bool, dry: bool = False) -> None:
        made = json.loads(piece.content)
        marks = {DIGEST: piece.digest, APPLIED: _packed(made)}
        made["metadata"]["annotations"] = {**made["metadata"].get("annotations", {}), **marks}
        reply = self._api.ask(
            "PATCH",
            self._path(piece.id),
            made,
            content_type=_APPLY,
            fieldManager=MANAGER,
            force="true" if force else "",
            fieldValidation="Strict",
            dryRun="All" if dry else "",
        )
        _check(piece.id, reply)

    def _path(self, id: str) -> str:
        kind, _, name = id.partition("/")
        return _kind(kind).path(self.namespace, name)


def _kind(kind: str) -> Kind:
    if kind not in KINDS:
        raise Invalid(f"{kind!r} is no kind of objects that a target makes.", fix=f"known: {', '.join(sorted(KINDS))}.")
    return KINDS[kind]


def _check(id: str, reply: Reply) -> None:
    if reply.status == 404:
        raise Invalid(f"{id} cannot be made: {message(reply)}.", fix="`mainspring deploy TARGET --dry-run` says why.")
    if reply.status == 409:
        raise Conflict(f"{id} is not taken: {message(reply)}", fix="deploy again.")


def _own(found: Object) -> bool:
    metadata = found["metadata"]
    return metadata.get("labels", {}).get(MANAGED) == MANAGER and DIGEST in metadata.get("annotations", {})


def _packed(made: Object) -> str:
    """Return an object as the text of an annotation, of which all together may have 256 KiB."""
    return base64.b64encode(zlib.compress(json.dumps(made).encode(), 9)).decode()


def _digest(found: Object) -> str:
    """Return the digest of the content that an object was made with; empty if it is not as that says any more."""
    annotations = found["metadata"].get("annotations", {})
    try:
        applied = json.loads(zlib.decompressobj().decompress(base64.b64decode(annotations[APPLIED]), _LARGEST))
    except (KeyError, ValueError, zlib.error):
        return ""
    return str(annotations.get(DIGEST, "")) if contains(found, applied) else ""


def contains(found: Any, applied: Any) -> bool:
    """Return whether an object has all that was applied. It has more: defaults, status, fields of others."""
    if isinstance(applied, dict):
        return isinstance(found, dict) and all(contains(found.get(name), value) for name, value in applied.items())
    if isinstance(applied, list) and applied and isinstance(applied[0], dict):
        return isinstance(found, list) and all(any(contains(each, value) for each in found) for value in applied)
    if isinstance(applied, list | dict) and not applied:
        return not found
    return bool(found == applied)
