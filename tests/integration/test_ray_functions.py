"""Feature functions on Ray as it is installed: the derived table is the one that this machine makes alone."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from kit.depth import deep
from kit.engines import ROOT, python_of

SCRIPT = """
import json
import sys

import msgspec

from kit.reviews import Careful, ReviewText, batch, reviews, shop
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import ManualClock
from mainspring.data import duck
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.ingest import Ingestor
from mainspring.features.functions.on_ray import RayRunner
from mainspring.features.functions.declaring import derive
from mainspring.features.functions.deriving import Deriver
from mainspring.features.functions.process import FunctionFailed

KEYINGS = {"shop": ("shop",)}
found = {}
for engine in ("", "ray"):
    lake, locks = MemoryLake(), MemoryLocks()
    ingestor = Ingestor(lake, locks, ManualClock(2_000_000_000_000_000))
    deriver = Deriver(lake, ingestor, locks, engines={"ray": lambda: RayRunner("")})
    function = msgspec.structs.replace(ReviewText.source.function, engine=engine, batch_rows=20)
    source = derive(reviews, shop.keys, function)
    for seed in range(2):
        ingestor.ingest(reviews, batch(seed, 200), keyings=KEYINGS)
        report = deriver.derive(source, KEYINGS)
    with duck.connect() as con:
        duck.register(con, "derived", lake.scan(source.name))
        query = "SELECT * EXCLUDE (derivation_us, _seq, _batch) FROM derived ORDER BY _seq"
        rows = con.sql(query).to_arrow_table().to_pylist()
    found[engine] = source.name, repr(rows), report.rows, report.failed
strict = msgspec.structs.replace(ReviewText.source.function, engine="ray", on_error="fail")
try:
    deriver.derive(derive(reviews, shop.keys, strict), KEYINGS)
    said = ""
except FunctionFailed as error:
    said = str(error)
print(json.dumps({"same": found[""] == found["ray"], "rows": found["ray"][2], "failed": found["ray"][3], "said": said}))
"""


@deep
@pytest.mark.timeout(900)  # the engine's environment is made first
def test_the_derived_table_is_the_same_on_ray() -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}"}
    done = subprocess.run(
        [str(python_of("ray")), "-c", SCRIPT], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=800,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["same"]
    assert found["rows"] == 200
    assert found["failed"] > 0
    assert "The feature function ReviewText" in found["said"]
