"""Model flavours that a bundle can hold: the names of the model's file, and the check of its content."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mainspring.core.errors import Corrupt
from mainspring.registry.answers_file import ANSWERS, check_answers
from mainspring.registry.catboost_file import check_catboost
from mainspring.registry.graph import check_graph
from mainspring.registry.lightgbm_file import check_lightgbm
from mainspring.registry.lora_file import ADAPTER, check_lora
from mainspring.registry.model import Manifest, check_code
from mainspring.registry.onnx_file import check_onnx
from mainspring.registry.xgboost_file import check_xgboost


@dataclass(frozen=True, slots=True)
class Flavour:
    """One kind of model.

    Args:
        files: Allowed names of the model's file; a bundle holds exactly one of them. Empty if the manifest alone
            describes the model.
        check: Called with the file's bytes and name; raises `Corrupt` if they are not such a model.
    """

    files: tuple[str, ...] = ()
    check: Callable[[bytes, str], object] | None = None


FLAVOURS: Mapping[str, Flavour] = {
    "onnx": Flavour(("model.onnx",), check_onnx),
    "xgboost": Flavour(("model.ubj", "model.json"), check_xgboost),
    "lightgbm": Flavour(("model.txt",), check_lightgbm),
    "catboost": Flavour(("model.cbm",), check_catboost),
    "lora": Flavour((ADAPTER,), check_lora),
    "answers": Flavour((ANSWERS,), check_answers),
    "function": Flavour(),
    "graph": Flavour(),
}
MODEL_FILES = frozenset(name for flavour in FLAVOURS.values() for name in flavour.files)


def check_model(manifest: Manifest, files: Mapping[str, bytes], owner: str = "") -> None:
    """Raise if `files` and the manifest do not hold exactly one model of the manifest's flavour.

    Args:
        owner: Text after a file's name in messages, such as ` of bundle 0123456789ab`.

    Raises:
        Corrupt: The flavour is unknown, the model's file is missing or duplicated, or its content does not match.
    """
    flavour = FLAVOURS.get(manifest.flavour)
    if flavour is None:
        raise Corrupt(
            f"The model{owner} has the flavour {manifest.flavour[:40]!r}; this version supports {', '.join(FLAVOURS)}.",
            fix="upgrade mainspring, or register the model again.",
        )
    present = sorted(MODEL_FILES & set(files))
    if len(present) != bool(flavour.files) or not set(present) <= set(flavour.files):
        wanted = " or ".join(flavour.files) or "no model's file"
        raise Corrupt(
            f"The {manifest.flavour} model{owner} has {' and '.join(present) or 'no file'}; it needs {wanted}.",
            fix="restore the bundle from a backup, or register the model again.",
        )
    for name in present:
        if flavour.check is not None:
            flavour.check(files[name], f"{name}{owner}")
    if (manifest.code is not None) != (manifest.flavour == "function"):
        raise Corrupt(f"The {manifest.flavour} model{owner} cannot also be a function of the project.")
    if (manifest.graph is not None) != (manifest.flavour == "graph"):
        raise Corrupt(f"The {manifest.flavour} model{owner} cannot also be a graph of models.")
    if manifest.code is not None:
        check_code(manifest.code, owner)
    if manifest.graph is not None:
        check_graph(manifest.graph, _names(manifest), owner)


def _names(manifest: Manifest) -> tuple[list[str], list[str]]:
    if manifest.tensors:
        return [each.name for each in manifest.tensors], [each.name for each in manifest.output_tensors]
    return [each.name for each in manifest.inputs], list(manifest.outputs)
