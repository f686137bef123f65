"""Explainers of bundles by flavour: the exact methods."""

from __future__ import annotations

from mainspring.project.backends.base import lazily
from mainspring.registry.model import Bundle
from mainspring.serving.background import owner_of
from mainspring.serving.explanation import NotExplainable, takes_tensors
from mainspring.serving.ports import Explainer

_EXPLAINERS = {
    "onnx": ("onnx_explainer", "OnnxExplainer", "gateway"),
    "xgboost": ("xgboost", "XgboostExplainer", "xgboost"),
    "lightgbm": ("lightgbm", "LightgbmExplainer", "lightgbm"),
    "catboost": ("catboost", "CatboostExplainer", "catboost"),
}


def load_explainer(bundle: Bundle) -> Explainer:
    """Return the exact explainer of a bundle's model.

    Raises:
        NotExplainable: There is none.
        Corrupt: The model does not load, or differs from its manifest.
        MissingExtra: Its runtime is not installed.
    """
    flavour = bundle.manifest.flavour
    if bundle.manifest.tensors:
        raise takes_tensors(owner_of(bundle))
    if flavour not in _EXPLAINERS:
        raise NotExplainable(owner_of(bundle), f"it is a {flavour}")
    module, name, extra = _EXPLAINERS[flavour]
    explainer: Explainer = lazily(f"serving.adapters.{module}", name, extra=extra)(bundle)
    return explainer
