"""Import of a trained torch, Keras or transformers network as a version: export, equivalence proof, registration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mainspring.operations.models.adding import Added, Made, check_name, register
from mainspring.project import Project
from mainspring.registry.bundles import sha256


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

    check_name(project, model)
    made = export(network, examples, outputs=outputs, sequences=sequences)
    origin = {"network": type(network).__qualname__, "sha256": sha256(made.artefact.content)}
    fields = {
        "tensors": made.tensors,
        "output_tensors": made.output_tensors,
        "extra": {**origin, "golden": "given", "proof": asdict(made.proof)},
    }
    files = {made.artefact.name: made.artefact.content}
    return register(project, model, Made(made.artefact.flavour, files, fields, origin, made.golden), alias)
