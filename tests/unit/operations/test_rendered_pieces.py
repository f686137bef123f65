"""Pieces that are files: other tools find them by their endings, and each target has a folder of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kit.console import flights
from mainspring.core.errors import Conflict
from mainspring.core.settings import TargetSetting
from mainspring.deploy.targets.model import Deployment, Piece, Plan, Service
from mainspring.operations.deploying import Prepared, apply, plan, report, write


def test_objects_of_json_have_their_ending(tmp_path: Path) -> None:
    contents = {
        "Service/shop": b'{\n  "kind": "Service"\n}', "File/board.json": b"{}",
        "File/shop.service": b"[Unit]\n", "File/monitoring/shop.yml": b"{}", "Service/shop.v2": b"{}",
    }  # fmt: skip
    pieces = [Piece(id=name, content=content) for name, content in contents.items()]
    written = write(pieces, tmp_path / "out")
    assert [str(each.relative_to(tmp_path)) for each in written] == [
        "out/Service/shop.json", "out/File/board.json", "out/File/shop.service",
        "out/File/monitoring/shop.yml", "out/Service/shop.v2.json",
    ]  # fmt: skip
    assert [each.read_bytes() for each in written] == [each.content for each in pieces]
    with pytest.raises(Conflict, match="not empty"):
        write(pieces, tmp_path / "out")


def test_two_targets_do_not_write_into_one_folder(tmp_path: Path) -> None:
    base = flights.populated("late-arrival")
    named = {
        name: TargetSetting(name=name, kind="systemd", profile=base.settings.profile, memory=1 << 30, options=options)
        for name, options in (("east", {}), ("west", {}), ("north", {"folder": "deploy/north"}))
    }
    settings = replace(base.settings, root=tmp_path, state=tmp_path / ".mainspring", targets=named)
    project = base.having(settings=settings)
    for _ in apply(project, plan(project, "east")):
        pass
    with pytest.raises(Conflict, match=r"'east' was deployed into the folder of 'west'.*targets destroy east"):
        plan(project, "west")
    assert report(project, plan(project, "north")).folder == str(tmp_path / "deploy/north")
    assert not any(each.action != "keep" for each in plan(project, "east").plan.changes)


def test_endpoints_that_lack_their_features_in_an_image_are_noted(tmp_path: Path) -> None:
    base = flights.populated("late-arrival")
    ways = {
        "alone": {}, "told": {"env": {"MAINSPRING_ONLINE": "redis://store:6379/0"}},
        "given": {"secrets": ("MAINSPRING_ONLINE",)}, "whole": {"options": {"contents": "project"}},
    }  # fmt: skip
    named = {
        name: TargetSetting(name=name, kind="image", profile=base.settings.profile, memory=1 << 30, **way)  # type: ignore[arg-type]
        for name, way in ways.items()
    }
    project = base.having(settings=replace(base.settings, root=tmp_path, targets=named))
    noted = {}
    for name in ways:
        made = Deployment(
            project="flights",
            target=name,
            profile="",
            services=(Service(endpoint="late-arrival", model="late-arrival"),),
        )
        prepared = Prepared(project.target(name), made, (), Plan(target=name, changes=()))
        noted[name] = report(project, prepared).notes
    assert [name for name, notes in noted.items() if notes] == ["alone"]
    assert "late-arrival reads OriginTraffic" in noted["alone"][0]
