"""A plan of a training as a terminal shows it."""

from __future__ import annotations

import math
from functools import cache
from io import StringIO

import pytest
from msgspec.structs import replace
from rich.console import Console

from mainspring.cli.training_plan_view import show_plan
from mainspring.core.errors import Invalid
from mainspring.operations.training_plan import plan_described, topology_of
from mainspring.training.planning.plan import TrainingPlan


@cache
def planned(gpus: str, model: str = "llama-2-7b", host_gib: float | None = None) -> TrainingPlan:
    topology = topology_of(gpus, None, host_gib)
    return plan_described(model, topology, batch=256, sequence=None, precision="amp", optimiser="adamw")


def shown(found: TrainingPlan, width: int) -> list[str]:
    console = Console(file=StringIO(), width=width, highlight=False)
    show_plan(console, found)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize("gpus", ["8xH100", "4xT4", "2x8xA100-80"])
def test_no_line_is_wider_than_a_terminal_and_none_is_cut(gpus: str, width: int) -> None:
    found = planned(gpus, host_gib=192)
    lines = shown(found, width)
    code = f"Train with {found.chosen.layout}"
    table = next(at for at, line in enumerate(lines) if line.startswith("memory of the fullest"))
    for at, line in enumerate(lines):
        assert len(line) <= (width if at < table else 80) or line.startswith(code), line
    whole = " ".join(" ".join(lines).split())
    for each in found.layouts:
        assert f"{each.said}: {'; '.join(each.why)}" in whole
        assert f"{each.memory.total / 1e9:.1f} of" in whole
    assert all(line in whole for line in (*found.assumptions, *found.helps, code if found.chosen.fits else ""))
    assert not [line for line in lines if line.strip() in ("GB", "MB")]
    assert not [line for line in lines if line.endswith(" GB,") and line.strip() == "GB,"]


def test_layouts_are_a_table_at_eighty_columns() -> None:
    lines = shown(planned("8xH100", host_gib=192), 80)
    assert lines[4].split() == ["layout", "parts", "x", "rows", "memory", "step", "rows/s"]
    assert "e+" not in " ".join(lines)


def test_main_memory_that_is_no_number_is_refused() -> None:
    with pytest.raises(Invalid, match=r"--host-gib is nan\..*--host-gib 512"):
        planned("8xH100", host_gib=math.nan)


def test_small_devices_have_both_numbers_in_one_unit() -> None:
    topology = topology_of("T4", None)
    assert topology is not None
    small = replace(topology, device=replace(topology.device, memory_mib=512))
    found = plan_described("gpt2", small, batch=8, sequence=64, precision="fp32", optimiser="adamw")
    total, limit = found.layouts[0].memory.total / 1e6, found.layouts[0].memory.limit / 1e6
    assert f"{total:.1f} of {limit:.1f} MB" in " ".join(shown(found, 120))
