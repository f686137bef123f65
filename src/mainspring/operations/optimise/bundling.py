"""Bundle of a chosen variant: its parent's, with another model, its answers anew, and how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from mainspring.core.schema import DType
from mainspring.delivery.held_out import read_held_out
from mainspring.registry.bundles import GOLDEN, HOLDOUT, MODEL, REFERENCE, sha256
from mainspring.registry.column_codec import pack, unpack
from mainspring.registry.flavours import MODEL_FILES
from mainspring.registry.model import Bundle, Manifest
from mainspring.registry.providers import provider_of
from mainspring.serving.plane.golden import Golden
from mainspring.stats import reference
from mainspring.training.bundling import parquet_file
from mainspring.training.flavours import Artefact
from mainspring.training.flavours.scoring import artefact_scores, score_bundle
from mainspring.training.frames import Array
from mainspring.training.sets.labels import SCORES


def with_model(parent: Bundle, content: bytes) -> Bundle:
    """Return a bundle with another model in ONNX, and everything else of its parent's. It is not sealed; its digest is
    that of the model, for messages."""
    files = {name: kept for name, kept in parent.files.items() if name not in MODEL_FILES} | {MODEL: content}
    hashes = {name: sha256(kept) for name, kept in files.items()}
    manifest = msgspec.structs.replace(parent.manifest, flavour="onnx", curve=None, files=hashes)
    return replace(parent, digest=hashes[MODEL], manifest=manifest, files=files, signature=b"")


def answered(variant: Bundle) -> Bundle:
    """Return a variant whose golden rows, held-out predictions and reference of them are its own.

    The days of training in the reference keep the sketches of the parent's predictions.
    """
    table = read_held_out(variant)
    scores = score_bundle(variant, table)
    scores = scores.reshape(len(scores), -1)
    files = {**variant.files, GOLDEN: _golden(variant)}
    if SCORES in table.column_names:
        lists = pa.array(list(scores), pa.list_(pa.float64()))
        files[HOLDOUT] = parquet_file(table.set_column(table.column_names.index(SCORES), SCORES, lists))
    if REFERENCE in files:
        known = msgspec.json.decode(files[REFERENCE], type=reference.Reference)
        of_scores = {
            name: reference.profile_column(scores[:, place]) for place, name in enumerate(variant.manifest.outputs)
        }
        columns = {**known.columns, **{name: each for name, each in of_scores.items() if name in known.columns}}
        files[REFERENCE] = msgspec.json.encode(msgspec.structs.replace(known, columns=columns))
    return replace(variant, files=files)


def _golden(variant: Bundle) -> bytes:
    golden = msgspec.json.decode(variant.files[GOLDEN], type=Golden)
    again: dict[str, Any] = {"inputs": golden.inputs, "outputs": _listed(variant, golden.inputs)}
    if golden.probes is not None:
        probes = golden.probes.inputs
        again["probes"] = {"inputs": probes, "outputs": _listed(variant, probes)}
    if golden.held_out is not None:
        inputs = unpack(golden.held_out.inputs, golden.held_out.rows)
        again["held_out"] = pack(inputs, dict(zip(variant.manifest.outputs, _scores(variant, inputs).T, strict=True)))
    return msgspec.json.encode(again)


def _listed(variant: Bundle, inputs: Mapping[str, list[Any]]) -> dict[str, list[float]]:
    arrays = _arrays(variant.manifest, inputs)
    if not len(next(iter(arrays.values()))):
        return {name: [] for name in variant.manifest.outputs}
    found = _scores(variant, arrays)
    return {name: found[:, place].tolist() for place, name in enumerate(variant.manifest.outputs)}


def _scores(variant: Bundle, columns: Mapping[str, Array]) -> Array:
    names = [each.name for each in variant.manifest.inputs]
    made = Artefact("onnx", MODEL, variant.files[MODEL], provider=provider_of(variant.manifest))
    return artefact_scores(made, columns, names)


def _arrays(manifest: Manifest, inputs: Mapping[str, list[Any]]) -> dict[str, Array]:
    found = {}
    for each in manifest.inputs:
        values = inputs[each.name]
        array = np.empty(len(values), np.object_) if each.dtype == DType.String else np.array(values, np.float64)
        if each.dtype == DType.String:
            array[:] = values
        found[each.name] = array
    return found
