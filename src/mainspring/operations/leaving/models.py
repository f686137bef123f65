"""Versions of models: their bundles' files as they are, and in one document what each is read with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mainspring.core.errors import MainspringError
from mainspring.core.time import format_instant
from mainspring.operations.leaving.folder import ExportFolder
from mainspring.operations.leaving.personal import Personal
from mainspring.project import Project
from mainspring.registry.bundles import FEATURES, GOLDEN, HOLDOUT, REFERENCE, blob_of
from mainspring.registry.model import Bundle, ModelVersion

INDEX = "models/models.json"
# Flavour -> how its file is read without this package.
LOADERS = {
    "onnx": "onnxruntime.InferenceSession(FILE)",
    "xgboost": "xgboost.Booster(model_file=FILE)",
    "lightgbm": "lightgbm.Booster(model_file=FILE)",
    "catboost": "catboost.CatBoost().load_model(FILE)",
    "lora": "safetensors.safe_open(FILE, framework='pt'), with peft on the base model",
    "answers": "json.load: the chain of answers as a document",
    "function": "the function of the project's own code that the manifest names",
    "graph": "the manifest's graph, whose nodes are other bundles",
}
_OF_ROWS = {GOLDEN, HOLDOUT, REFERENCE}
_ABOUT = {
    "manifest.json": "What the bundle is made of, with the SHA-256 of each file",
    "signature": "Ed25519 signature of manifest.json by the project's key",
    FEATURES: "Definitions of the features that the model reads",
    REFERENCE: "Statistics of the training rows",
    GOLDEN: "Rows with the predictions that the model has to give",
    HOLDOUT: "Held-out rows with labels and predictions",
}


def write_models(
    project: Project, folder: ExportFolder, personal: Personal, told: Callable[[float, float | None, str], None]
) -> None:
    """Write the bundle of every registered version, and `models.json` with what they are.

    Raises:
        Corrupt: A bundle was changed.
    """
    tracking = project.settings.tracking
    if tracking.scheme == "sqlite" and not tracking.path.exists():
        return
    versions = sorted(project.versions.all(), key=lambda each: (each.model, int(each.version)))
    described = []
    for number, version in enumerate(versions):
        told(number, len(versions), f"{version.model}:{version.version}")
        try:
            bundle = project.bundles.load(version.digest)
        except MainspringError as error:
            folder.leave_out(f"models/{version.model}/{version.version}", error.what)
            continue
        described.append(_write(folder, personal, version, bundle))
    told(len(versions), len(versions), "")
    folder.document(INDEX, "Versions with their aliases, and how each model's file is read", described)


def _write(folder: ExportFolder, personal: Personal, version: ModelVersion, bundle: Bundle) -> dict[str, Any]:
    place, manifest = f"models/{version.model}/{version.version}", bundle.manifest
    names = personal.of_bundle(version.digest) or frozenset()
    marked = sorted({each.name for each in manifest.inputs} & (names | personal.names)) or sorted(names)
    for name, content in sorted(blob_of(bundle).items()):
        if name in _OF_ROWS and marked and not folder.begun.reveal:
            folder.leave_out(f"{place}/{name}", f"rows and values of {', '.join(marked)}, marked with pii")
            continue
        folder.content(f"{place}/{name}", _ABOUT.get(name, f"The model, for {manifest.flavour}"), content)
    files = [name for name in bundle.files if name not in _ABOUT]
    return {
        "model": version.model,
        "version": version.version,
        "aliases": list(version.aliases),
        "bundle": version.digest,
        "run": version.run_id,
        "created_at": format_instant(version.created_at),
        "tags": dict(version.tags),
        "task": manifest.task,
        "flavour": manifest.flavour,
        "files": [f"{place}/{name}" for name in sorted(files)],
        "read_with": LOADERS.get(manifest.flavour, ""),
        "inputs": [{"name": each.name, "type": each.dtype.value} for each in manifest.inputs],
        "tensors": [{"name": each.name, "type": each.datatype, "shape": each.shape} for each in manifest.tensors],
        "outputs": [*manifest.outputs, *(each.name for each in manifest.output_tensors)],
    }
