"""Which executor runs a bundle: by its flavour, imported when a bundle needs it and not before."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from kit.models import lightgbm_bundle, mlp_bundle, xgboost_bundle
from mainspring.core.errors import Corrupt, MissingExtra
from mainspring.project.executors import EXECUTORS, executors
from mainspring.registry.flavours import FLAVOURS

PROJECT: Any = SimpleNamespace(
    settings=SimpleNamespace(gateway_workers=1, model_time_us=1_000_000, model_memory_bytes=1 << 30)
)


def test_every_flavour_of_a_bundle_has_its_executor() -> None:
    assert list(EXECUTORS) == list(FLAVOURS)


def test_the_flavour_decides() -> None:
    load = executors(PROJECT)
    names = [type(load(made)).__name__ for made in (mlp_bundle(), xgboost_bundle(), lightgbm_bundle())]
    assert names == ["OnnxExecutor", "XgboostExecutor", "LightgbmExecutor"]


def test_what_nothing_runs_is_refused_by_name() -> None:
    made = mlp_bundle()
    strange = type(made)(made.digest, msgspec.structs.replace(made.manifest, flavour="tarot"), made.files)
    with pytest.raises(Corrupt, match="'tarot', which no executor supports"):
        executors(PROJECT)(strange)


@pytest.mark.parametrize(("made", "extra"), [(xgboost_bundle, "xgboost"), (lightgbm_bundle, "lightgbm")])
def test_a_missing_extra_names_its_install_line(made: Any, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = made()
    monkeypatch.delitem(sys.modules, f"mainspring.serving.adapters.{extra}", raising=False)
    monkeypatch.setitem(sys.modules, extra, None)  # as Python itself marks what cannot be imported
    with pytest.raises(MissingExtra) as caught:
        executors(PROJECT)(bundle)
    assert caught.value.fix == f"pip install 'mainspring[{extra}]'"


def test_a_process_imports_only_what_its_bundles_need() -> None:
    code = """
import json, sys
import mainspring.processes.gateway, mainspring.project.executors
before = {"onnxruntime", "xgboost", "lightgbm"} & set(sys.modules)
from types import SimpleNamespace
from kit.models import mlp_bundle
settings = SimpleNamespace(gateway_workers=1, model_time_us=1_000_000, model_memory_bytes=1 << 30)
mainspring.project.executors.executors(SimpleNamespace(settings=settings))(mlp_bundle())
print(json.dumps([sorted(before), sorted({"onnxruntime", "xgboost", "lightgbm"} & set(sys.modules))]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=_environment())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [[], ["onnxruntime"]]


def _environment() -> dict[str, str]:
    import os
    from pathlib import Path

    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
