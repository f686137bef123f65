"""An instant is one whatever zone it is written in, also beside a library that tells pyarrow to leave zones out."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SHOW = """
from datetime import datetime, timedelta, timezone
import pyarrow as pa
zone = timezone(timedelta(hours=-5))
print(pa.array([datetime(1970, 1, 1, tzinfo=zone)]).cast(pa.int64())[0].as_py() // 3_600_000_000)
"""


@pytest.mark.parametrize(
    "imports",
    ["import mainspring, pandera.pandas", "import pandera.pandas, mainspring", "import pandera.polars, mainspring"],
)
def test_a_zone_counts_beside_pandera(imports: str) -> None:
    without = {name: value for name, value in os.environ.items() if name != "PYARROW_IGNORE_TIMEZONE"}
    done = subprocess.run(
        [sys.executable, "-c", imports + SHOW], env=without, capture_output=True, text=True, check=True
    )
    assert done.stdout == "5\n"
