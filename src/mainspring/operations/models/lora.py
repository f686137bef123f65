"""Versions that are adapters of a language model (LoRA): registered with their measures, loaded on their base, merged.

The base is not in the bundle. The manifest has the digest of its weights, and golden rows have the log-probabilities
of their tokens, which a loaded adapter has to give again.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from mainspring.core.errors import Conflict, Corrupt, Invalid
from mainspring.operations.models.adding import Added, check_name, point_alias, store_version
from mainspring.operations.models.curating import find
from mainspring.project import Project
from mainspring.registry.bundles import GOLDEN, sha256
from mainspring.registry.lineage import BASE
from mainspring.registry.lora_file import ADAPTER, check_lora
from mainspring.registry.model import Bundle, Manifest, TensorSpec

if TYPE_CHECKING:
    from mainspring.training.gate_kinds import Gate

_GOLDEN_ROWS = 8
_TASK = "causal"
_INPUT, _OUTPUT = TensorSpec("input_ids", "INT64", (-1, -1)), TensorSpec("log_probability", "FP32", (-1, -1))
_PASSES: dict[str, Callable[[float, float], bool]] = {"at_most": operator.le, "at_least": operator.ge}


def add_adapter(
    project: Project,
    model: str,
    adapter: Any,
    held_out: tuple[Any, Any],
    *,
    base: str = "",
    gates: Sequence[Gate] = (),
    alias: str | None = None,
) -> Added:
    """Register an adapter. See `OpenedProject.register_adapter`."""
    from mainspring.training.loop import lora
    from mainspring.training.runs.provenance import code_version

    check_name(project, model)
    settings, content = lora.adapter_settings(adapter), lora.adapter_file(adapter)
    facts, digest = check_lora(content, ADAPTER), lora.base_digest(adapter)
    metrics = lora.evaluate_lora(adapter, held_out)
    metrics["loss_gain"] = metrics["base_loss"] - metrics["loss"]
    results = _judged(gates, metrics)
    ids = np.asarray(held_out[0])[:_GOLDEN_ROWS]
    golden = {
        "inputs": {_INPUT.name: ids.tolist()},
        "outputs": {_OUTPUT.name: lora.log_probabilities(adapter, ids).tolist()},
    }
    origin = {BASE: digest, "adapter": f"lora of rank {facts.rank}", "sha256": sha256(content)}
    narrow = any(each.element_size() < 4 for each in adapter.parameters() if each.is_floating_point())
    manifest = Manifest(
        model=model,
        task=_TASK,
        flavour="lora",
        inputs=(),
        outputs=(_OUTPUT.name,),
        tensors=(_INPUT,),
        output_tensors=(_OUTPUT,),
        run_id="",
        dataset_commit="",
        features_digest="",
        code_version=code_version(project.settings.root),
        created_at=0,
        tolerance=0.1 if narrow else 1e-3,
        metrics=metrics,
        extra={
            BASE: {"name": base, "digest": digest},
            "lora": {**settings, "layers": len(facts.layers), "parameters": facts.parameters},
            "held_out": {"rows": len(held_out[0]), "sha256": _digest(held_out)},
            "gates": results,
        },
    )
    version, new = store_version(project, manifest, {ADAPTER: content, GOLDEN: msgspec.json.encode(golden)}, origin)
    failed = [name for name, passed in results.items() if not passed]
    if failed:
        found = ", ".join(f"{name} {metrics[name]:.6g}" for name in ("loss", "accuracy", "base_loss"))
        raise Conflict(
            f"{model}:{version.version} is registered and did not pass its gates: {'; '.join(failed)} ({found}).",
            fix="train longer or on more rows, or weaken the gate.",
        )
    if alias is not None:
        point_alias(project, model, version.version, alias)
    return Added(
        model=model, version=version.version, digest=version.digest, flavour="lora", run_id=version.run_id,
        inputs=manifest.tensors, outputs=manifest.output_tensors, golden_rows=len(ids), alias=alias, new=new,
    )  # fmt: skip


def load_adapter(project: Project, reference: str, base: Any) -> Any:
    """Load an adapter on its base. See `OpenedProject.load_adapter`."""
    return _loaded(_bundle(project, reference), reference, base)


def merge_adapter(project: Project, reference: str, base: Any, folder: Path) -> Path:
    """Write a merged model. See `OpenedProject.merge_adapter`."""
    bundle = _bundle(project, reference)
    if folder.exists():
        raise Conflict(f"{folder} is there already.", fix="name a folder that is not.")
    merged = _loaded(bundle, reference, base).merge_and_unload()
    _expect_golden(bundle, merged, f"{reference}, merged,")
    merged.save_pretrained(str(folder), safe_serialization=True)
    return folder


def _judged(gates: Sequence[Gate], metrics: dict[str, float]) -> dict[str, bool]:
    results = {}
    for gate in gates:
        if gate.kind not in _PASSES or gate.on_rows or gate.metric not in metrics:
            raise Invalid(
                f"The gate {gate} cannot judge an adapter.",
                fix=f"use ms.at_most and ms.at_least, without intervals and slices, on {', '.join(metrics)}.",
            )
        results[str(gate)] = _PASSES[gate.kind](metrics[gate.metric], gate.value)
    return results


def _digest(rows: tuple[Any, Any]) -> str:
    return sha256(b"".join(np.ascontiguousarray(np.asarray(part), "<i8").tobytes() for part in rows))


def _bundle(project: Project, reference: str) -> Bundle:
    bundle = project.bundles.load(find(project, reference).digest)
    if bundle.manifest.flavour != "lora":
        raise Invalid(f"{reference} is no adapter; its flavour is {bundle.manifest.flavour}.")
    return bundle


def _loaded(bundle: Bundle, reference: str, base: Any) -> Any:
    from mainspring.training.loop import lora

    known, found = bundle.manifest.extra[BASE], lora.base_digest(base)
    if found != known["digest"]:
        named = f"{known['name']!r}, " if known["name"] else ""
        raise Conflict(
            f"{reference} was trained on {named}weights {known['digest'][:12]}; those of the given "
            f"{type(base).__name__} are {found[:12]}.",
            fix="load the base that it was trained on, in the same type of numbers.",
        )
    model = lora.with_adapter(base, bundle.files[ADAPTER], bundle.manifest.extra["lora"])
    _expect_golden(bundle, model, reference)
    return model


def _expect_golden(bundle: Bundle, model: Any, what: str) -> None:
    """Raise if a model does not give the golden rows' log-probabilities.

    Raises:
        Corrupt: It does not.
    """
    from mainspring.training.loop.lora import log_probabilities

    golden = msgspec.json.decode(bundle.files[GOLDEN])
    wanted = np.asarray(golden["outputs"][_OUTPUT.name], np.float64)
    found = np.asarray(log_probabilities(model, golden["inputs"][_INPUT.name]), np.float64)
    worst = float(np.abs(found - wanted).max(initial=0.0))
    if not worst <= bundle.manifest.tolerance:
        raise Corrupt(
            f"{what} answers differently from when it was registered: a log-probability differs by {worst:.3g}, and "
            f"{bundle.manifest.tolerance:g} is allowed.",
            fix="use the versions of torch and transformers that it was trained with, and the base's configuration.",
        )
