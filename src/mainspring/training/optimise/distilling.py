"""Distillation: a smaller module learns a teacher's outputs.

Hinton, Vinyals and Dean, Distilling the knowledge in a neural network (2015), at temperature 1: the modules of this
product return probabilities.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mainspring.core.errors import Invalid
from mainspring.training.loop.fit import fit_torch
from mainspring.training.loop.tensors import import_torch

_BATCH = 4096
_ROUNDING = 1e-4


def distil(
    teacher: Any,
    student: Any,
    inputs: Any,
    *,
    optimiser: Any,
    labels: Any = None,
    labels_share: float = 0.5,
    loss: Callable[[Any, Any], Any] | None = None,
    validation: Any = None,
    **settings: Any,
) -> Any:
    """Train a student on a teacher's outputs by `fit_torch`, and return it in evaluation mode.

    Args:
        teacher: A torch module, which is called in evaluation mode, or a function of `inputs` that returns an array:
            so a forest teaches a network.
        student: A torch module.
        inputs: A tensor or an array of shape (rows, ...), or a tuple of them; labels are not needed.
        optimiser: Of the student's parameters.
        labels: Targets in the form of the outputs, known for every row, to learn beside the teacher's.
        labels_share: Share of the labels in what is learnt, where there are some.
        loss: `(outputs, targets) -> tensor`; by default the cross entropy where the teacher returns probabilities,
            else the mean squared error. Both are linear in the targets, so that they mix with labels.
        validation: Inputs on which the student is compared with the teacher after each epoch.
        settings: Further arguments of `fit_torch`.

    Raises:
        Invalid: The teacher's outputs are not finite, or are not as many as the rows or the labels.
    """
    torch = import_torch()
    targets = _outputs(torch, teacher, inputs)
    known = targets
    if labels is not None:
        given = torch.as_tensor(np.asarray(labels)).to(targets)
        if given.shape != targets.shape or not 0 <= labels_share <= 1:
            raise Invalid(
                f"The labels have the shape {tuple(given.shape)} and the share {labels_share:g}; the teacher returns "
                f"{tuple(targets.shape)}.",
                fix="give labels in the form of its outputs, such as one column a class, and a share in [0, 1].",
            )
        targets = (1 - labels_share) * targets + labels_share * given
    if loss is None:
        loss = _cross_entropy(torch) if _probabilities(torch, known) else torch.nn.functional.mse_loss
    shown = None if validation is None else (validation, _outputs(torch, teacher, validation))
    return fit_torch(student, (inputs, targets), loss, optimiser=optimiser, validation=shown, **settings)


def _outputs(torch: Any, teacher: Any, inputs: Any) -> Any:
    parts = inputs if isinstance(inputs, tuple) else (inputs,)
    rows = len(parts[0])
    if not rows:
        raise Invalid("There are no rows for the teacher to teach with.", fix="give some.")
    found = _of_module(torch, teacher, parts, rows) if isinstance(teacher, torch.nn.Module) else teacher(*parts)
    outputs = torch.as_tensor(found if isinstance(found, torch.Tensor) else np.asarray(found)).detach()
    outputs = outputs.float() if outputs.dtype == torch.float16 else outputs
    if outputs.shape[:1] != (rows,):
        raise Invalid(f"The teacher returns the shape {tuple(outputs.shape)} for {rows} rows.")
    if not bool(torch.isfinite(outputs).all()):
        raise Invalid("The teacher returns NaN or infinity for some of the rows.", fix="leave those rows out.")
    return outputs


def _of_module(torch: Any, teacher: Any, parts: tuple[Any, ...], rows: int) -> Any:
    from mainspring.training.flavours.torch import evaluating

    device = next((each.device for each in teacher.parameters()), torch.device("cpu"))
    found = []
    with evaluating(teacher), torch.inference_mode():
        for start in range(0, rows, _BATCH):
            batch = [torch.as_tensor(part[start : start + _BATCH]).to(device) for part in parts]
            found.append(teacher(*batch).cpu())
    return torch.cat(found).clone()


def _probabilities(torch: Any, outputs: Any) -> bool:
    """Return whether outputs are those of one class, or of several that sum to 1."""
    if not outputs.dtype.is_floating_point or float(outputs.min()) < 0 or float(outputs.max()) > 1:
        return False
    if outputs.ndim < 2 or outputs.shape[-1] == 1:
        return True
    return bool(torch.allclose(outputs.sum(dim=-1), torch.ones(outputs.shape[:-1]).to(outputs), atol=_ROUNDING))


def _cross_entropy(torch: Any) -> Callable[[Any, Any], Any]:
    def loss(outputs: Any, targets: Any) -> Any:
        least = torch.finfo(outputs.dtype).tiny
        if outputs.ndim < 2 or outputs.shape[-1] == 1:
            return torch.nn.functional.binary_cross_entropy(outputs, targets)
        return -(targets * outputs.clamp(min=least).log()).sum(dim=-1).mean()

    return loss
