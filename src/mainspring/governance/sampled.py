"""Estimated contributions to the answers of any model of columns, with standard errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mainspring.registry.model import Bundle
from mainspring.serving.background import answers_of, background_of
from mainspring.serving.explanation import ANSWER, Array, Contributions, Explanation, Method, explanations
from mainspring.serving.ports import Executor
from mainspring.stats.shapley import by_permutations


def sampled_explanation(
    bundle: Bundle,
    executor: Executor,
    row: Mapping[str, Any],
    calls: int,
    *,
    enough: Callable[[], bool] = lambda: False,
) -> Explanation:
    """Return the explanation of a row by random orders of its columns, against held-out rows of the bundle.

    Contributions are in the unit of the answer. The orders are seeded, so the same budget gives the same explanation.

    Args:
        calls: Number of answers to ask the model for.
        enough: Returns true to stop earlier.

    Raises:
        NotExplainable: The bundle takes tensors, or has no rows to compare with.
    """
    background, rows = background_of(bundle)
    names = list(executor.inputs)

    def answer(chosen: Array, others: Array) -> Array:
        picked, mine = others.tolist(), chosen.tolist()
        mixed = {
            name: [row[name] if has[place] else background[name][at] for has, at in zip(mine, picked, strict=True)]
            for place, name in enumerate(names)
        }
        return answers_of(executor, mixed, len(picked))

    values, errors = by_permutations(answer, len(names), rows, calls, enough=enough)
    total = answers_of(executor, {name: [row[name]] for name in names}, 1)
    base = answers_of(executor, background, rows).mean(axis=0)
    found = Contributions(values[None], base, total, np.asarray(errors)[None])
    method = Method(name="permutation", exact=False, space=ANSWER, background=rows)
    return explanations(found, method, names, list(executor.outputs))[0]
