"""ADWIN and Page-Hinkley against river's: run as a script with river 0.26.1, this writes the golden file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

GOLDEN = Path(__file__).parent / "golden" / "river_detections.json"


def streams() -> dict[str, np.ndarray]:
    found = {}
    for seed in range(4):
        rng = np.random.default_rng(seed)
        found[f"step {seed}"] = (rng.random(6000) < np.where(np.arange(6000) < 3000, 0.1, 0.2)).astype(float)
        found[f"normal {seed}"] = rng.normal(np.where(np.arange(4000) < 2000, 0, 0.7), 1)
        found[f"still {seed}"] = (rng.random(5000) < 0.15).astype(float)
        found[f"down {seed}"] = (rng.random(5000) < np.where(np.arange(5000) < 2500, 0.4, 0.1)).astype(float)
    return found


@pytest.mark.parametrize("name", streams())
def test_detections_are_those_of_river(name: str) -> None:
    from mainspring.stats.change_detection import Adwin, PageHinkley, detections

    values, expected = streams()[name], json.loads(GOLDEN.read_text())[name]
    adwin = Adwin()
    assert detections(adwin, values) == expected["adwin"]
    assert adwin.width == expected["width"]
    assert adwin.mean == pytest.approx(expected["estimation"], abs=1e-9)
    assert detections(PageHinkley(), values) == expected["page_hinkley"]


def test_a_still_stream_is_no_change_and_an_empty_one_nothing() -> None:
    from mainspring.stats.change_detection import Adwin, PageHinkley, detections

    for detector in (Adwin(), PageHinkley()):
        assert detections(detector, np.full(2_000, 0.3)) == []
        assert detections(detector, []) == []
    assert Adwin().mean == 0.0


def write() -> None:
    from river import drift

    golden = {}
    for name, values in streams().items():
        adwin, page_hinkley = drift.ADWIN(), drift.PageHinkley(mode="up")
        found: dict[str, list[int]] = {"adwin": [], "page_hinkley": []}
        for place, value in enumerate(values.tolist()):
            for key, detector in (("adwin", adwin), ("page_hinkley", page_hinkley)):
                detector.update(value)
                if detector.drift_detected:
                    found[key].append(place)
        golden[name] = {**found, "width": adwin.width, "estimation": adwin.estimation}
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(found)}" for name, found in golden.items())
    GOLDEN.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    write()
