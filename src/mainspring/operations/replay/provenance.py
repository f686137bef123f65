"""Origin of a prediction: bundle, signature, run, data and runtime, and which of them are gone."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mainspring.core.errors import MainspringError
from mainspring.operations.replay.model import Provenance

if TYPE_CHECKING:
    from mainspring.ledger.model import Prediction
    from mainspring.project import Project
    from mainspring.registry.model import Manifest

_LIBRARIES = ("onnxruntime", "xgboost", "xgboost-cpu", "lightgbm", "catboost", "numpy")
# Instruction sets by which libraries choose their kernels, and so how they round.
_ABILITIES = frozenset(
    {"avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_tile", "asimd", "asimddp", "sve", "sve2"}
)


def provenance(project: Project, prediction: Prediction) -> Provenance:
    """Return what made a prediction, as far as it can still be read."""
    missing: list[str] = []
    manifest: Manifest | None = None
    signature = "valid, by this installation's key"
    try:
        manifest = project.bundles.load(prediction.digest).manifest
    except MainspringError as error:
        signature = f"not verified: {error.what}"
        missing.append(f"The bundle: {error}")
    run_id = manifest.run_id if manifest else _run_of(project, prediction, missing)
    trained = _trained_with(project, run_id, missing) if run_id else {}
    commit = manifest.dataset_commit if manifest else ""
    if commit:
        try:
            project.snapshots.get(commit)
        except MainspringError as error:
            missing.append(f"The dataset commit: {error}")
    return Provenance(
        digest=prediction.digest,
        signature=signature,
        flavour=manifest.flavour if manifest else "",
        run_id=run_id,
        dataset_commit=commit,
        code_version=manifest.code_version if manifest else "",
        features_digest=manifest.features_digest if manifest else "",
        runtime=here(),
        trained_with=trained,
        missing=tuple(missing),
    )


def here() -> dict[str, str]:
    """Return name -> version of the libraries that run models, and the processor's relevant instruction sets."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {**found, "processor": " ".join(sorted(_abilities())) or "unknown"}


def _abilities() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return frozenset()
    words = next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return _ABILITIES.intersection(words)


def _run_of(project: Project, prediction: Prediction, missing: list[str]) -> str:
    try:
        return project.versions.get(prediction.model, prediction.version).run_id
    except MainspringError as error:
        missing.append(f"The version: {error}")
        return ""


def _trained_with(project: Project, run_id: str, missing: list[str]) -> dict[str, str]:
    try:
        content = project.tracking.artefact(run_id, "environment.json")
        packages: dict[str, Any] = msgspec.json.decode(content).get("packages", {})
    except (MainspringError, msgspec.DecodeError, AttributeError) as error:
        missing.append(f"The training's environment: {error}")
        return {}
    return {name: str(packages[name]) for name in _LIBRARIES if name in packages}
