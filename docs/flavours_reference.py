"""Writes docs/reference/flavours.md from what the flavours do: `python docs/flavours_reference.py` (some minutes).

Every cell is measured: an estimator is trained, converted and proved in a fresh process. tests/conformance fails where
the page says otherwise.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from mainspring.training.conformance import CASES, REFUSED, Verdict, measure

PAGE = Path(__file__).parent / "reference" / "flavours.md"
NUMBERS = "float32, booleans"
PARTS = {
    "nulls": (NUMBERS, ("null",)),
    "unseen texts": ("texts", ("unseen",)),
    "split thresholds": (NUMBERS, ("threshold",)),
    "one by one, small batches": (NUMBERS, ("one by one", "in small batches")),
}
TENSORS = ("in one batch", "in small batches", "one by one", "other lengths", "padding", "no rows")
_HEAD = """\
# Flavours

<!-- Written by docs/flavours_reference.py; a test fails where it is not current. -->

What becomes of a model of each framework, as measured: every cell is an estimator that was trained, turned into a
bundle's model, and compared with it in a fresh process on 10,000 rows, held out or made of such, and the
[probes](../explanation/bundles-and-equivalence.md#why-verify).

- **exact**: the answers are the same, bit for bit. The framework itself runs its own file.
- **within 1e-5**: no answer differs by more. It was converted to ONNX.
- **refused**: there is no exact counterpart. The reasons stand below; the error says the same, with a fix.

## What a training function returns

"""
_REASONS = """
`float64` is seconds since 1970 with a fraction, which float32 does not hold; so are the integers. `texts` has nulls and
words that training never saw.

### Why refused

"""
_TENSORS = """
## Networks, files and functions

These take tensors. A network is exported by `project.register`; a file and a function are served as they are and
compared with ONNX Runtime, and with the function, asked without Mainspring.

"""
_FILES = """
## What is kept

| framework | extra | file | run by |
|---|---|---|---|
| scikit-learn | `sklearn` | `model.onnx` | ONNX Runtime |
| XGBoost | `xgboost` | `model.ubj` | XGBoost |
| LightGBM | `lightgbm` | `model.txt` | LightGBM |
| CatBoost | `catboost` | `model.cbm` | CatBoost |
| torch | `torch` | `model.onnx` | ONNX Runtime |
| Keras, on torch | `keras` | `model.onnx` | ONNX Runtime |
| transformers | `transformers` | `model.onnx` | ONNX Runtime |
| an adapter by LoRA | `lora` | `adapter.safetensors` | an engine, with its base |
| a function of the project | | its name and the digest of its source | Python |

Refused by name as well: `categorical_features` of HistGradientBoosting, encoders that raise on what they do not know,
`booster="gblinear"` and `missing=` of XGBoost, pandas' categories of numbers, XGBoost or LightGBM at the end of a
pipeline, Keras on another backend than torch, and objects of other classes.

None of these files can run code. A `.cbm` is kept only of a training here: CatBoost's reader crashes on some damaged
files, so one that somebody brings is refused.
"""


def row(name: str, found: Mapping[str, Verdict]) -> str:
    """Return a flavour's row of the first table."""
    cells = [found[case].verdict for case in CASES]
    for case, kinds in PARTS.values():
        verdicts = [found[case].among(kind) for kind in kinds]
        cells.append(verdicts[0] if len(set(verdicts)) == 1 else "within 1e-5")
    proof = found[NUMBERS].proof
    cells.append("yes" if proof is not None and proof.none else "fails")
    return f"| {name} | {' | '.join(cells)} |"


def reasons(name: str, found: Mapping[str, Verdict]) -> list[str]:
    """Return why which case of a flavour was refused, without the numbers that another processor may change."""
    refused = {case: verdict.reason for case, verdict in found.items() if verdict.verdict == REFUSED}
    return [
        f"- {name}, {case}: {re.sub('[0-9]+ of [0-9]+ rows', 'rows', _first(reason))}"
        for case, reason in refused.items()
    ]


def _first(reason: str) -> str:
    return reason.partition(": [ONNX")[0].partition(" (in one batch). The worst")[0].removesuffix(".") + "."


def tensor_row(name: str, found: Mapping[str, str]) -> str:
    """Return a model's row of the second table."""
    return f"| {name} | {' | '.join(found.get(how, '') for how in TENSORS)} |"


def head(cells: list[str]) -> str:
    return f"| | {' | '.join(cells)} |\n|---|{'---|' * len(cells)}"


def page(found: Mapping[str, Mapping[str, Verdict]], tensors: Mapping[str, Mapping[str, str]]) -> str:
    """Return the whole page."""
    first = [head([*CASES, *PARTS, "no rows"]), *(row(name, each) for name, each in found.items())]
    refused = [line for name, each in found.items() for line in reasons(name, each)]
    second = [head(list(TENSORS)), *(tensor_row(name, each) for name, each in tensors.items())]
    return "".join(
        (_HEAD, "\n".join(first), "\n", _REASONS, "\n".join(refused), "\n", _TENSORS, "\n".join(second), "\n", _FILES)
    )


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from kit.flavours import FITS, tensor_rows

    found = {name: {case: measure(fit, CASES[case]) for case in CASES} for name, fit in FITS.items()}
    PAGE.write_text(page(found, tensor_rows()), encoding="utf-8")


if __name__ == "__main__":
    main()
