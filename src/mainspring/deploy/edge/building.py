"""A package from a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.deploy.edge.converting import in_onnx
from mainspring.deploy.edge.golden import Columns, golden_file, made_rows, recorded_rows
from mainspring.deploy.edge.package import FEATURES, GOLDEN, MODEL
from mainspring.deploy.edge.program import Program, plain_program, program_of
from mainspring.deploy.edge.signature import signature_of
from mainspring.features import definitions
from mainspring.features.describe.personal import personal_names
from mainspring.registry import bundles
from mainspring.registry.model import Bundle, Manifest
from mainspring.registry.onnx_file import check_onnx
from mainspring.training.flavours.scoring import open_session

FP32, INT8 = "fp32", "int8"


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a package, before it is signed.

    Attributes:
        about: Fields of `edge.json`.
        inputs: What a row holds: name -> type.
        stored: The stored features among them.
        golden_rows: The number of rows that a device has to reproduce.
    """

    about: Mapping[str, Any]
    files: Mapping[str, bytes]
    inputs: Mapping[str, str]
    stored: tuple[str, ...]
    golden_rows: int


def content_of(
    bundle: Bundle, *, stored_as_inputs: bool = False, model: bytes | None = None, tolerance: float | None = None
) -> Content:
    """Return the content of a bundle's package.

    Args:
        stored_as_inputs: Whether features that need the store become inputs of each row; else they are refused.
        model: A quantised model in place of the bundle's own, with its `tolerance`.

    Raises:
        NotConvertible: The model cannot be converted to ONNX.
        Invalid: A feature needs the store, or there is no golden row but those of people.
        Corrupt: The bundle's graph, features or golden rows do not match its manifest.
    """
    bundle = in_onnx(bundle, bundle.manifest.model)
    manifest = bundle.manifest
    content = bundle.files[MODEL] if model is None else model
    check_onnx(content)
    columns, program = _columns(manifest), program_for(bundle, stored_as_inputs=stored_as_inputs)
    signature = signature_of(open_session(content), manifest)
    made: tuple[Columns, Columns, Columns] = ({}, {}, {})
    recorded = recorded_rows(bundle)
    if bundles.FEATURES in bundle.files and not manifest.tensors:
        groups, observations = definitions.load(bundle.files[bundles.FEATURES])
        personal = personal_names(groups, observations)
        made = made_rows(program, bundle, content, groups, observations, personal, finite=signature["finite"])
        if personal & set(columns):
            recorded = {}, {}  # held-out rows of people do not leave for devices; made ones do
    about = {
        "name": manifest.model,
        "bundle": bundle.digest,
        "task": manifest.task,
        "precision": FP32 if model is None else INT8,
        "tolerance": manifest.tolerance if tolerance is None else tolerance,
        "columns": columns,
        "stored": program.stored,
        "model": signature,
    }
    files = {MODEL: content, FEATURES: program.encode(), GOLDEN: golden_file(manifest, recorded, made)}
    rows = sum(len(next(iter(part.values()), ())) for part in (recorded[0], made[0]))
    if not rows:
        raise Invalid(
            f"{manifest.model!r} has no golden row that may leave.",
            fix="train it without features that identify a person.",
        )
    return Content(about, files, program.inputs, program.stored, rows)


def program_for(bundle: Bundle, *, stored_as_inputs: bool = False) -> Program:
    """Return the program of the features of a bundle's model.

    Raises:
        Invalid: A feature needs the store and `stored_as_inputs` is false, a feature is a Python function, or an input
            is a duration.
        Corrupt: The bundle's definitions lack a feature.
    """
    manifest = bundle.manifest
    columns = _columns(manifest)
    program = plain_program(columns)
    if bundles.FEATURES in bundle.files and not manifest.tensors:
        groups, observations = definitions.load(bundle.files[bundles.FEATURES])
        program = program_of(list(columns), groups, observations, stored_as_inputs=stored_as_inputs)
    odd = sorted(name for name, dtype in program.inputs.items() if dtype == "duration")
    if odd:
        raise Invalid(f"The inputs {odd} of {manifest.model!r} are durations, which no row can hold.", fix="cast them.")
    return program


def _columns(manifest: Manifest) -> dict[str, str]:
    if manifest.tensors:
        return {each.name: "tensor" for each in manifest.tensors}
    return {each.name: each.dtype.value for each in manifest.inputs}
