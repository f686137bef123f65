"""A chart of Helm in a folder: the objects of the kind `kubernetes`, with values for what differs between clusters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from mainspring.deploy.adapters.targets.folder import Folder, file
from mainspring.deploy.manifests.charts import Value, When, as_template
from mainspring.deploy.manifests.kinds import Object
from mainspring.deploy.manifests.quantities import cores, mebibytes
from mainspring.deploy.manifests.serving.gateways import GATEWAY
from mainspring.deploy.manifests.serving.objects import Around, objects
from mainspring.deploy.manifests.serving.options import COMPONENT, KubernetesOptions, Placed
from mainspring.deploy.manifests.serving.scaling import scaled
from mainspring.deploy.manifests.serving.workers import WORKER
from mainspring.deploy.targets.model import Deployment, Piece

# Texts that stand in rendered objects for values, and their expressions.
_SPACE, _SECRET, _KEYS = "namespace-of-the-release", "secret-of-the-values", "keys-of-the-values"
_IMAGE = "image.invalid/of-the-values@sha256:" + "0" * 64
_TEXTS = {
    _SPACE: ".Release.Namespace",
    _SECRET: ".Values.secret",
    _KEYS: ".Values.keys",
    _IMAGE: ".Values.image",
}
_SCALED = "ne (int .Values.replicas.least) (int .Values.replicas.most)"
_FIXED = "eq (int .Values.replicas.least) (int .Values.replicas.most)"
_WORKER = ".Values.worker.enabled"
_QUANTITY = "^[0-9]+(\\.[0-9]+)?(m|[kMGTPE]i?|Ki)?$"


class HelmOptions(KubernetesOptions, frozen=True, kw_only=True):
    """Options of the kind `helm`.

    Attributes:
        folder: Where the chart is written, relative to the project.
    """

    folder: str = "deploy/chart"


class HelmTarget(Folder):
    def __init__(self, options: HelmOptions, around: Around, root: Path) -> None:
        super().__init__(root / options.folder)
        self._options, self._around = options, around

    def render(self, deployment: Deployment) -> list[Piece]:
        placed = Placed(deployment, self._options, self._around.drain_s, self._around.hosts)
        scaled(placed, self._options)
        templates = self._templates(deployment)
        values = _values(placed, deployment)
        mark = hashlib.sha256(json.dumps([templates, values]).encode()).hexdigest()[:12]
        chart = {
            "apiVersion": "v2",
            "name": placed.name,
            "description": f"Endpoints of {deployment.project}, served by Mainspring",
            "type": "application",
            "version": f"1.0.0+{mark}",
            "kubeVersion": ">=1.28.0-0",
        }
        return [
            file("Chart.yaml", as_template(chart, {})),
            file("values.yaml", as_template(values, {})),
            file("values.schema.json", json.dumps(_schema(0 if self._options.wake else 1), indent=2) + "\n"),
            *(file(f"templates/{name}", text) for name, text in templates.items()),
        ]

    def problems(self, _pieces: Sequence[Piece]) -> list[str]:
        return []

    def _templates(self, deployment: Deployment) -> dict[str, str]:
        """Return the templates by name of file."""
        options = msgspec.structs.replace(self._options, namespace=_SPACE, secret=_SECRET, keys=_KEYS)
        # With an autoscaler and a worker, which conditions leave out.
        whole = replace(deployment, image=_IMAGE, replicas=(1, 2), worker=True)
        found = {}
        for made in objects(whole, options, self._around):
            name = f"{made['kind'].lower()}-{made['metadata']['name'].replace(_SECRET, 'secret')}.yaml"
            found[name] = as_template(_varied(made), _TEXTS)
        return found


def _varied(made: Object) -> Any:
    """Put values and conditions into an object."""
    component, spec = made["metadata"]["labels"].get(COMPONENT), made.get("spec", {})
    if made["kind"] == "Deployment" and component == GATEWAY:
        made["spec"] = {"replicas": When(_FIXED, Value(".Values.replicas.least")), **spec}
        amounts = spec["template"]["spec"]["containers"][0]["resources"]
        amounts["requests"] |= {"cpu": Value(".Values.cpu | quote"), "memory": Value(".Values.memory | quote")}
        amounts["limits"]["memory"] = Value(".Values.memory | quote")
    if made["kind"] in ("HorizontalPodAutoscaler", "ScaledObject"):
        ending = "Replicas" if made["kind"] == "HorizontalPodAutoscaler" else "ReplicaCount"
        spec[f"min{ending}"], spec[f"max{ending}"] = Value(".Values.replicas.least"), Value(".Values.replicas.most")
        return When(_SCALED, made)
    if made["kind"] == "ServiceMonitor":
        first, *others = spec["endpoints"]
        spec["endpoints"] = [first, *(When(_WORKER, each) for each in others)]
    return When(_WORKER, made) if component == WORKER else made


def _values(placed: Placed, deployment: Deployment) -> dict[str, Any]:
    return {
        "image": deployment.image,
        "replicas": {"least": deployment.replicas[0], "most": deployment.replicas[1]},
        "cpu": cores(deployment.cpu),
        "memory": mebibytes(deployment.memory),
        "secret": placed.secret,
        "keys": placed.keys,
        "worker": {"enabled": deployment.worker},
    }


def _object(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": sorted(fields), "additionalProperties": False}


def _count(least: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": least, "maximum": 1000}


_NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "maxLength": 253}


def _schema(least: int) -> dict[str, Any]:
    """Return the schema of a chart's values.

    Args:
        least: Smallest number of gateways.
    """
    found = _object(
        image={"type": "string", "pattern": "^[^\\s@]+@sha256:[0-9a-f]{64}$"},
        replicas=_object(least=_count(least), most=_count(1)),
        cpu={"type": "string", "pattern": _QUANTITY},
        memory={"type": "string", "pattern": _QUANTITY},
        secret=_NAME,
        keys=_NAME,
        worker=_object(enabled={"type": "boolean"}),
    )
    found["properties"]["global"] = {"type": "object"}  # which Helm adds where charts use others
    return {"$schema": "http://json-schema.org/draft-07/schema#", **found}
