"""Executors of bundles by flavour. A new flavour adds one line; an executor is imported only if a bundle needs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mainspring.core.cores import usable_cores
from mainspring.core.errors import Corrupt, NotConvertible
from mainspring.project.backends.base import lazily
from mainspring.project.code_reach import closed_to_code, open_to_code

if TYPE_CHECKING:
    from mainspring.project import Project
    from mainspring.registry.model import Bundle, Code, TensorSpec
    from mainspring.serving.adapters.sessions import CallLimits
    from mainspring.serving.ports import Executor, Loader

_FUNCTION_PROCESS = "mainspring.project.function_process"
Make = Callable[["Project", "Bundle", bool], "Executor"]  # the last: whether on one thread in any case


def _adapter(flavour: str, name: str, extra: str) -> Make:
    def make(_project: Project, bundle: Bundle, _one_thread: bool) -> Executor:
        executor: Executor = lazily(f"serving.adapters.{flavour}", name, extra=extra)(bundle)
        return executor

    return make


def _onnx(project: Project, bundle: Bundle, one_thread: bool) -> Executor:
    from mainspring.serving.adapters.threads import measured

    executor = lazily("serving.adapters.onnx", "OnnxExecutor", extra="gateway")
    of_call = limits(project)
    if one_thread:
        alone: Executor = executor(bundle, limits=of_call)
        return alone
    share = usable_cores()
    most = share // max(1, project.settings.gateway_workers)
    return measured(bundle, lambda threads: executor(bundle, threads=threads, limits=of_call), most)


def _function(project: Project, bundle: Bundle, _one_thread: bool) -> Executor:
    from mainspring.serving.adapters.apart import FunctionApart, LoadFunction
    from mainspring.serving.adapters.function import FunctionExecutor

    def apart(code: Code) -> FunctionApart:
        of_call = limits(project)
        load = LoadFunction(code, str(project.settings.root), of_call.memory_bytes)
        return FunctionApart(
            _FUNCTION_PROCESS,
            load,
            of_call,
            reads=open_to_code(project.settings),
            hidden=closed_to_code(project.settings),
        )

    return FunctionExecutor(bundle, apart)


def limits(project: Project) -> CallLimits:
    """Return the limits of one call of a model."""
    from mainspring.serving.adapters.sessions import CallLimits

    return CallLimits(project.settings.model_time_us / 1e6, project.settings.model_memory_bytes)


def _graph(project: Project, bundle: Bundle, one_thread: bool) -> Executor:
    from mainspring.serving.adapters.graph import GraphExecutor

    load = executors(project, one_thread=one_thread)
    return GraphExecutor(bundle, lambda digest: load(project.bundles.load(digest)))


def _lora(_project: Project, bundle: Bundle, _one_thread: bool) -> Executor:
    raise NotConvertible(
        f"The bundle {bundle.digest[:12]} is an adapter, which answers only with its base.",
        fix="serve it from an engine for language models, or merge it: project.merge_adapter(...).",
    )


def _answers(_project: Project, bundle: Bundle, _one_thread: bool) -> Executor:
    raise NotConvertible(
        f"The bundle {bundle.digest[:12]} is a version of an answer chain, which takes questions.",
        fix="ask it: `mainspring answers ask`.",
    )


EXECUTORS: Mapping[str, Make] = {
    "onnx": _onnx,
    "xgboost": _adapter("xgboost", "XgboostExecutor", "xgboost"),
    "lightgbm": _adapter("lightgbm", "LightgbmExecutor", "lightgbm"),
    "catboost": _adapter("catboost", "CatboostExecutor", "catboost"),
    "lora": _lora,
    "answers": _answers,
    "function": _function,
    "graph": _graph,
}


def describe_onnx(content: bytes, model: str) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Return the inputs and the outputs of an ONNX model.

    Raises:
        Corrupt: The model does not load.
    """
    from mainspring.serving.adapters.onnx import describe

    return describe(content, model)


def executors(project: Project, *, one_thread: bool = False) -> Loader:
    """Return a factory of bundles' executors.

    Args:
        one_thread: Whether no model gets more threads where these pay: the bits of its answers repeat.

    It raises:
        Corrupt: No executor supports the bundle's flavour, or its model differs from its manifest.
        MissingExtra: Its runtime is not installed.
    """

    def load(bundle: Bundle) -> Executor:
        make = EXECUTORS.get(bundle.manifest.flavour)
        if make is None:
            raise Corrupt(
                f"The bundle {bundle.digest[:12]} has the flavour {bundle.manifest.flavour!r}, which no executor "
                f"supports; supported are {', '.join(EXECUTORS)}.",
                fix="upgrade mainspring, or register the model again.",
            )
        executor = make(project, bundle, one_thread)
        if bundle.manifest.curve is None:
            return executor
        from mainspring.serving.adapters.curved import CurvedExecutor

        return CurvedExecutor(executor, bundle.manifest.curve)

    return load
