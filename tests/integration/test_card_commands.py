"""`mainspring models card` on a trained project, and a promotion that asks for a complete one; each a process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kit.depot import MODEL, Depot

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

WORDS = "\n".join(f"## {name}\nSaid.\n" for name in ("Intended use", "Limits", "Ethical considerations", "Contact"))


def test_a_promotion_waits_for_what_people_have_to_say(depot: Depot, tmp_path: Path) -> None:
    source = depot.root / "parcels" / "model.py"
    source.write_text(source.read_text().replace('gates=[ms.beats("auc", by=0.01)]', "gates=[ms.complete_card()]"))

    found = depot.json("models", "card", f"{MODEL}:2")
    assert (found["version"], found["complete"]) == ("2", False)
    assert found["performance"]["metrics"]
    weights = {each["column"]: each for each in found["attention"]["importances"]}
    assert "Parcel.weight" in weights
    assert weights["Parcel.weight"]["contribution"]["value"] > 0
    assert weights["Parcel.weight"]["permutation"]["low"] < weights["Parcel.weight"]["permutation"]["high"]
    assert found["resources"]["seconds"] > 0
    assert found["resources"]["energy_method"]
    assert {gap["section"] for gap in found["gaps"] if gap["required"]} == {"In the words of its makers"}

    refused = depot.run("promote", MODEL, "2")
    assert refused.code == 3
    assert "Intended use has not been written yet" in refused.stdout

    (depot.root / "cards").mkdir()
    (depot.root / "cards" / f"{MODEL}.md").write_text(WORDS)
    assert depot.run("promote", MODEL, "2").code == 0

    priced = {"MAINSPRING_TRAINING_PRICE": "2 EUR"}
    for kind, begin in (("md", "# Model card: late-parcel, version 2 (champion)"), ("html", "<!doctype html>")):
        file = tmp_path / f"card.{kind}"
        told = depot.run("models", "card", MODEL, "--format", kind, "--output", file, environment=priced)
        assert (told.code, told.stderr) == (0, "")
        assert file.read_text().startswith(begin)
        assert "2 EUR an hour" in file.read_text()
        assert "error without it" in file.read_text()
        assert "Moves: the mean absolute contribution, in the log-odds" in file.read_text()
    assert json.loads(depot.run("models", "card", MODEL, "--format", "json").stdout)["complete"]

    bill = tmp_path / "late.cdx.json"
    assert depot.run("sbom", MODEL, "--output", bill).code == 0
    found = depot.json("sbom", MODEL)
    assert json.loads(bill.read_text()) == found
    kinds = {each["type"] for each in found["components"]}
    assert kinds == {"file", "data", "library"}
    assert found["metadata"]["component"]["modelCard"]["considerations"]["useCases"] == ["Said."]


def test_what_cannot_be_a_card_is_said(depot: Depot, tmp_path: Path) -> None:
    assert depot.run("models", "card", f"{MODEL}:9").code == 4
    nowhere = depot.run("models", "card", MODEL, "--output", tmp_path / "nowhere" / "card.md")
    assert nowhere.code == 4
    words = depot.root / "cards" / f"{MODEL}.md"
    words.parent.mkdir()
    words.write_bytes(b"\xff\xfe")
    unreadable = depot.run("models", "card", MODEL)
    assert unreadable.code == 2
    assert f"cards/{MODEL}.md is not UTF-8" in unreadable.stderr
