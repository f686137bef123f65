"""`mainspring advise` on a project that is used: facts come from its own stores."""

from __future__ import annotations

from pathlib import Path

from kit.depot import Depot


def test_what_a_trained_project_is_told(depot: Depot) -> None:
    advised = depot.json("advise")
    areas = {each["area"]: each for each in advised["areas"]}
    assert list(areas)[:3] == ["data", "baseline", "gates"]
    assert areas["data"]["state"] == areas["baseline"]["state"] == "in place"
    assert "late-parcel:2" in areas["baseline"]["evidence"]
    assert advised["next"] == next(each for each in advised["areas"] if each["state"] == "next")


def test_a_folder_without_a_project(tmp_path: Path, depot: Depot) -> None:
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (folder / "orders.csv").write_text("id,ordered_at,late\n1,2026-01-01,true\n2,2026-01-02,false\n")
    page = depot.json("advise", "--project", folder)
    assert page["tables"][0]["label"] == "late"
