"""Helper for adding nodes and constants to skl2onnx's graph."""

from __future__ import annotations

from typing import Any

from mainspring.training.frames import Array


class Nodes:
    """Builder of one operator's part of the graph, with unique names.

    Args:
        scope, container: The arguments that skl2onnx passes to a converter.
    """

    def __init__(self, scope: Any, container: Any) -> None:
        self._scope, self._container = scope, container

    def add(self, operator: str, inputs: list[str], *, domain: str = "", output: str = "", **attributes: Any) -> str:
        """Add a node and return the name of its output: `output`, or a new name."""
        output = output or self._scope.get_unique_variable_name(f"own_{operator.lower()}")
        self._container.add_node(
            operator,
            inputs,
            output,
            op_domain=domain,
            op_version=1 if domain else None,
            name=self._scope.get_unique_operator_name(operator),
            **attributes,
        )
        return output

    def constant(self, values: Array) -> str:
        """Add an array and return its name."""
        from onnx import numpy_helper

        name: str = self._scope.get_unique_variable_name("own_constant")
        self._container.initializers.append(numpy_helper.from_array(values, name))
        return name
