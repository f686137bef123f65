"""The devices of a process, from described machines: whole GPUs, MIG instances, MPS, and several processes."""

from __future__ import annotations

import tomllib
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mainspring.core.cards import Card
from mainspring.core.errors import Invalid
from mainspring.serving.devices.choosing import Mps, Place, check_declared, choose, mps_of
from mainspring.serving.devices.device import CUDA, KINDS, OPENVINO, PROVIDERS, TENSORRT, Device, lacks_memory, opening
from mainspring.serving.model import Endpoint

GB = 1 << 30
FOUR = "".join(
    f'[[cards]]\nnumber = {n}\nuuid = "GPU-{n}{n}{n}{n}-aa"\nname = "NVIDIA T4"\nmemory = {16 * GB}\n' for n in range(4)
)
MIXED = f"""
[[cards]]
number = 0
uuid = "GPU-0000-aa"
name = "NVIDIA A100-SXM4-80GB"
memory = {80 * GB}
mig = true
instances = [
    {{ uuid = "MIG-aaaa-1", memory = {40 * GB}, name = "NVIDIA A100-SXM4-80GB MIG 3g.40gb" }},
    {{ uuid = "MIG-bbbb-2", memory = {20 * GB}, name = "NVIDIA A100-SXM4-80GB MIG 2g.20gb" }},
]

[[cards]]
number = 1
uuid = "GPU-1111-aa"
name = "NVIDIA L4"
memory = {24 * GB}
"""
EMPTY = f'[[cards]]\nnumber = 0\nuuid = "GPU-0000-aa"\nname = "NVIDIA H100"\nmemory = {80 * GB}\nmig = true\n'


def described(text: str, **changes: Any) -> list[Card]:
    return [msgspec.convert({**each, **changes}, Card) for each in tomllib.loads(text)["cards"]]


def chosen(text: str, *declared: str, slot: int = 0, slots: int = 1, **told: Any) -> list[tuple[str, int, int]]:
    """Return name, gigabytes and ordinal of each device of a process."""
    environment = told.pop("environment", {})
    cards = told.pop("cards", None) or described(text)
    found = choose(cards, declared, environment, Place(slot, slots), **told)
    return [(each.name, round(each.memory / GB, 1), each.ordinal) for each in found]


def test_one_process_has_all_gpus_and_several_divide_them() -> None:
    assert chosen(FOUR) == [("cuda:0", 14.4, 0), ("cuda:1", 14.4, 1), ("cuda:2", 14.4, 2), ("cuda:3", 14.4, 3)]
    assert [chosen(FOUR, slot=slot, slots=2) for slot in range(2)] == [
        [("cuda:0", 14.4, 0), ("cuda:2", 14.4, 1)], [("cuda:1", 14.4, 0), ("cuda:3", 14.4, 1)],
    ]  # fmt: skip
    assert [chosen(FOUR, "cuda:1", "GPU-3333", slot=slot, slots=3) for slot in range(3)] == [
        [("cuda:1", 7.2, 0)], [("cuda:3", 14.4, 0)], [("cuda:1", 7.2, 0)],
    ]  # fmt: skip
    assert chosen(FOUR, "none") == []
    assert chosen("cards = []") == []


def test_no_byte_is_given_twice_and_each_device_has_a_process() -> None:
    for count, slots in product(range(1, 5), range(1, 9)):
        declared = [f"cuda:{each}" for each in range(count)]
        cards = described(FOUR)
        own = [choose(cards, declared, {}, Place(slot, slots), bound=10 * GB) for slot in range(slots)]
        assert all(own)
        for name in declared:
            shares = [each.memory for found in own for each in found if each.name == name]
            assert shares
            assert 10 * GB - len(shares) < sum(shares) <= 10 * GB
            assert {each.shared_by for found in own for each in found if each.name == name} == {len(shares)}


def test_a_mig_instance_is_a_device_with_memory_of_its_own_and_a_process_sees_one() -> None:
    two = [chosen(MIXED, "cuda:0", slot=slot, slots=2) for slot in range(2)]
    assert two == [[("cuda:0/mig:0", 36.0, 0)], [("cuda:0/mig:1", 18.0, 0)]]
    assert chosen(MIXED, "cuda:0/mig:1") == chosen(MIXED, "MIG-bbbb-2") == [("cuda:0/mig:1", 18.0, 0)]
    with pytest.raises(Invalid, match=r"one MIG instance alone, and 3 .*gateway_workers = 3"):
        chosen(MIXED)
    with pytest.raises(Invalid, match=r"GPU 0 has MIG enabled and no instance.*-cgi 0 -C.*-mig 0"):
        chosen(EMPTY)
    with pytest.raises(Invalid, match="MIG enabled and no instance"):
        chosen(EMPTY, "GPU-0000-aa")


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        ("0", ["cuda:0/mig:0"]),
        ("MIG-bbbb", ["cuda:0/mig:1"]),
        ("GPU-1111-aa", ["cuda:1"]),
        ("1,7,0", ["cuda:1"]),  # what stands after an unknown one is not read
        ("7,1", []),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("MIG-", []),  # of several
    ],
)
def test_hidden_devices_are_left_alone(visible: str, found: list[str]) -> None:
    environment = {"CUDA_VISIBLE_DEVICES": visible, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert [name for name, _, _ in chosen(MIXED, environment=environment)] == found
    if "cuda:1" not in found:
        with pytest.raises(Invalid, match=r"cuda:1 is hidden by CUDA_VISIBLE_DEVICES="):
            chosen(MIXED, "cuda:1", environment=environment)


def test_numbers_of_unlike_gpus_stand_for_nothing_without_an_order() -> None:
    with pytest.raises(Invalid, match="by their speed, and they differ"):
        chosen(MIXED, environment={"CUDA_VISIBLE_DEVICES": "1"})
    assert chosen(FOUR, environment={"CUDA_VISIBLE_DEVICES": "2"}) == [("cuda:2", 14.4, 0)]


def test_compute_modes_are_kept() -> None:
    exclusive = described(FOUR, mode="exclusive")
    assert chosen("", slot=1, slots=4, cards=exclusive) == [("cuda:1", 14.4, 0)]
    with pytest.raises(Invalid, match=r"one process at a time .*and 2 serve"):
        chosen("", slot=1, slots=8, cards=exclusive)
    assert chosen("", slot=1, slots=8, cards=exclusive, mps=Mps()) == [("cuda:1", 7.2, 0)]
    with pytest.raises(Invalid, match="lets no process compute"):
        chosen("", cards=described(FOUR, mode="prohibited"))


def test_limits_of_mps_hold(tmp_path: Path) -> None:
    environment = {
        "CUDA_MPS_PIPE_DIRECTORY": str(tmp_path), "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "25.5",
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "0=4G,GPU-1111-aa=512MB",
    }  # fmt: skip
    assert mps_of(environment) is None  # its daemon does not run
    (tmp_path / "control").touch()
    mps = mps_of(environment)
    assert mps == Mps(25.5, {"0": 4 * GB, "GPU-1111-aa": GB // 2})
    assert [memory for _, memory, _ in chosen(FOUR, mps=mps)] == [3.6, 0.4, 14.4, 14.4]
    for name, value in (
        ("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "much"), ("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", "0=4"),
    ):  # fmt: skip
        with pytest.raises(Invalid, match=f"{name} .*{value}"):
            mps_of({**environment, name: value})


def test_a_bound_of_the_profile_holds_for_all_processes_together() -> None:
    assert chosen(FOUR, "cuda:0", slot=1, slots=2, bound=8 * GB) == [("cuda:0", 4.0, 0)]
    assert chosen(FOUR, "cuda:0", bound=99 * GB) == [("cuda:0", 16.0, 0)]


@pytest.mark.parametrize("wrong", [["gpu"], ["cuda"], ["all", "cuda:0"], ["cuda:0", "none"], ["../x"], ["0"], [""]])
def test_wrong_devices_are_named(wrong: list[str]) -> None:
    with pytest.raises(Invalid, match="gateway_devices"):
        check_declared(wrong)


def test_right_devices_pass_and_those_that_are_not_there_are_named() -> None:
    check_declared(["cuda:0", "cuda:1/mig:0", "GPU-8f2e1c00-aaaa", "MIG-8f2e1c00-aaaa"])
    for each in ([], ["all"], ["none"]):
        check_declared(each)
    with pytest.raises(Invalid, match=r"no device cuda:7; this machine has cuda:0 \(NVIDIA T4\), cuda:1"):
        chosen(FOUR, "cuda:7")


def test_options_bound_the_memory_and_keep_the_numbers() -> None:
    device = Device("cuda:2", "GPU-2", "NVIDIA T4", ordinal=1, memory=14 * GB)
    ((name, options),) = opening(CUDA, device, 3 * GB, 256).providers
    assert name == "CUDAExecutionProvider"
    assert options["device_id"] == "1"
    assert options["gpu_mem_limit"] == str(3 * GB)
    assert options["arena_extend_strategy"] == "kSameAsRequested"
    assert options["use_tf32"] == "0"
    assert [name for name, _ in opening(TENSORRT, device).providers] == [*PROVIDERS[TENSORRT]]
    assert opening(TENSORRT, device).providers[1][1]["gpu_mem_limit"] == str(14 * GB)
    assert opening(OPENVINO).providers == [("OpenVINOExecutionProvider", {"device_type": "CPU", "num_of_threads": "1"})]


def test_an_endpoint_asks_for_a_kind_of_device() -> None:
    for kind in KINDS:
        assert Endpoint(f"e-{kind}", model="m@1", device=kind).device == kind
    with pytest.raises(Invalid, match=r"device='cuda:1'.*`devices` of the profile"):
        Endpoint("e", model="m@1", device="cuda:1")


@pytest.mark.parametrize(
    "said",
    [
        "Failed to allocate memory for requested buffer of size 1024",
        "Available memory of 10 is smaller than requested bytes of 20",
        "CUDA failure 2: out of memory",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED",
        "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "std::bad_alloc",
        "Requested amount of GPU memory (1024 bytes) could not be allocated",
        "OutOfMemory (no further information)",
        "Unable to allocate 2.3 GiB",
    ],
)
def test_a_lack_of_memory_is_known_by_its_words(said: str) -> None:
    assert lacks_memory(f"The model of m does not load on cuda: {said}")


@pytest.mark.parametrize("said", ["invalid graph", "no kernel for Allocator(1)", "CUDNN_STATUS_NOT_SUPPORTED"])
def test_a_model_is_not_taken_for_too_large_by_its_name(said: str) -> None:
    assert not lacks_memory(f"The model of capital-allocation does not load on cuda: {said}")
