"""Equivalence check of a network of tensors: in batches, one by one, at other lengths, with padding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mainspring.core.errors import NotConvertible
from mainspring.training.equivalence.check import TOLERANCE, Proof, answer_afresh
from mainspring.training.equivalence.rows import ROWS
from mainspring.training.flavours.model import Artefact
from mainspring.training.frames import Array

Answers = Callable[[Mapping[str, Array]], Sequence[Array]]

BATCH = 128  # rows of a batch; a network may need millions of intermediate values per row
_MIXED, _ALONE, _OTHER_ROWS = 17, 16, 500
_LIMIT_S = 3600  # an encoder of usual size takes minutes
_MASK = "attention_mask"


def prove_network(answers: Answers, artefact: Artefact, examples: Mapping[str, Array], *, sequences: bool) -> Proof:
    """Compare a network with its exported model on 10,000 rows or more drawn from `examples`, alone and in batches.

    Args:
        answers: Calls the network: takes input -> rows, returns one array per output, each of shape (rows, ...).
        sequences: Whether the second dimension may vary; if so, shorter and padded rows are compared as well.

    Raises:
        NotConvertible: A row differs, or the network's output is NaN or depends on other rows or on the padding.
    """
    rng = np.random.default_rng(0)
    count, length = len(next(iter(examples.values()))), next(iter(examples.values())).shape[1:2]
    extremes = {name: _extremes(values) for name, values in examples.items()}
    drawn = rng.integers(0, count, max(ROWS, count))
    whole = {name: np.concatenate([values[drawn], extremes[name]]) for name, values in examples.items()}
    cases = [("", _attended(whole))]
    if sequences and length:
        for short in sorted({1, length[0] // 2} - {0, length[0]}):
            some = rng.integers(0, count, _OTHER_ROWS)
            cut = {name: values[some][:, :short] for name, values in examples.items()}
            cases.append((f" of length {short}", _attended(cut)))
    by: dict[str, float] = {}
    none = True
    for what, rows in cases:
        found, none_too = _compared(answers, artefact, rows, what)
        none &= none_too
        for how, worst in found.items():
            name = "other lengths" if what else how
            by[name] = max(by.get(name, 0.0), worst)
    if sequences and _MASK in examples:
        by["padding"] = _check_padding(
            answers, artefact, cases[-1][1] if len(cases) > 1 else cases[0][1], int(length[0])
        )
    total = sum(len(next(iter(rows.values()))) for _, rows in cases)
    return Proof(total, total - len(drawn), max(by.values()), by, none)


def _compared(
    answers: Answers, artefact: Artefact, rows: Mapping[str, Array], what: str
) -> tuple[dict[str, float], bool]:
    """Return kind of batching -> largest difference, and whether the model accepts an empty batch."""
    expected = _flat(answers, rows)
    if not np.isfinite(expected).all():
        row = int(np.flatnonzero(~np.isfinite(expected).all(axis=1))[0])
        raise NotConvertible(
            f"The network answers NaN or infinity to {int((~np.isfinite(expected).all(axis=1)).sum())} rows{what}, "
            f"such as {_shown(rows, row)}.",
            fix="look for a division by zero, a logarithm of zero, or a row whose mask hides all of it.",
        )
    for row in np.linspace(0, len(expected) - 1, _ALONE).astype(int):
        alone = _flat(answers, {name: values[row : row + 1] for name, values in rows.items()})[0]
        if not np.allclose(alone, expected[row], rtol=TOLERANCE, atol=TOLERANCE):
            raise NotConvertible(
                "The network's own answer to a row depends on the rows beside it, or on chance: "
                f"{np.abs(alone - expected[row]).max():.3g} off, for {_shown(rows, int(row))}.",
                fix="use statistics that training keeps, and no dropout in answers.",
            )
    found = answer_afresh(artefact, rows, whole=BATCH, mixed=_MIXED, limit_s=_LIMIT_S)
    unit = max(1.0, float(np.std(expected)))
    by: dict[str, float] = {}
    for given, wanted, how in (
        (found["whole"], expected, "in one batch"),
        (found["mixed"], expected, "in small batches"),
        (found["alone"], expected[found["alone_rows"]], "one by one"),
    ):
        if given.shape != wanted.shape:
            raise NotConvertible(f"The export gives {given.shape[1]} values a row, the network {wanted.shape[1]}.")
        off = np.abs(given - wanted).max(axis=1)
        off[np.isnan(off)] = np.inf
        by[how] = float(off.max()) / unit
        if by[how] > TOLERANCE:
            row = int(off.argmax())
            row = int(found["alone_rows"][row]) if how == "one by one" else row
            raise NotConvertible(
                f"The export answers {int((off > TOLERANCE * unit).sum())} of {len(off)} rows{what} differently from "
                f"the network ({how}), by up to {off.max():.3g}: {_shown(rows, row)}.",
                fix="leave out of forward what depends on the other rows or on the batch's size.",
            )
    return by, "none" in found


def _check_padding(answers: Answers, artefact: Artefact, rows: Mapping[str, Array], length: int) -> float:
    """Raise if padding a sequence changes the network's output, for then batching would change predictions.

    Return the largest difference of the export from the network on padded rows.
    """
    few = {name: values[:_ALONE] for name, values in rows.items()}
    short = few[_MASK].shape[1]
    if short == length:
        return 0.0
    padded = {
        name: np.pad(values, [(0, 0), (0, length - short), *[(0, 0)] * (values.ndim - 2)])
        for name, values in few.items()
    }
    for plain, longer in zip(answers(few), answers(padded), strict=True):
        by_position = longer.shape[1:2] == (length,) and plain.shape[1:2] == (short,)
        off = float(np.abs(plain - (longer[:, :short] if by_position else longer)).max())
        if off > TOLERANCE * max(1.0, float(np.std(plain))):
            raise NotConvertible(
                f"The network answers a sequence of {short} otherwise when it is padded to {length}, by {off:.3g}: its "
                f"{_MASK} does not hide the padding.",
                fix="use the mask in forward, as attention and as pooling over positions do.",
            )
    return max(_compared(answers, artefact, padded, f" padded to {length}")[0].values())


def _attended(rows: dict[str, Array]) -> dict[str, Array]:
    """Return rows with at least one unmasked position: the output for a fully masked row is meaningless."""
    if _MASK in rows:
        rows[_MASK] = rows[_MASK].copy()
        rows[_MASK][:, 0] = 1
    return rows


def _extremes(values: Array) -> Array:
    """Return rows with the smallest, the largest and the value closest to zero seen at each position."""
    low, high = values.min(axis=0), values.max(axis=0)
    return np.stack([low, high, np.clip(np.zeros_like(low), low, high)]).astype(values.dtype)


def _flat(answers: Answers, rows: Mapping[str, Array]) -> Array:
    """Return all outputs concatenated, float64 of shape (rows, values), as `fresh` does."""
    return np.concatenate([each.reshape(len(each), -1).astype(np.float64) for each in answers(rows)], axis=1)


def _shown(rows: Mapping[str, Array], row: int) -> str:
    return ", ".join(f"{name}={values[row].tolist()}" for name, values in rows.items())[:300]
