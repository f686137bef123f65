"""README of an export: what each file is, and how it is read."""

from __future__ import annotations

from collections.abc import Iterable

from mainspring.core.time import format_instant
from mainspring.operations.leaving.folder import Begun, File, LeftOut
from mainspring.operations.leaving.models import LOADERS

_HEAD = """\
# {project}: everything, in open formats

Made at {at} (the project's clock) by Mainspring {version}. Nothing in this folder needs Mainspring.

`sha256sum -c SHA256SUMS` verifies every file. `manifest.json` lists them with rows, bytes and SHA-256, and what is left
out.

{personal}

## How to read it

- `tables/`: Parquet. The rows of each source, of its quarantine and of its dead letters.
- `predictions/`: Parquet. Predictions, failures, explanations; `labels.parquet` by the prediction's id. Columns with
  JSON say so in their metadata.
- `features/`: Parquet. The values of each feature view, a row for each entity.
- `models/`: the files of each version. `models/models.json` says how each is read: {loaders}.
- `mlflow/`: runs, metrics, versions, in MLflow's own store. In that folder:
  `mlflow ui --backend-store-uri sqlite:///mlflow.db`.
- `records/`: lines of JSON, with a JSON Schema each. Definitions, decisions, incidents, jobs, usage, access.
- `audit.jsonl`: the signed head of the audit log, then each event with its proof (RFC 9162), a line each.
- `usage/`: lines of JSON. Use of language models, decisions on models in memory.

Units are in the metadata of a Parquet file's schema and in the JSON Schemas: instants are microseconds since
1970-01-01T00:00:00Z. A model of the flavour `onnx` has an input of shape (rows, 1) for each feature: a number with NaN
for null, or a text with the empty text for null. `golden.json` has rows with the predictions that it has to give.
"""
_MASKED = (
    "Values of columns that are marked as personal are left out; `mainspring export project --reveal` writes them."
)
_REVEALED = "Values that identify persons are in it: keep it as you keep them. Those of erased subjects are gone."
_NEVER = """\

## Left out

Secrets: private keys, the pepper, encryption keys, digests of API keys, sessions. `mainspring.toml` and the project's
own code, which you have. Indexes, tiles and caches, which are computed from what is here.
"""


def readme(begun: Begun, version: str, files: Iterable[File], left_out: Iterable[LeftOut]) -> str:
    """Return the README's text."""
    named = [each for each in LOADERS if each in ("onnx", "xgboost", "lightgbm", "catboost")]
    parts = [
        _HEAD.format(
            project=begun.project,
            at=format_instant(begun.at),
            version=version,
            personal=_REVEALED if begun.reveal else _MASKED,
            loaders=", ".join(named),
        ),
        "\n## Files\n\n| file | rows | what it is |\n|---|---|---|\n",
    ]
    for each in files:
        if each.path.startswith(("mlflow/artifacts/", "records/schemas/")):
            continue
        masked = f" Left out: {', '.join(each.masked)}." if each.masked else ""
        parts.append(
            f"| `{each.path}` | {'' if each.rows is None else f'{each.rows:,}'} | {_cell(each.about)}.{masked} |\n"
        )
    parts.append(
        "\nFiles of runs are in `mlflow/artifacts`, as they were logged; schemas of records in `records/schemas`.\n"
    )
    parts.append(_NEVER)
    others = [f"- `{each.what}`: {each.why}\n" for each in left_out]
    return "".join([*parts, "\n" if others else "", *others])


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split()).rstrip(".")
