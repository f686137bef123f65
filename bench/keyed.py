"""A model of ten stored features behind a gateway, asked by the key of an entity.

The features are last values of a user, landed from a Parquet file and materialised into SQLite as any project's are.
The model is a network in ONNX that takes them side by side, in a bundle that is sealed here: no training made it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

import starting
from answering import mlp
from asking import HOST, Headers
from mainspring.serving.load.generator import http_request

if TYPE_CHECKING:
    from mainspring.project import Project
    from mainspring.registry.model import Bundle

USERS = 5_000
FEATURES = tuple(f"f{number}" for number in range(10))
ENDPOINT = "keyed"
SERVICE = f"""
import mainspring as ms

names = {FEATURES!r}
user = ms.Entity("user", keys={{"user": ms.String}})
facts = ms.Source("facts", schema={{"user": ms.String, **dict.fromkeys(names, ms.Float64)}}, event_time="at")
asked = ms.Source("asked", schema={{"user": ms.String}}, event_time="asked_at")
lasts = {{name: ms.last(name, ttl="30d") for name in names}}
Facts = ms.feature_view(entity=user, source=facts)(type("Facts", (), lasts))
observations = ms.Observations(asked, keys=[user], at=ms.col("asked_at"))
"""

Wanted = Mapping[str, Sequence[float]]  # user -> the model's answer


def facts() -> pa.Table:
    """Return one row a user, of this hour."""
    chance, now = random.Random(7), datetime.now(UTC)
    at = [now - timedelta(seconds=chance.randrange(60, 3_600)) for _ in range(USERS)]
    return pa.table(
        {
            "user": [f"user-{number:06d}" for number in range(USERS)],
            "at": pa.array(at, pa.timestamp("us", tz="UTC")),
            **{name: [round(chance.gauss(0, 1), 4) for _ in range(USERS)] for name in FEATURES},
        }
    )


def expected(rows: pa.Table, model: Path, users: int = 512) -> dict[str, list[float]]:
    """Return the model's answers by user, for so many users at random."""
    chosen = rows.take(random.Random(1).sample(range(len(rows)), users))
    features = list(zip(*(chosen[name].to_pylist() for name in FEATURES), strict=True))
    return dict(zip(chosen["user"].to_pylist(), mlp(str(model))(features).tolist(), strict=True))


def requests(port: int, users: Sequence[str], headers: Headers = ()) -> list[bytes]:
    """Return one request a user."""

    def body(user: str) -> bytes:
        return json.dumps({"inputs": [{"name": "user", "shape": [1], "datatype": "BYTES", "data": [user]}]}).encode()

    path = f"/v2/models/{ENDPOINT}/infer"
    return [http_request(f"{HOST}:{port}", path, body(user), headers) for user in users]


def prepared(folder: Path, rows: Path, model: Path) -> Project:
    """Return a project that has landed the rows, materialised them, and serves the model by keys."""
    from mainspring.operations.ingest import land
    from mainspring.operations.materialize import materialise_views
    from mainspring.serving.model import Arm, Route

    project = starting.project(folder, SERVICE)
    land(project, "facts", str(rows))
    materialise_views(project)
    sealed = bundle(project, model)
    project.bundles.save(sealed)
    arms = (Arm("1", sealed.digest),)
    project.routes.publish(
        [Route(endpoint=ENDPOINT, model=ENDPOINT, arms=arms, deadline_us=1_000_000, max_queue_rows=4_096)]
    )
    return project


def store(project: Project) -> tuple[str, str]:
    """Return the file of the online store, and what the view is called in it."""
    from mainspring.features.layout import slot

    (view,) = project.definitions.views.values()
    return project.settings.online.path, slot(view)


def bundle(project: Project, model: Path) -> Bundle:
    """Return the signed bundle of a model of the view's features."""
    import mainspring as ms
    from mainspring.features.definitions import dump
    from mainspring.registry import bundles
    from mainspring.registry.model import Input, Manifest

    (view,) = project.definitions.views.values()
    (observations,) = project.definitions.observations
    inputs = tuple(Input(f"{view.name}.{name}", ms.Float64) for name in FEATURES)
    golden = (0.5, -1.25)
    answers = mlp(str(model))([[value] * len(inputs) for value in golden])
    rows = {"inputs": {each.name: golden for each in inputs}, "outputs": {"value": answers[:, 0].tolist()}}
    manifest = Manifest(
        model=ENDPOINT, task="regression", flavour="onnx", inputs=inputs, outputs=("value",), run_id="bench",
        dataset_commit="", features_digest="", code_version="", created_at=0,
    )  # fmt: skip
    files = {
        bundles.MODEL: model.read_bytes(),
        bundles.FEATURES: dump([view], observations),
        bundles.GOLDEN: json.dumps(rows).encode(),
    }
    return bundles.seal(manifest, files, project.signing_key)
