"""What `status` and `doctor` say of devices: of this machine without a GPU, and of described ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kit.console.flights import Project, declared, populated
from kit.slots import answering
from mainspring.core.cards import Card, MigInstance
from mainspring.core.errors import Invalid
from mainspring.operations.device_checks import DeviceStatus, check_devices, check_provider, device_statuses
from mainspring.operations.doctor import examine
from mainspring.operations.promote import promote
from mainspring.operations.scaling import live
from mainspring.registry.bundles import seal
from mainspring.registry.providers import with_provider
from mainspring.serving.model import Endpoint
from mainspring.serving.plane.metrics import Metrics

GB = 1 << 30
T4S = [Card(number=n, uuid=f"GPU-{n}aaa", name="NVIDIA T4", memory=16 * GB) for n in range(3)]
BOTH = ["CUDAExecutionProvider", "CPUExecutionProvider"]


def project_of(state: Path = Path("/nowhere/state"), **devices: str) -> Project:
    """Return a project whose endpoints ask for these devices."""
    made = Project(
        definitions=declared(
            endpoints={
                name: Endpoint(name.replace("_", "-"), model="m@champion", device=device)
                for name, device in devices.items()
            }
        )
    )
    made.settings = replace(made.settings, state=state)
    return made


def said(project: Project, cards: Any = T4S, providers: Any = BOTH, **environment: str) -> list[tuple[bool, str, str]]:
    found = check_devices(project, lambda: cards, lambda: environment, lambda: providers)
    return [(each.ok, each.detail, each.fix) for each in found]


def test_nothing_is_said_where_nobody_asks() -> None:
    assert said(project_of(plain="cpu")) == []


def test_the_gpus_of_the_gateway_are_named_with_their_memory() -> None:
    project = project_of(scores="cuda")
    project.settings = replace(project.settings, gateway_devices=("cuda:0", "cuda:2"), gateway_workers=3)
    assert said(project) == [
        (True, "cuda:0 (NVIDIA T4) has 7,730,941,132 bytes for the models of 2 processes", ""),
        (True, "cuda:2 (NVIDIA T4) has 15,461,882,265 bytes for the models of a process", ""),
        (True, "not used by the gateway: cuda:1", ""),
    ]


def test_each_obstacle_is_named_with_its_fix(tmp_path: Path) -> None:
    project = project_of(scores="cuda", guesses="auto")
    ((ok, detail, fix),) = said(project, ())
    assert (ok, detail) == (
        False, "This machine has no NVIDIA GPU, or not its driver. Endpoints that ask for one: scores",
    )  # fmt: skip
    assert "nvidia-smi" in fix
    assert said(project_of(guesses="auto"), ())[0][0]  # which may run on the processor
    ((ok, detail, fix), *_) = said(project, providers=["CPUExecutionProvider"])
    assert (ok, fix) == (False, "install onnxruntime-gpu in place of onnxruntime")
    assert "no CUDAExecutionProvider" in detail
    mig = [Card(number=0, uuid="GPU-0aaa", name="NVIDIA H100", memory=80 * GB, mig=True)]
    ((ok, detail, fix),) = said(project, mig)
    assert (ok, "-mig 0" in fix) == (False, True)
    assert "GPU 0 has MIG enabled and no instance" in detail
    assert said(project, CUDA_VISIBLE_DEVICES="-1")[0][1].startswith("CUDA_VISIBLE_DEVICES hides all 3 GPUs.")
    project.settings = replace(project.settings, gateway_devices=("cuda:7",))
    assert "no device cuda:7" in said(project)[0][1]
    project.settings = replace(project.settings, gateway_devices=("none",))
    assert "The profile 'local' has no devices." in said(project)[0][1]


def test_mig_instances_and_mps_are_shown(tmp_path: Path) -> None:
    parts = tuple(MigInstance(uuid=f"MIG-{n}aaa", memory=40 * GB, name="H100 MIG 3g.40gb") for n in range(2))
    mig = [Card(number=0, uuid="GPU-0aaa", name="NVIDIA H100", memory=80 * GB, mig=True, instances=parts)]
    project = project_of(scores="cuda")
    project.settings = replace(project.settings, gateway_workers=2)
    (tmp_path / "control").touch()
    told = said(project, mig, CUDA_MPS_PIPE_DIRECTORY=str(tmp_path), CUDA_MPS_ACTIVE_THREAD_PERCENTAGE="40")
    assert [detail for _, detail, _ in told] == [
        "processes share GPUs through MPS, which gives a process 40 % of a GPU",
        "cuda:0/mig:0 (H100 MIG 3g.40gb) has 38,654,705,664 bytes for the models of a process",
        "cuda:0/mig:1 (H100 MIG 3g.40gb) has 38,654,705,664 bytes for the models of a process",
    ]


class Runs:
    """The part of a runtime that metrics read."""

    def __init__(self, device: str, runs_on: str, fallback: str = "", nodes: dict[str, int] | None = None) -> None:
        self.device, self.runs_on, self.fallback, self.nodes = device, runs_on, fallback, nodes


def statuses(project: Project) -> list[DeviceStatus]:
    return device_statuses(project, "scores", live(project).texts)


def exposition(refused: str = "", **runs: Runs) -> bytes:
    found: Any = {("scores", version): each for version, each in runs.items()}
    reasons = {"scores": refused} if refused else {}
    made = Metrics(ready=bool, served=dict, waiting=dict, refused=lambda: reasons, runtimes=lambda: found)
    return made.text()


def test_endpoints_say_what_they_run_on_and_why(tmp_path: Path) -> None:
    project = project_of(tmp_path, scores="auto")
    nodes = {"CUDAExecutionProvider": 30, "CPUExecutionProvider": 2}
    reason = 'The model\'s "Loop" \\ stays.'
    one = exposition(a=Runs("auto", "cuda:0", nodes=nodes), b=Runs("auto", "cpu", reason))
    two = exposition(a=Runs("auto", "cuda:1", nodes=nodes), b=Runs("auto", "cpu", reason))
    with answering(tmp_path, lambda: one), answering(tmp_path, lambda: two, slot=1):
        found = statuses(project)
        assert [each.detail for each in examine(project, only="devices") if each.ok][-3:] == [
            "endpoint scores: version a runs on cuda:0, 2 of 32 operators on the processor",
            "endpoint scores: version a runs on cuda:1, 2 of 32 operators on the processor",
            f"endpoint scores: version b runs on the processor: {reason}",
        ]
    told: dict[str, Any] = {"asked": "auto", "operators": 32, "on_processor": 2, "processes": 1}
    assert found == [
        DeviceStatus(version="a", device="cuda:0", **told),
        DeviceStatus(version="a", device="cuda:1", **told),
        DeviceStatus(version="b", asked="auto", device="cpu", reason=reason, processes=2),
    ]
    with answering(tmp_path, lambda: exposition("It is refused.", a=Runs("cpu", "cpu"), b=Runs("cpu", "cuda:0"))):
        (sealed,) = statuses(project_of(tmp_path, scores="cpu"))  # a version that was made for a GPU
    assert (sealed.said(), sealed.asked) == ("version b runs on cuda:0", "cpu")
    with answering(tmp_path, lambda: exposition("Version 2 is not served: no GPU.", a=Runs("cuda", "cuda:0"))):
        refused, serves = statuses(project_of(tmp_path, scores="cuda"))
    assert (refused.said(), refused.asked) == ("Version 2 is not served: no GPU.", "cuda")
    assert serves.said() == "version a runs on cuda:0"


def test_no_version_is_promoted_where_its_provider_is_not() -> None:
    project = populated()
    bundle = project.bundles.load(project.versions.get("late-arrival", "2").digest)
    sealed = with_provider(bundle, "TensorrtExecutionProvider")
    made = seal(sealed.manifest, sealed.files, project.signing_key)
    project.bundles.save(made)
    version = project.versions.register("late-arrival", made.digest, "run", {}, 1)
    said = (
        rf"Version {version.version} of 'late-arrival' is sealed for TensorrtExecutionProvider, and ONNX Runtime has "
    )
    with pytest.raises(Invalid, match=said) as refused:
        promote(project, "late-arrival", version.version)
    assert refused.value.fix == (
        "do this on a machine that has it, or install onnxruntime-gpu and TensorRT in place of onnxruntime."
    )
    assert project.versions.get("late-arrival", "champion").digest != made.digest
    check_provider(project, version, [])  # no endpoint would serve it
    assert promote(project, "late-arrival", "1").version == "1"
