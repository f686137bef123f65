"""A Python function of the project as a model: arrays by name in, arrays by name out. It is called in a thread."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from inspect import isgeneratorfunction
from typing import Any

import numpy as np

from mainspring.core.errors import Corrupt, MainspringError
from mainspring.registry.model import Bundle, Code, TensorSpec
from mainspring.serving.adapters.apart import FunctionApart
from mainspring.serving.plane.executor import Array, ModelFailed, by_name, closed, first_line, given, last_of, tensor
from mainspring.serving.protocol.tensor import DTYPES

Function = Callable[..., Any]
Find = Callable[[Code], Function]  # raises Corrupt where the source is not what it was


class FunctionExecutor:
    """A function called with its inputs by name, each an array of shape (rows, ...).

    It returns the array of its one output, or a mapping of output -> array. A generator function yields such answers,
    of which the last is the whole one, that of `predict`. Arrays that it is given cannot be written to: they may be a
    request's own.

    Args:
        find: Returns the function that a manifest names, if its source is what it was when it was registered.

    Raises:
        Corrupt: The function cannot be found, or was changed.
    """

    inline = False

    def __init__(self, bundle: Bundle, find: Find) -> None:
        code = bundle.manifest.code
        if code is None or not bundle.manifest.tensors:
            raise Corrupt(f"The manifest of bundle {bundle.digest[:12]} lacks a function or its inputs.")
        self._name = code.function
        self._function: Function | None = find(code)
        self.inputs = by_name(bundle.manifest.tensors)
        self.outputs = by_name(bundle.manifest.output_tensors)

    def nullable(self, name: str) -> bool:  # noqa: ARG002
        return False

    @property
    def yields(self) -> bool:
        """Whether its answer comes in parts."""
        found = self._function
        return found.yields if isinstance(found, FunctionApart) else isgeneratorfunction(found)

    def predict(self, inputs: Mapping[str, Sequence[Any] | Array], rows: int) -> dict[str, Array]:
        with self._failing():
            found = last_of(self._callable()(**self._arrays(inputs, rows)))
        return self._answers(found, rows)

    def events(self, inputs: Mapping[str, Sequence[Any] | Array], rows: int) -> Generator[dict[str, Array], None, None]:
        function, arrays = self._callable(), self._arrays(inputs, rows)
        begin = function.events if isinstance(function, FunctionApart) else function
        with self._failing(), closing(begin(**arrays)) as events:
            for found in events:
                yield self._answers(found, rows)

    def _callable(self) -> Function:
        if self._function is None:
            raise closed()
        return self._function

    def _arrays(self, inputs: Mapping[str, Sequence[Any] | Array], rows: int) -> dict[str, Array]:
        arrays = {}
        for name, spec in self.inputs.items():
            view = tensor(given(inputs, name), spec, rows).view()
            view.flags.writeable = False
            arrays[name] = view
        return arrays

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except MainspringError:
            raise  # what the project says of its rows
        except Exception as error:
            raise ModelFailed(
                f"The function {self._name} failed: {type(error).__name__}: {first_line(error)}"
            ) from error

    def close(self) -> None:
        if isinstance(self._function, FunctionApart):
            self._function.close()
        self._function = None

    def _answers(self, found: Any, rows: int) -> dict[str, Array]:
        if not isinstance(found, Mapping):
            if len(self.outputs) != 1:
                raise ModelFailed(f"The function {self._name} must return a mapping of {sorted(self.outputs)}.")
            found = {next(iter(self.outputs)): found}
        return {name: self._answer(found, spec, rows) for name, spec in self.outputs.items()}

    def _answer(self, found: Mapping[str, Any], spec: TensorSpec, rows: int) -> Array:
        if spec.name not in found:
            raise ModelFailed(f"The function {self._name} returns {sorted(found)}, without {spec.name!r}.")
        try:
            array = np.asarray(found[spec.name]).astype(DTYPES[spec.datatype], casting="same_kind", copy=False)
        except (TypeError, ValueError) as error:
            raise ModelFailed(f"The function {self._name} returns {spec.name!r} with a wrong type: {error}") from error
        wanted = (rows, *spec.shape[1:])
        if len(array.shape) != len(wanted) or any(
            want not in (-1, have) for want, have in zip(wanted, array.shape, strict=True)
        ):
            raise ModelFailed(
                f"The function {self._name} returns {spec.name!r} of shape {list(array.shape)}, not {list(wanted)}."
            )
        return array
