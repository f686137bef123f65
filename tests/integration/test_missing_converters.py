"""What is printed where a converter, or what runs a model, is missing: what needed it, and the line that installs it.

Each is hidden from a process of its own, as an environment without it would be.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

from kit.depth import examples

_HIDDEN = """
import sys, warnings
warnings.simplefilter("ignore")
import numpy as np, pandas as pd
from mainspring.core.schema import DType
from mainspring.registry.model import Input
from mainspring.training.flavours import convert_estimator
from mainspring.training.flavours.scoring import score_bundle

X = pd.DataFrame({{"V.a": np.arange(40, dtype=np.float32), "V.b": np.arange(40, dtype=np.float32) % 3}})
y = (X["V.a"] > 20).astype(int)
inputs = [Input(name, DType.Float32) for name in X]
{fit}
artefact = None
{before}
for module in list(sys.modules):
    if module.partition(".")[0] in {hidden!r}:
        del sys.modules[module]
for module in {hidden!r}:
    sys.modules[module] = None

from mainspring.core.errors import MissingExtra
try:
    {ask}
except MissingExtra as error:
    print(error)
"""
_CONVERT = "convert_estimator(model, inputs, 'binary')"
_SERVE = """import pyarrow as pa
    from mainspring.registry.model import Bundle, Manifest
    manifest = Manifest(model="m", task="binary", flavour=artefact.flavour, inputs=tuple(inputs),
        outputs=("probability",), run_id="", dataset_commit="", features_digest="", code_version="", created_at=0)
    score_bundle(Bundle("0" * 64, manifest, {artefact.name: artefact.content}), pa.table(dict(X)))"""
_KEEP = "artefact = convert_estimator(model, inputs, 'binary')"

_LINEAR = "from sklearn.linear_model import LogisticRegression; model = LogisticRegression().fit(X, y)"
_XGBOOST = "import xgboost; model = xgboost.XGBClassifier(n_estimators=2, n_jobs=1).fit(X, y)"
_LIGHTGBM = "import lightgbm; model = lightgbm.LGBMClassifier(n_estimators=2, n_jobs=1, verbose=-1).fit(X, y)"
_CATBOOST = """import catboost
model = catboost.CatBoostClassifier(iterations=2, verbose=0, thread_count=1, allow_writing_files=False).fit(X, y)"""
_TORCH = "import torch; model = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Sigmoid())"

# fitted by, hidden, is it served rather than converted, what is printed
CASES: dict[str, tuple[str, str, bool, str, str]] = {
    "skl2onnx": (_LINEAR, "skl2onnx", False, "Converting a scikit-learn estimator to ONNX", "sklearn"),
    "onnxscript": (_TORCH, "onnxscript", False, "Converting a Sequential to ONNX", "torch"),
    "catboost": (_CATBOOST, "catboost", False, "A model of CatBoost", "catboost"),
    "catboost, serving": (_CATBOOST, "catboost", True, "The catboost model of bundle 000000000000", "catboost"),
    "xgboost, serving": (_XGBOOST, "xgboost", True, "The xgboost model of bundle 000000000000", "xgboost"),
    "lightgbm, serving": (_LIGHTGBM, "lightgbm", True, "The lightgbm model of bundle 000000000000", "lightgbm"),
}


@pytest.mark.parametrize("name", examples(gate=["skl2onnx", "xgboost, serving"], deep=list(CASES)))
def test_what_is_missing_is_said_with_the_line_that_installs_it(name: str) -> None:
    fit, hidden, served, what, extra = CASES[name]
    if find_spec(hidden) is None:
        pytest.skip(f"{hidden} is not installed, so no model of it can be made")
    ask, before = (_SERVE, _KEEP) if served else (_CONVERT, "")
    code = _HIDDEN.format(fit=fit, before=before, hidden=[hidden], ask=ask)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"{what} needs the extra '{extra}', which is not installed. Fix: pip install 'mainspring[{extra}]'\n"
    )
