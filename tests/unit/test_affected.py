"""What `make quick` runs is what a change can break."""

from __future__ import annotations

import pytest

from kit.affected import ROOT, affected


@pytest.mark.parametrize(
    ("changed", "test", "other"),
    [
        ("src/mainspring/stats/intervals.py", "stats/test_intervals.py", "console/test_guard.py"),
        ("src/mainspring/core/locks.py", "core/test_locks.py", "stats/test_intervals.py"),
        # Through two that no test imports.
        ("src/mainspring/console/endpoints/series.py", "operations/test_status.py", "stats/test_intervals.py"),
        # By one that imports it, of which the test knows alone; by a name of `mainspring`; by what tests share.
        ("src/mainspring/features/tilelog/rows.py", "features/test_materialise.py", "stats/test_intervals.py"),
        ("src/mainspring/features/declaring.py", "features/test_tilelog.py", "stats/test_intervals.py"),
        ("tests/kit/station.py", "features/test_tilelog.py", "stats/test_intervals.py"),
        ("tests/unit/console/conftest.py", "console/test_guard.py", "features/test_tilelog.py"),
        # Beside the package.
        (
            "oip-conformance/src/oip_conformance/check.py",
            "oip_conformance/test_grpc_messages.py",
            "bench/test_turns.py",
        ),
        ("bench/report.py", "bench/test_keyed.py", "oip_conformance/test_tensors.py"),
        ("tests/unit/stats/test_intervals.py", "stats/test_intervals.py", "console/test_guard.py"),
    ],
)
def test_a_change_reaches_who_imports_it_and_no_others(changed: str, test: str, other: str) -> None:
    found = affected([ROOT / changed])
    assert ROOT / "tests" / "unit" / test in found
    assert ROOT / "tests" / "unit" / other not in found
