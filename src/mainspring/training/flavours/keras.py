"""Flavour of Keras models on the torch backend: ONNX, by torch's exporter. Otherwise as for torch modules."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from mainspring.core.errors import NotConvertible
from mainspring.training.flavours.estimators import imported
from mainspring.training.flavours.torch import TorchFlavour


class KerasFlavour(TorchFlavour):
    extra = "keras"

    def call(self, module: Any) -> Callable[..., Any]:
        keras = imported("keras", f"Asking a {type(module).__name__}", self.extra)
        backend = keras.backend.backend()
        if backend != "torch":
            raise NotConvertible(
                f"{type(module).__name__} runs on Keras's backend {backend!r}; only the torch backend is supported.",
                fix="set KERAS_BACKEND=torch before keras is imported.",
            )
        return partial(module, training=False)


FLAVOUR = KerasFlavour()
