"""Models on devices, by the runtime that is here: its provider is the processor's, whose memory is bound likewise."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.models import MLP_SPECS, function_bundle, identity_bundle, mlp_bundle, sealed
from kit.serving import KEY
from kit.serving import bundle as columns_bundle
from kit.tensors import counted
from mainspring.core.cards import Use
from mainspring.core.errors import Corrupt, TooLarge, Unavailable
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.operations.models.golden_rows import make_golden
from mainspring.registry.model import Bundle, TensorSpec
from mainspring.serving.adapters.device_models import DeviceModels
from mainspring.serving.adapters.onnx import OnnxExecutor
from mainspring.serving.adapters.residency_files import FileSizes
from mainspring.serving.adapters.sessions import Session, open_on
from mainspring.serving.devices.device import CPU, CUDA, OPENVINO, TENSORRT, Device, DeviceUnusable, Opening, opening
from mainspring.serving.plane.placement import ROWS, Devices, Placement
from mainspring.serving.ports import Executor
from mainspring.serving.residency.memory import Memory, MemorySizes, Size, Sizes, What
from mainspring.serving.residency.residency import Residency

HERE = [("CPUExecutionProvider", {})]
MB = 1_000_000
MLP, RNG = mlp_bundle(), np.random.default_rng(7)


def on_processor(rows: int = 64) -> Opening:
    return Opening(CUDA, HERE, rows=rows)


def session_of(executor: OnnxExecutor) -> Session:
    assert isinstance(executor._session, Session)
    return executor._session


# Bound memory


@cache
def sessions() -> tuple[OnnxExecutor, OnnxExecutor]:
    return OnnxExecutor(MLP, on=on_processor()), OnnxExecutor(MLP)


@given(rows=st.lists(st.integers(1, 150), min_size=1, max_size=6), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_calls_through_bound_memory_have_the_bits_of_others(rows: list[int], seed: int) -> None:
    bound, free = sessions()
    assert session_of(bound).bindings is not None
    kept = []
    for count in rows:  # one after the other, by the same buffers
        x = np.random.default_rng((seed, count)).normal(size=(count, 4)).astype(np.float32)
        parts = [x[at : at + 64] for at in range(0, count, 64)]
        expected = np.concatenate([free.predict({"x": part}, len(part))["y"] for part in parts])
        kept.append((bound.predict({"x": x}, count)["y"], expected))
    for found, expected in kept:  # an answer is the caller's: later calls leave it alone
        assert found.tobytes() == expected.tobytes()


def test_threads_share_a_session_and_none_sees_the_rows_of_another() -> None:
    bound, free = OnnxExecutor(MLP, on=on_processor()), OnnxExecutor(MLP)
    begin = threading.Barrier(4)

    def ask(seed: int) -> None:
        begin.wait()
        for count in np.random.default_rng(seed).integers(1, 64, 60).tolist():
            x = np.full((count, 4), float(seed), np.float32)
            assert np.array_equal(bound.predict({"x": x}, count)["y"], free.predict({"x": x}, count)["y"])

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(ask, range(4)))


def test_models_whose_sizes_do_not_follow_from_the_rows_are_called_as_ever() -> None:
    for made in (identity_bundle("BYTES"), mlp_bundle(batch=1)):
        assert session_of(OnnxExecutor(made, on=on_processor())).bindings is None
    executor = OnnxExecutor(mlp_bundle(batch=1), on=on_processor())
    x = RNG.normal(size=(3, 4)).astype(np.float32)
    assert np.array_equal(
        executor.predict({"x": x}, 3)["y"], OnnxExecutor(mlp_bundle(batch=1)).predict({"x": x}, 3)["y"]
    )


def test_columns_are_bound_too() -> None:
    inputs = {
        "Carrier.flights_1h": [1, 2], "Carrier.delay_1h": [None, 0.5], "Schedule.thousands": [0.5, 2.0],
        "Schedule.hour": [3, 23],
    }  # fmt: skip
    bound, free = OnnxExecutor(columns_bundle(), on=on_processor()), OnnxExecutor(columns_bundle())
    for name, values in free.predict(inputs, 2).items():
        assert np.array_equal(bound.predict(inputs, 2)[name], values)


@cache
def served(seed: int = 0, provider: str = "") -> Bundle:
    made = mlp_bundle(seed)
    files = {**made.files, "golden.json": msgspec.json.encode(make_golden(OnnxExecutor(made)))}
    return sealed("onnx", files, **MLP_SPECS, extra={"provider": provider} if provider else {})


# What is said in place of a silent fallback


def test_a_missing_provider_is_refused_with_the_package() -> None:
    with pytest.raises(DeviceUnusable, match=r"no CUDAExecutionProvider.*onnxruntime-gpu"):
        OnnxExecutor(MLP, on=opening(CUDA, Device("cuda:0", "GPU-0", "T4", 0, 9 * MB)))
    with pytest.raises(DeviceUnusable, match=r"no OpenVINOExecutionProvider.*onnxruntime-openvino"):
        OnnxExecutor(MLP, on=opening(OPENVINO))


def test_a_provider_that_takes_no_operator_is_refused() -> None:
    """The runtime has one more provider, which takes none of these: it would have left all to the processor."""
    assert "AzureExecutionProvider" in ort.get_available_providers()
    session = ort.InferenceSession(MLP.files["model.onnx"], providers=["AzureExecutionProvider"])
    assert session.get_providers()[0] == "AzureExecutionProvider"  # nothing is said
    with pytest.raises(DeviceUnusable, match=r"no operator .*all 3 are left to the processor"):
        OnnxExecutor(MLP, on=Opening(CUDA, [("AzureExecutionProvider", {})]))
    executor = OnnxExecutor(MLP, on=Opening(CUDA, [("AzureExecutionProvider", {}), *HERE]))
    assert executor.nodes == {"CPUExecutionProvider": 3}
    # A call that fails is not computed again on the processor behind the caller's back.
    assert session_of(executor).raw._enable_fallback is False


def test_models_apart_and_of_other_frameworks_stay_on_the_processor() -> None:
    with pytest.raises(DeviceUnusable, match="whose cost the values of a request decide"):
        OnnxExecutor(counted(KEY), on=on_processor())
    other = function_bundle("m:f", "0" * 64, [TensorSpec("x", "FP32", (-1,))], [TensorSpec("y", "FP32", (-1,))])
    with pytest.raises(DeviceUnusable, match="is of function, which runs on the processor alone"):
        DeviceModels().make(other, on_processor())
    with pytest.raises(DeviceUnusable, match="does not load"):
        open_on(b"no model", "bundle", on_processor())


# Placement

PLACE = "cuda on T4, onnxruntime test"


def size_of(nbytes: int) -> Size:
    return Size(nbytes=nbytes, load_s=0.0, at=1, sure=True, rows=ROWS)


@dataclass
class Machine:
    """Devices in this process: models take what `takes` says of a device, as its driver would tell."""

    memory: dict[str, int]
    takes: dict[str, int] = field(default_factory=dict)  # digest -> bytes with a full batch
    context: int = 0
    others: int = 0  # bytes of other programs on each
    broken: set[str] = field(default_factory=set)  # digests, and names of devices
    own: str = "of this process"  # whose memory the driver tells

    def __post_init__(self) -> None:
        self.models = DeviceModels()
        self.used = dict.fromkeys(self.memory, 0)
        self.most = dict.fromkeys(self.memory, 0)
        self.openings: list[tuple[str, Opening]] = []
        self.runtime = "onnxruntime test"

    def begin(self, opening: Opening) -> None:
        assert opening.device is not None
        if opening.device.name in self.broken:
            raise DeviceUnusable(f"{opening.device.name} is broken.")
        self.models.begin(replace(opening, providers=HERE))
        self.used[opening.device.uuid] += self.context

    def make(self, bundle: Bundle, opening: Opening) -> Executor:
        self.openings.append((bundle.digest, opening))
        if bundle.digest in self.broken:
            raise Corrupt("It is broken.")
        made = self.models.make(bundle, replace(opening, providers=HERE))
        return made if opening.device is None else Taking(made, self, bundle.digest, opening, opening.device.uuid)

    def take(self, uuid: str, nbytes: int) -> None:
        self.used[uuid] += nbytes
        self.most[uuid] = max(self.most[uuid], self.used[uuid])

    def use(self, uuid: str) -> Use:
        total = self.memory[uuid] * 10 // 9
        own = {"of this process": self.used[uuid], "not told": None, "of another process": self.others}[self.own]
        return Use(own=own, free=total - self.used[uuid] - self.others, total=total)

    def devices(self, sizes: Sizes | None = None) -> Devices:
        found = [Device(f"cuda:{n}", uuid, "T4", n, memory) for n, (uuid, memory) in enumerate(self.memory.items())]
        return Devices(lambda: self, lambda: found, self.use, sizes or MemorySizes())


class Taking:
    """An executor whose arena grows with the first large batch, up to the limit of its session."""

    def __init__(self, made: Executor, machine: Machine, digest: str, opening: Opening, uuid: str) -> None:
        self._made, self._machine, self._opening, self._uuid = made, machine, opening, uuid
        self._full, self._taken = machine.takes[digest], 0
        self.inputs, self.outputs, self.inline, self.nullable = made.inputs, made.outputs, made.inline, made.nullable
        self.nodes = getattr(made, "nodes", None)

    def predict(self, inputs: Any, rows: int) -> dict[str, Any]:
        from mainspring.serving.plane.executor import ModelFailed

        needs = self._full * min(rows, self._opening.rows) // self._opening.rows * self._opening.rows // ROWS
        if needs > self._opening.memory:
            raise ModelFailed("Failed to allocate memory")
        if needs > self._taken:
            self._machine.take(self._uuid, needs - self._taken)
            self._taken = needs
        return self._made.predict(inputs, rows)

    def close(self) -> None:
        self._machine.take(self._uuid, -self._taken)
        self._taken = 0
        self._made.close()


class Shop:
    """A placement over bundles of the same model with other weights."""

    def __init__(self, machine: Machine, sizes: Sizes | None = None, provider: str = "") -> None:
        self.made = [served(seed, provider) for seed in range(4)]
        bundles = {each.digest: each for each in self.made}
        machine.takes = {each.digest: 10 * MB for each in self.made} | machine.takes

        class Kept:
            def load(self, digest: str) -> Bundle:
                return bundles[digest]

        host = Residency(Memory(), lambda digest: OnnxExecutor(bundles[digest]))
        kept: Any = Kept()
        self.placement = Placement(host, OnnxExecutor, kept, MemoryOnlineStore(), machine.devices(sizes))

    def load(self, place: int, device: str = CUDA) -> Any:
        return self.placement.load(self.made[place].digest, device)

    def used(self) -> dict[str, int]:
        return {name: residency.used for name, (_, residency) in self.placement.residencies.items()}


@pytest.fixture
def shops() -> Iterator[list[Shop]]:
    made: list[Shop] = []
    yield made
    for each in made:
        each.placement.stop()


def answers(made: Any, place: int) -> bool:
    x = RNG.normal(size=(5, 4)).astype(np.float32)
    expected = OnnxExecutor(mlp_bundle(place)).predict({"x": x}, 5)["y"]
    return bool(np.array_equal(made.executor.predict({"x": x}, 5)["y"], expected))


def test_models_are_measured_and_spread_over_the_gpus(shops: list[Shop]) -> None:
    machine = Machine({"a": 30 * MB, "b": 30 * MB}, context=2 * MB)
    shops.append(shop := Shop(machine))
    loaded = [shop.load(place) for place in range(4)]
    assert [each.runs_on for each in loaded] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert all(answers(each, place) for place, each in enumerate(loaded))
    assert shop.used() == {"cuda:0": 22 * MB, "cuda:1": 22 * MB}
    assert {name: each.budget for name, (_, each) in shop.placement.residencies.items()} == {
        "cuda:0": 28 * MB, "cuda:1": 28 * MB,
    }  # fmt: skip
    assert machine.most == {"a": 22 * MB, "b": 22 * MB}
    limits = [told.memory for _, told in machine.openings[1::2]]  # each second one is within its measure
    assert limits == [11 * MB] * 4
    assert loaded[0].nodes == {"CPUExecutionProvider": 3}


@pytest.mark.parametrize("own", ["of this process", "not told", "of another process"])
def test_a_version_for_tensorrt_is_compiled_once_and_measured_all_the_same(shops: list[Shop], own: str) -> None:
    machine = Machine({"a": 30 * MB}, others=3 * MB, own=own)
    shops.append(shop := Shop(machine))
    made = shop.load(0, TENSORRT)
    assert (made.runs_on, len(machine.openings)) == ("cuda:0 (tensorrt)", 1)
    assert shop.used() == {"cuda:0": 11 * MB}
    assert made.executor.each == 11 * MB
    assert answers(made, 0)


def test_the_least_recently_used_leaves_for_a_model_without_room(shops: list[Shop]) -> None:
    machine = Machine({"a": 25 * MB})
    shops.append(shop := Shop(machine))
    one, two = shop.load(0), shop.load(1)
    assert answers(one, 0)
    three = shop.load(2)
    assert [each.executor.here for each in (one, two, three)] == [True, False, True]
    assert machine.most["a"] <= 25 * MB
    (_, residency) = shop.placement.residencies["cuda:0"]
    assert [each.digest for each in residency._decisions.since(0) if each.what == What.EVICTED] == [shop.made[1].digest]
    residency._stay_s = 0.0
    shop.placement.pin([shop.made[0].digest])
    assert answers(two, 1)  # it comes back in its own bounds, and the one that may leave does
    assert [each.executor.here for each in (one, two, three)] == [True, True, False]
    assert machine.openings[-1][1].memory == 11 * MB


def test_a_model_that_does_not_fit_is_refused_and_takes_nothing_from_others(shops: list[Shop]) -> None:
    machine = Machine({"a": 25 * MB}, takes={served(1).digest: 8000 * MB})
    shops.append(shop := Shop(machine))
    one = shop.load(0)
    shop.placement.pin([shop.made[0].digest])
    with pytest.raises(TooLarge, match=r"14,000,000 bytes that cuda:0 has .*even row by row: .*allocate"):
        shop.load(1)
    assert machine.openings[-1][1].rows == 1  # smaller batches were tried
    assert shop.used() == {"cuda:0": 11 * MB}
    assert machine.used["a"] == 10 * MB
    assert answers(one, 0)
    held = shop.load(1, "auto")
    assert (held.runs_on, held.device) == (CPU, "auto")
    assert "allocate" in held.fallback
    assert answers(held, 1)


def test_larger_batches_are_cut_to_what_has_room(shops: list[Shop]) -> None:
    machine = Machine({"a": 25 * MB}, takes={served(0).digest: 80 * MB})
    shops.append(shop := Shop(machine))
    made = shop.load(0)
    assert machine.openings[-1][1].rows == ROWS // 4
    x = RNG.normal(size=(300, 4)).astype(np.float32)
    found = made.executor.predict({"x": x}, 300)["y"]
    np.testing.assert_allclose(found, OnnxExecutor(shop.made[0]).predict({"x": x}, 300)["y"], rtol=1e-5)


def test_the_next_process_knows_the_sizes(shops: list[Shop], tmp_path: Any) -> None:
    machine = Machine({"a": 25 * MB})
    shops.append(first := Shop(machine, FileSizes(tmp_path)))
    first.load(0)
    again = Machine({"a": 25 * MB})
    shops.append(second := Shop(again, FileSizes(tmp_path)))
    assert answers(second.load(0), 0)
    assert [(told.memory, told.rows) for _, told in again.openings] == [(11 * MB, ROWS)]
    # A size that is too small, as after a change of the driver, is measured anew.
    FileSizes(tmp_path).keep(second.made[0].digest, size_of(2 * MB), PLACE)
    shops.append(third := Shop(Machine({"a": 25 * MB}), FileSizes(tmp_path)))
    assert answers(third.load(0), 0)
    assert third.used() == {"cuda:0": 11 * MB}


def test_memory_that_other_programs_took_is_not_promised(shops: list[Shop]) -> None:
    machine, sizes = Machine({"a": 25 * MB}, others=26 * MB), MemorySizes()
    shops.append(shop := Shop(machine, sizes))
    machine.models.make(shop.made[0], on_processor()).close()
    sizes.keep(shop.made[0].digest, size_of(11 * MB), PLACE)
    with pytest.raises(Unavailable, match=r"1,777,777 bytes free.*takes 11,000,000: other programs"):
        shop.load(0)
    assert shop.used() == {"cuda:0": 0}
    assert "other programs" in shop.load(0, "auto").fallback


def test_a_gpu_that_does_not_begin_is_passed_over_and_without_any_the_reason_is_said(shops: list[Shop]) -> None:
    shops.append(shop := Shop(Machine({"a": 40 * MB, "b": 25 * MB}, broken={"cuda:0"})))
    assert shop.load(0).runs_on == "cuda:1"
    assert [*shop.used()] == ["cuda:1"]
    shops.append(none := Shop(Machine({"a": 40 * MB}, broken={"cuda:0"})))
    with pytest.raises(DeviceUnusable, match="cuda:0 is broken"):
        none.load(0)
    assert none.load(0, "auto").fallback == "cuda:0 is broken."
    assert none.load(0, CPU).fallback == ""


def test_a_version_made_for_a_gpu_goes_there_and_nowhere_else(shops: list[Shop]) -> None:
    machine = Machine({"a": 40 * MB})
    shops.append(shop := Shop(machine, provider="CUDAExecutionProvider"))
    for device in (CPU, "auto", CUDA):  # all of its operators would be the processor's, which such a version refuses
        with pytest.raises(DeviceUnusable, match=r"does not load on cuda: .*explicitly added the CPU EP"):
            shop.load(0, device)
    assert [told.kind for _, told in machine.openings] == [CUDA] * 3
    with pytest.raises(DeviceUnusable, match="sealed for CUDAExecutionProvider, and not for openvino"):
        shop.load(0, OPENVINO)


def test_a_kind_without_memory_of_its_own_is_beside_the_processor(shops: list[Shop]) -> None:
    machine = Machine({"a": 40 * MB})
    shops.append(shop := Shop(machine))
    made = shop.load(0, OPENVINO)
    assert (made.runs_on, made.nodes) == (OPENVINO, {"CPUExecutionProvider": 3})
    assert shop.used() == {}
    assert answers(made, 0)
