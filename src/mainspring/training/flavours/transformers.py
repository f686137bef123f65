"""Flavour of Hugging Face models: ONNX, by torch's exporter. They take sequences, so they cannot be models of columns.

`equivalence.networks.export` exports one with `input_ids` and `attention_mask`. A tokenizer is not part of the model:
tokenize before the request, or in a function of the project that precedes the model in a graph.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from mainspring.core.errors import NotConvertible
from mainspring.registry.model import Input
from mainspring.training.flavours.flavour import Artefact
from mainspring.training.flavours.torch import TorchFlavour


class TransformersFlavour(TorchFlavour):
    extra = "transformers"

    def outputs(self, module: Any, _task: str, _labels: Sequence[str] = ()) -> tuple[str, ...]:
        raise _of_tensors(module)

    def convert(
        self, module: Any, _inputs: Sequence[Input], _task: str, _wide: Collection[str], _labels: Sequence[str] = ()
    ) -> Artefact:
        raise _of_tensors(module)


def _of_tensors(module: Any) -> NotConvertible:
    return NotConvertible(
        f"{type(module).__name__} takes sequences of tokens, not a row of features.",
        fix='register it as it is: ms.open(".").register("name", model, examples).',
    )


FLAVOUR = TransformersFlavour()
