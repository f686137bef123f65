"""Variants that the model's own training function makes: its network pruned, and trained further on the same rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from mainspring.core.errors import MainspringError, NotConvertible
from mainspring.project import Project
from mainspring.registry.bundles import MODEL
from mainspring.registry.model import Bundle
from mainspring.training.bundling import convert
from mainspring.training.fitting import fit_model
from mainspring.training.loop.refining import refined
from mainspring.training.model import Model
from mainspring.training.optimise.fine_tuning import PRUNED, FineTuning, by_torch
from mainspring.training.optimise.variants import Variant
from mainspring.training.runs.run import Run
from mainspring.training.stages import Converted, Observed

_NOT_ASKED = "It trains the network further: give --retrain, or name it by --only."


def pruned(
    project: Project,
    base: Bundle,
    declared: Model | None,
    names: Sequence[str],
    epochs: int | None,
    tell: Callable[[str], None],
) -> Iterator[Variant]:
    """Yield variants of `PRUNED` by their names, those that cannot be made with the reason.

    Args:
        base: The version, in ONNX.
        declared: The project's model.
        epochs: Of fine-tuning; by default half of those of the training function.
    """
    for name in names:
        tell(f"train {name}")
        tuning = FineTuning(base.files[MODEL], PRUNED[name], epochs)
        try:
            content = _trained(project, base, declared, tuning)
        except MainspringError as error:
            yield Variant(name, tuning.how or PRUNED[name].how, why_not=error.what)
        else:
            yield Variant(name, tuning.how, content)


def not_asked(content: bytes) -> Iterator[Variant]:
    """Yield the variants that a network of PyTorch may have, each with how to ask for it."""
    if by_torch(content):
        for name, pruning in PRUNED.items():
            yield Variant(name, pruning.how, why_not=_NOT_ASKED)


def _trained(project: Project, base: Bundle, declared: Model | None, tuning: FineTuning) -> bytes:
    manifest = base.manifest
    if not by_torch(base.files[MODEL]):
        raise NotConvertible("Its network is not one of PyTorch, whose layers could be pruned and trained further.")
    if declared is None:
        raise NotConvertible(f"The project declares no model {manifest.model!r}, whose training function would train.")
    model = declared

    def trained(observed: Observed, run: Run) -> Converted:
        with refined(tuning):
            fitted = fit_model(model, observed.data, run)
        if not tuning.how:
            raise NotConvertible("Its training function does not train by ms.fit_torch, which prunes.")
        return convert(fitted, _silent)

    made = project.trainer.again(model, manifest, trained)
    if (made.inputs, made.fitted.outputs) != (manifest.inputs, manifest.outputs):
        raise NotConvertible("Its training function takes other features now, or gives other outputs.")
    return made.artefact.content


def _silent(_stage: str, _share: float) -> None:
    """Ignore progress."""
