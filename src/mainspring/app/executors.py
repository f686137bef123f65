"""Which executor runs a bundle, by its flavour. A new flavour adds one line; what no bundle needs is not imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mainspring.app.backends import lazily
from mainspring.core.errors import Corrupt

if TYPE_CHECKING:
    from mainspring.app.project import Project
    from mainspring.registry.model import Bundle
    from mainspring.serving.ports import Executor, Loader

Make = Callable[["Project", "Bundle"], "Executor"]


def _onnx(_project: Project, bundle: Bundle) -> Executor:
    made: Executor = lazily("serving.adapters.onnx", "OnnxExecutor", extra="gateway")(bundle)
    return made


EXECUTORS: Mapping[str, Make] = {
    "onnx": _onnx,
}


def executors(project: Project) -> Loader:
    """Return what makes a bundle's executor.

    It raises:
        Corrupt: Nothing runs the bundle's flavour, or its model is not what its manifest says.
        MissingExtra: What runs it is not installed.
    """

    def load(bundle: Bundle) -> Executor:
        make = EXECUTORS.get(bundle.manifest.flavour)
        if make is None:
            raise Corrupt(
                f"The bundle {bundle.digest[:12]} is of the flavour {bundle.manifest.flavour!r}, which nothing runs; "
                f"known are {', '.join(EXECUTORS)}.",
                fix="upgrade mainspring, or register the model again.",
            )
        return make(project, bundle)

    return load
