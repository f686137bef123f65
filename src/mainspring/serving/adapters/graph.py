"""A graph of models: each node's model is called once a batch, with what the nodes before it gave."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mainspring.core.errors import Corrupt, Invalid, MainspringError
from mainspring.registry.graph import VALUE, check_shapes, in_order
from mainspring.registry.model import Bundle, Node
from mainspring.serving.plane.executor import Array, by_name, closed, column_specs, given
from mainspring.serving.ports import Executor

Member = Callable[[str], Executor]  # of a digest


class GraphExecutor:
    """The models of one bundle's graph, in an order in which each comes after what it takes from.

    Args:
        member: Returns the executor of a digest, its bundle verified.

    Raises:
        Corrupt: A member is missing or damaged, or what a node is given does not fit what it takes.
    """

    def __init__(self, bundle: Bundle, member: Member) -> None:
        manifest, name = bundle.manifest, f"bundle {bundle.digest[:12]}"
        if manifest.graph is None:
            raise Corrupt(f"The {name} has no graph.")
        self._members: dict[str, Executor] = {}
        self._nodes = in_order(manifest.graph, f" of {name}")
        self._digests = {node.bundle for node in self._nodes if node.bundle}
        self._outputs = manifest.graph.outputs
        self.inputs = by_name(manifest.tensors) if manifest.tensors else column_specs(manifest.inputs)
        try:
            for digest in self._digests:
                self._members[digest] = member(digest)
            found = check_shapes(manifest.graph, self.inputs, lambda digest: _specs(self._members[digest]))
        except MainspringError as error:
            self.close()
            raise Corrupt(f"The graph of {name} cannot run: {error.what}", fix=error.fix) from error
        self.outputs = by_name(manifest.output_tensors) if manifest.tensors else found
        wrong = [each for each, spec in self.outputs.items() if found[each] != spec]
        if wrong:
            self.close()
            raise Corrupt(
                f"The graph of {name} returns {found[wrong[0]]}, but its manifest declares {self.outputs[wrong[0]]}."
            )
        self.inline = all(each.inline for each in self._members.values())

    def nullable(self, name: str) -> bool:
        return all(
            self._members[node.bundle].nullable(taken)
            for node in self._nodes
            if node.bundle
            for taken, source in node.inputs.items()
            if source == name
        )

    def predict(self, inputs: Mapping[str, Sequence[Any] | Array], rows: int) -> dict[str, Array]:
        if self._members.keys() != self._digests:
            raise closed()
        known: dict[str, Any] = {name: given(inputs, name) for name in self.inputs}
        for node in self._nodes:
            taken = {name: known[source] for name, source in node.inputs.items()}
            if node.combine:
                known[f"{node.name}.{VALUE}"] = combine(node, list(taken.values()))
                continue
            try:
                answers = self._members[node.bundle].predict(taken, rows)
            except Invalid as error:
                raise Invalid(f"Node {node.name!r}: {error.what}", fix=error.fix) from error
            known.update({f"{node.name}.{name}": array for name, array in answers.items()})
        return {output: known[source] for output, source in self._outputs.items()}

    def close(self) -> None:
        while self._members:
            self._members.popitem()[1].close()


def _specs(executor: Executor) -> tuple[Any, Any]:
    return executor.inputs, executor.outputs


def combine(node: Node, answers: Sequence[Array]) -> Array:
    """Return one array of the answers' shape and type: their mean, their weighted mean, or what most of them say.

    Of a tie, the answer that was named first wins. Each element is combined by itself.
    """
    if node.combine == "vote":
        return _vote([np.asarray(each) for each in answers])
    weights = np.array(node.weights or [1.0] * len(answers), np.float64)
    total = np.zeros(np.shape(answers[0]), np.float64)
    for weight, answer in zip(weights / weights.sum(), answers, strict=True):
        if weight:  # so that an infinite answer of no weight does not make it NaN
            total += weight * np.asarray(answer, np.float64)
    return total.astype(np.asarray(answers[0]).dtype)


def _vote(answers: Sequence[Array]) -> Array:
    best, most = answers[0], np.zeros(answers[0].shape, np.int64)
    for candidate in answers:
        votes = np.sum([_same(candidate, other) for other in answers], axis=0)
        best, most = np.where(votes > most, candidate, best), np.maximum(votes, most)
    return best


def _same(one: Array, other: Array) -> Array:
    same = one == other
    if one.dtype.kind == "f":
        same |= np.isnan(one) & np.isnan(other)
    return np.asarray(same)
