"""Versions without a training run: an imported file, a function of the project, a graph of other versions.

Each becomes a signed bundle of tensors with golden rows, stored completely before its run is closed and its version
registered, as in training (`training.trainer`). Registration is idempotent: the same content is the same version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from mainspring.core.errors import Conflict, Invalid
from mainspring.core.ids import check_id
from mainspring.core.json_content import decoded
from mainspring.operations.models.curating import actor, expect_kept, find
from mainspring.operations.models.golden_rows import SEED
from mainspring.operations.models.probing import Draft, probe
from mainspring.project import Project
from mainspring.registry.bundles import GOLDEN, encode_manifest, seal, sha256
from mainspring.registry.flavours import check_model
from mainspring.registry.lineage import PARENT
from mainspring.registry.model import Bundle, Code, Manifest, ModelVersion, TensorSpec
from mainspring.registry.processes import process_tags
from mainspring.registry.runs import ERROR, error_text

TENSORS = "tensors"  # task of a model without a label
_CONTENT = "content"  # tag by which equal content is found
_LARGEST_GOLDEN = 256 * 1024**2  # bytes


@dataclass(frozen=True, slots=True)
class Added:
    """One registered version. `new` says whether this call made it."""

    model: str
    version: str
    digest: str
    flavour: str
    run_id: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    golden_rows: int
    alias: str | None
    new: bool


@dataclass(frozen=True, slots=True)
class Made:
    """An unregistered bundle: its content and origin, for `register`."""

    flavour: str
    files: Mapping[str, bytes]
    fields: Mapping[str, Any]  # of the manifest
    origin: Mapping[str, str]  # parameters of the run
    golden: Mapping[str, Any] | None = None


def add_file(
    project: Project,
    model: str,
    path: Path,
    *,
    golden: Path | None = None,
    alias: str | None = None,
    parent: str | None = None,
    signed_by: Path | None = None,
) -> Added:
    """Register a model file: `.onnx`, XGBoost's `.ubj` or `.json`, LightGBM's `.txt`.

    Args:
        golden: A JSON file with `inputs`, name -> rows, and `outputs` if the answers are known.
        alias: Alias to set on the version; `champion` goes live on every endpoint that serves it.
        parent: The version it was derived from, `NAME:VERSION`; its bundle is kept as long as this version.
        signed_by: PEM of public keys and authorities, one of which has to have signed the file (`registry.oms`), beside
            one of each of the profile's `models_signed_by`.

    Raises:
        NotFound: There is no such file, or no such parent.
        Denied: Nobody who has to signed it.
        Invalid: Its format is not supported, or it cannot predict row by row.
        Corrupt: It is damaged, not what was signed, does not load, or predicts a row differently alone and in a batch.
        Conflict: The project trains a model of this name.
        MissingExtra: Its runtime is not installed.
    """
    from mainspring.registry.model_file import read_model

    check_name(project, model)
    rows = None if golden is None else read_golden(golden)
    flavour, name, content = read_model(path)
    origin = {"file": path.name, "sha256": sha256(content)}
    for trusted in filter(None, (*project.settings.models_signed_by, signed_by)):
        from mainspring.registry import oms

        signed = oms.open_signature(oms.signature_of(path), oms.read_trusted(trusted), project.wall.now())
        oms.check_file(path, origin["sha256"], signed)
        origin["signer"] = signed.signer
    if parent is not None:
        made_from = find(project, parent)
        expect_kept(project, made_from)
        origin[PARENT] = made_from.digest
    return register(
        project, model, Made(flavour, {name: content}, _matrix(flavour, content, name), origin, rows), alias
    )


def add_function(
    project: Project,
    model: str,
    function: str,
    *,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    golden: Path | None = None,
    alias: str | None = None,
) -> Added:
    """Register `module:function` of the project, which takes `inputs` by name and returns `outputs`.

    Raises:
        Invalid: There is no such function in the project, or its results do not match its declaration.
        Conflict: The project trains a model of this name.
    """
    from mainspring.project.definitions.functions import source_digest
    from mainspring.serving.protocol.tensor import check_specs
    from mainspring.training.runs.provenance import code_version

    check_name(project, model)
    check_specs([*inputs], f"the inputs of {function}")
    check_specs([*outputs], f"the outputs of {function}")
    source = source_digest(project.settings.root, function)
    fields = {
        "code": Code(function, source),
        "tensors": tuple(inputs),
        "output_tensors": tuple(outputs),
        "code_version": code_version(project.settings.root),
    }
    origin = {"function": function, "source": source}
    rows = None if golden is None else read_golden(golden)
    return register(project, model, Made("function", {}, fields, origin, rows), alias)


def registered(project: Project, model: str | None = None) -> list[ModelVersion]:
    """Return the versions of all models or of one, newest first."""
    return project.versions.all(model)


def register(project: Project, model: str, made: Made, alias: str | None) -> Added:
    """Try a model, seal it with its golden rows, store it, and register the version. See `add_file`."""
    manifest = Manifest(
        **{
            "model": model,
            "task": TENSORS,
            "flavour": made.flavour,
            "inputs": (),
            "outputs": (),
            "run_id": "",
            "dataset_commit": "",
            "features_digest": "",
            "code_version": "",
            "created_at": 0,
            "extra": {**made.origin, "golden": "given" if made.golden else f"seed {SEED}"},
            **made.fields,
        }
    )
    check_model(manifest, made.files)
    inputs = None if made.golden is None else dict(made.golden)
    given = float(made.fields.get("tolerance", 0.0))
    manifest = msgspec.structs.replace(manifest, tolerance=max(given, _tolerance(manifest)))
    probed = probe(project, Draft(manifest, tuple(made.files), inputs), dict(made.files))
    if probed.tensors:
        manifest = msgspec.structs.replace(
            manifest,
            tensors=probed.tensors,
            output_tensors=probed.output_tensors,
            outputs=tuple(spec.name for spec in probed.output_tensors),
        )
        manifest = msgspec.structs.replace(manifest, tolerance=max(given, _tolerance(manifest)))
    for specs in (manifest.tensors, manifest.output_tensors):
        names = [spec.name for spec in specs]
        if len(set(names)) < len(names):
            raise Invalid(
                f"The model {model!r} has two tensors with the same name: {names}.",
                fix="give each tensor its own name.",
            )
    files = {**made.files, GOLDEN: msgspec.json.encode(probed.golden)}
    version, new = store_version(project, manifest, files, made.origin)
    if alias is not None:
        point_alias(project, model, version.version, alias)
    return Added(
        model=model,
        version=version.version,
        digest=version.digest,
        flavour=made.flavour,
        run_id=version.run_id,
        inputs=manifest.tensors,
        outputs=manifest.output_tensors,
        golden_rows=len(next(iter(probed.golden["outputs"].values()))),
        alias=alias,
        new=new,
    )


def store_version(
    project: Project, manifest: Manifest, files: Mapping[str, bytes], origin: Mapping[str, str]
) -> tuple[ModelVersion, bool]:
    """Seal, store and register a version; return it, and whether it is new: equal content is the same version."""
    parts = [encode_manifest(manifest), *(f"{name} {sha256(files[name])}".encode() for name in sorted(files))]
    content = sha256(b"\n".join(parts))
    for known in project.versions.all(manifest.model):
        if known.tags.get(_CONTENT) == content:
            return known, False
    from mainspring.operations.auditing import begun

    now = project.wall.now
    with begun(project, "add", f"model/{manifest.model}") as done:
        run_id = project.tracking.start(manifest.model, {**process_tags(), "made_by": "models"}, now())
        try:
            measured = [(name, value, 0, now()) for name, value in manifest.metrics.items()]
            project.tracking.log(run_id, params={**origin, "flavour": manifest.flavour}, metrics=measured)
            made = msgspec.structs.replace(manifest, run_id=run_id, created_at=now())
            bundle: Bundle = seal(made, files, project.signing_key)
            project.bundles.save(bundle)
            project.tracking.log(run_id, params={"digest": bundle.digest})
        except BaseException as error:
            project.tracking.log(run_id, tags={ERROR: error_text(error)})
            project.tracking.finish(run_id, "FAILED", now())
            raise
        project.tracking.finish(run_id, "FINISHED", now())
        version = project.versions.register(manifest.model, bundle.digest, run_id, {_CONTENT: content, **origin}, now())
        project.tracking.log(run_id, tags={"version": version.version})
        done(f"version {version.version}, bundle {version.digest[:12]}")
    return version, True


def point_alias(project: Project, model: str, version: str, alias: str) -> None:
    """Set an alias of a version; `champion` is set by promoting it."""
    from mainspring.core.errors import NotFound
    from mainspring.delivery.routing import CHAMPION
    from mainspring.operations.auditing import audit
    from mainspring.operations.promote import promote, publish_routes
    from mainspring.registry.model import AliasMove

    if alias == CHAMPION:
        promote(project, model, version, reason="models add")
        return
    try:
        old: str | None = project.versions.get(model, alias).version
    except NotFound:
        old = None
    at = project.wall.now()
    if old != version:
        move = AliasMove(model, alias, old, version, actor(project), "models add", at, domain_at=project.clock.now())
        with project.audit.together():
            project.versions.set_alias(move)
            detail = f"{alias}: {f'version {old}' if old else 'nothing'} -> version {version}"
            audit(project, "alias", f"model/{model}", detail)
    publish_routes(project)


def check_name(project: Project, model: str) -> None:
    """Raise if no version of `model` may be registered here.

    Raises:
        Conflict: The project trains it.
    """
    check_id(model, "model")
    project.expect_models()
    if project.settings.modules and model in project.definitions.models:
        raise Conflict(
            f"The project declares the model {model!r}, whose versions are trained.",
            fix=f"run `mainspring train {model}`, or choose another name.",
        )


def _matrix(flavour: str, content: bytes, name: str) -> dict[str, Any]:
    """Return the tensors of a forest: a matrix as input, one or several values per row as output."""
    from mainspring.registry.lightgbm_file import check_lightgbm
    from mainspring.registry.xgboost_file import check_xgboost

    if flavour == "onnx":
        return {}  # it says itself
    found = check_xgboost(content, name) if flavour == "xgboost" else check_lightgbm(content, name)
    kind = "FP32" if flavour == "xgboost" else "FP64"
    shape = (-1,) if found.outputs == 1 else (-1, found.outputs)
    return {
        "tensors": (TensorSpec("input", kind, (-1, found.features)),),
        "output_tensors": (TensorSpec("output", kind, shape),),
    }


def read_golden(path: Path) -> dict[str, Any]:
    """Return the golden rows in a JSON file.

    Raises:
        Invalid: It has none, or too many.
    """
    from mainspring.serving.plane.golden import Golden

    try:
        if path.stat().st_size > _LARGEST_GOLDEN:
            raise Invalid(
                f"{path.name} has {path.stat().st_size:,} bytes; golden rows may have at most {_LARGEST_GOLDEN:,}."
            )
        found = decoded(path.read_bytes(), dict[str, dict[str, list[Any]]])
        golden = msgspec.convert({"outputs": {}, **found}, Golden)
    except msgspec.DecodeError as error:
        raise Invalid(
            f"{path.name} does not contain golden rows: {error}.",
            fix='write {"inputs": {"x": [[...], ...]}, "outputs": {...}}.',
        ) from error
    return {"inputs": golden.inputs, "outputs": golden.outputs}


def _tolerance(manifest: Manifest) -> float:
    """Return the tolerance of an answer on another machine, by the narrowest type that it passes through."""
    kinds = {spec.datatype for spec in (*manifest.tensors, *manifest.output_tensors)}
    if manifest.flavour != "onnx":
        return 1e-5
    return 5e-3 if "FP16" in kinds else 1e-4


def add_network(
    project: Project,
    model: str,
    network: Any,
    examples: Mapping[str, Any],
    *,
    outputs: Sequence[str] = (),
    sequences: bool | None = None,
    alias: str | None = None,
) -> Added:
    """Register a network. See `training.equivalence.networks.export` for what it takes and raises.

    Raises:
        Conflict: The project trains a model of this name.
    """
    from mainspring.training.equivalence.networks import export
    from mainspring.training.vectors import vector_reference

    check_name(project, model)
    exported = export(network, examples, outputs=outputs, sequences=sequences)
    origin = {"network": type(network).__qualname__, "sha256": sha256(exported.artefact.content)}
    fields = {
        "tensors": exported.tensors,
        "output_tensors": exported.output_tensors,
        "extra": {**origin, "golden": "given", "proof": asdict(exported.proof)},
    }
    files = {exported.artefact.name: exported.artefact.content, **vector_reference(examples)}
    return register(project, model, Made(exported.artefact.flavour, files, fields, origin, exported.golden), alias)
