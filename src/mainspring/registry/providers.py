"""The execution provider of ONNX Runtime that a bundle was sealed for, where it is not the processor's."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import msgspec

from mainspring.core.errors import Invalid
from mainspring.registry.model import Bundle, Manifest

_KEY = "provider"  # in a manifest's `extra`
_OPENVINO = "OpenVINOExecutionProvider"
GPUS = frozenset({"CUDAExecutionProvider", "TensorrtExecutionProvider"})
_PACKAGES = {
    "CUDAExecutionProvider": "onnxruntime-gpu",
    "TensorrtExecutionProvider": "onnxruntime-gpu and TensorRT",
    _OPENVINO: "onnxruntime-openvino",
}


def provider_of(manifest: Manifest) -> str:
    """Return the execution provider that a model needs; empty where it is the processor's."""
    return str(manifest.extra.get(_KEY, ""))


def with_provider(bundle: Bundle, provider: str) -> Bundle:
    """Return a bundle that needs an execution provider; the same if that is empty. Not sealed."""
    if not provider:
        return bundle
    extra = {**bundle.manifest.extra, _KEY: provider}
    return replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, extra=extra))


def options_of(provider: str, threads: int = 1) -> dict[str, str]:
    """Return the options of an execution provider: OpenVINO's processor in so many threads, as of ONNX Runtime's own.

    https://onnxruntime.ai/docs/execution-providers/OpenVINO-ExecutionProvider.html
    """
    return {"device_type": "CPU", "num_of_threads": str(threads)} if provider == _OPENVINO else {}


def package_of(provider: str) -> str:
    """Return the package that has an execution provider, to install in place of `onnxruntime`."""
    return _PACKAGES.get(provider, "a build of ONNX Runtime that has it")


def expect_provider(provider: str, available: Collection[str], owner: str) -> None:
    """Raise if an execution provider is not here.

    Raises:
        Invalid: The message names the package that has it.
    """
    if provider and provider not in available:
        raise Invalid(
            f"The model of {owner} is sealed for {provider}, and ONNX Runtime has {', '.join(available)} here.",
            fix=f"install {package_of(provider)} in place of onnxruntime, or promote the version that it was made of.",
        )
