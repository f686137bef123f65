"""The edge package of a registered version: built, signed, written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mainspring.core.errors import Invalid, NotConvertible
from mainspring.deploy.edge.building import FP32, INT8, Content, content_of
from mainspring.deploy.edge.converting import in_onnx
from mainspring.deploy.edge.package import SKETCH, expect_new, write_package
from mainspring.monitoring.served import served
from mainspring.operations.auditing import begun
from mainspring.operations.edge.int8 import Int8, judge_int8
from mainspring.operations.edge.sketches import sketch_file
from mainspring.operations.models.curating import expect_kept, find
from mainspring.operations.optimise.model import MADE
from mainspring.project import Project
from mainspring.registry.model import Bundle
from mainspring.training.model import Model

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class BuiltPackage:
    """A package that was written.

    Attributes:
        endpoint: The endpoint under which predictions of devices are logged.
        inputs: What a row holds: name -> type.
        stored: The stored features among them, whose values come with each row.
        bytes: Size of all its files.
        fp32_bytes: Size of the model in FP32.
        golden_rows: Rows that a device has to reproduce: recorded in training, and made for the features.
        int8: The verdict on INT8, `None` where it was not asked for.
        key: Public key that a device has to trust, hexadecimal.
    """

    folder: str
    model: str
    endpoint: str
    version: str
    bundle: str
    precision: str
    tolerance: float
    inputs: dict[str, str]
    stored: tuple[str, ...]
    outputs: tuple[str, ...]
    bytes: int
    model_bytes: int
    fp32_bytes: int
    golden_rows: int
    int8: Int8 | None
    key: str


def build_package(
    project: Project,
    reference: str,
    folder: Path,
    *,
    precision: str = AUTO,
    tolerance: float | None = None,
    stored_as_inputs: bool = False,
    endpoint: str | None = None,
) -> BuiltPackage:
    """Write the signed package of a version into a new folder.

    Args:
        precision: `auto` takes INT8 where the gates and the tolerance allow it, `int8` demands it, `fp32` does not try.
        tolerance: Largest difference that INT8 may make; by default the bundle's own tolerance.
        stored_as_inputs: Whether features that need the store become inputs of each row; else they are refused.
        endpoint: The endpoint among whose predictions those of devices are logged and watched; by default the one that
            serves the model, or where none or several do, one named like the model.

    Raises:
        Conflict: The folder is not empty, or the version is marked for deletion.
        Invalid: A feature needs the store, the tolerance is no positive number, or the endpoint serves another model.
        NotConvertible: The model cannot be converted to ONNX, or INT8 was demanded and is not allowed.
    """
    expect_tolerance(tolerance)
    expect_new(folder)
    version = find(project, reference)
    expect_kept(project, version)
    name = f"{version.model}:{version.version}"
    bundle = in_onnx(project.bundles.load(version.digest), name)
    declared = project.definitions.models.get(version.model)
    content, int8 = packed(bundle, declared, precision, tolerance, stored_as_inputs=stored_as_inputs)
    about = {
        **content.about,
        "endpoint": _endpoint(project, version.model, endpoint),
        "project": project.settings.scope,
        "version": int(version.version),
        "created_at": project.wall.now(),
    }
    of, detail = f"model/{version.model}", f"version {version.version}, {content.about['precision']}"
    with begun(project, "edge.build", of) as done:
        index = write_package(folder, about, content.files, project.signing_key)
        done(detail)
    return BuiltPackage(
        folder=str(folder),
        model=version.model,
        endpoint=str(about["endpoint"]),
        version=version.version,
        bundle=version.digest,
        precision=str(content.about["precision"]),
        tolerance=float(content.about["tolerance"]),
        inputs=dict(content.inputs),
        stored=content.stored,
        outputs=tuple(output["name"] for output in content.about["model"]["outputs"]),
        bytes=sum(map(len, content.files.values())) + len(index) + 64,
        model_bytes=len(content.files["model.onnx"]),
        fp32_bytes=len(bundle.files["model.onnx"]),
        golden_rows=content.golden_rows,
        int8=int8,
        key=project.signing_key.public.hex(),
    )


def expect_tolerance(tolerance: float | None) -> None:
    """Raise `Invalid` for a tolerance that allows everything or nothing."""
    if tolerance is not None and not 0 < tolerance < 1:
        raise Invalid(f"The tolerance {tolerance} is not between 0 and 1.", fix="give --tolerance 0.01, for example.")


def packed(
    bundle: Bundle, declared: Model | None, precision: str, tolerance: float | None, *, stored_as_inputs: bool
) -> tuple[Content, Int8 | None]:
    """Return the files of a package, in INT8 where that is asked for and allowed, and the verdict on it.

    Args:
        bundle: In ONNX.
        declared: As of `judge_int8`.

    Raises:
        Invalid: A feature needs the store.
        NotConvertible: INT8 was demanded and is not allowed.
    """
    content, int8 = content_of(bundle, stored_as_inputs=stored_as_inputs), None
    if str(bundle.manifest.extra.get(MADE, {}).get("variant", "")).startswith(INT8):  # `mainspring optimize` judged it
        content = replace(content, about={**content.about, "precision": INT8})
    elif precision != FP32:
        allowed = bundle.manifest.tolerance if tolerance is None else tolerance
        int8, small = judge_int8(bundle, allowed, declared)
        if precision == INT8 and not int8.allowed:
            why = f"The model may not run in INT8: {int8.why}."
            raise NotConvertible(why, fix="give --tolerance, or --precision fp32.")
        if small is not None:
            content = content_of(bundle, stored_as_inputs=stored_as_inputs, model=small, tolerance=allowed)
    sketch = sketch_file(served(bundle))
    if sketch is not None:
        content = replace(content, files={**content.files, SKETCH: sketch})
    return content, int8


def _endpoint(project: Project, model: str, chosen: str | None) -> str:
    serving = sorted(name for name, each in project.definitions.endpoints.items() if each.model_name == model)
    if chosen is not None and chosen not in serving:
        raise Invalid(
            f"The endpoint {chosen!r} does not serve the model {model!r}.",
            fix=f"choose one of {', '.join(serving)}." if serving else "leave out --endpoint.",
        )
    return chosen or (serving[0] if len(serving) == 1 else model)
