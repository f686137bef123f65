"""A version's network that its training function prunes and trains further, beside pruning by hand."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from kit.later import later
from mainspring.core.errors import NotConvertible
from mainspring.training.loop.fit import fit_torch
from mainspring.training.loop.refining import refined
from mainspring.training.loop.stopping import EarlyStopping
from mainspring.training.optimise.fine_tuning import FineTuning, Pruning, by_torch, stored_weights
from mainspring.training.optimise.pruning import prune

pytestmark = pytest.mark.slow

torch = later("torch")
networks = later("kit.networks")
X: Any = None  # rows, from the fixture below
Y: Any = None
WEIGHTS, NEURONS = Pruning(0.5, False, "weights"), Pruning(0.5, True, "neurons")


@pytest.fixture(autouse=True, scope="module")
def rows() -> Iterator[None]:
    with networks.one_thread():
        inputs, labels = networks.rows_of_numbers()
        globals().update(X=inputs, Y=labels)
        yield


def fitted(module: Any, *, rate: float = 0.02, epochs: int = 4) -> Any:
    optimiser = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=0.01)
    return fit_torch(
        module, (X, Y), torch.nn.functional.binary_cross_entropy, optimiser=optimiser, epochs=epochs, seed=2,
        batch_size=50, validation=(X, Y), stopping=EarlyStopping(patience=epochs),
        schedule=torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs), schedule_per="epoch",
    )  # fmt: skip


def exported(module: Any) -> bytes:
    """Return a model that holds a network's weights as torch's exporter does: a normalisation is joined to its layer.

    That the exporter does so is seen in tests/integration/test_optimise_network.py.
    """
    state = {name: each.numpy() for name, each in module.state_dict().items()}
    kept = {name: each for name, each in state.items() if not name.startswith("1.")}
    constants = [numpy_helper.from_array(each, f"module.{name}") for name, each in kept.items()]
    graph = onnx.helper.make_graph([], "model", [], [], constants)
    return bytes(onnx.helper.make_model(graph, producer_name="pytorch").SerializeToString())


def constants(content: bytes) -> dict[str, Any]:
    return {each.name: numpy_helper.to_array(each) for each in onnx.load_model_from_string(content).graph.initializer}


@pytest.fixture(scope="module")
def version() -> tuple[Any, bytes]:
    module = fitted(networks.perceptron())
    return module, exported(module)


def weights(module: Any) -> list[Any]:
    return [each.detach().numpy() for each in module.parameters()]


@pytest.mark.parametrize("pruning", [WEIGHTS, NEURONS])
def test_it_is_pruned_from_the_versions_weights_whatever_its_own(version: tuple[Any, bytes], pruning: Pruning) -> None:
    """Without epochs, the result is the version's own network pruned; the new one began with other weights."""
    module, content = version
    fresh = networks.perceptron()
    with torch.no_grad():
        fresh[0].weight.mul_(-3)
    tuning = FineTuning(content, pruning, epochs=0)
    with refined(tuning):
        made = fitted(fresh)
    wanted = prune(deepcopy(module), 0.5, structured=pruning.structured)
    for ours, theirs in zip(weights(made), weights(wanted), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert tuning.how == f"{pruning.how}, then trained for 0 epochs"


def test_it_is_trained_further_and_what_is_pruned_stays_so(version: tuple[Any, bytes]) -> None:
    module, content = version
    for pruning in (WEIGHTS, NEURONS):
        tuning = FineTuning(content, pruning)
        with refined(tuning):
            made = fitted(networks.perceptron())
        assert tuning.how.endswith("then trained for 2 epochs")  # half of its own
        pruned = prune(deepcopy(module), 0.5, structured=pruning.structured)
        for ours, before in zip(weights(made), weights(pruned), strict=True):
            assert ours.shape == before.shape
            assert np.abs(ours - before).max() > 0
        if pruning is WEIGHTS:
            np.testing.assert_array_equal(weights(made)[0] == 0, weights(pruned)[0] == 0)
            assert (weights(made)[0] == 0).mean() > 0.3
        own, loss = [torch.nn.functional.binary_cross_entropy(each(X), Y).item() for each in (pruned, made)]
        assert loss < own  # training has mended a part of what pruning took


def test_a_network_whose_graph_lost_its_weights_is_trained_anew_first() -> None:
    """The exporter joins a batch normalisation with the layer before it."""
    module = fitted(networks.perceptron(norm=True))
    content = exported(module)
    assert stored_weights(module, constants(content)) is None
    tuning = FineTuning(content, NEURONS, epochs=0)
    with refined(tuning):
        made = fitted(networks.perceptron(norm=True))
    wanted = prune(deepcopy(module), 0.5, structured=True)  # the same seed gives the same weights
    for ours, theirs in zip(weights(made), weights(wanted), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert tuning.how == "neurons, trained anew, then trained for 0 epochs"
    with refined(tuning), pytest.raises(NotConvertible, match="trains several networks"):
        fitted(networks.perceptron(norm=True))


def test_another_network_of_the_function_is_left_alone(version: tuple[Any, bytes]) -> None:
    tuning = FineTuning(version[1], WEIGHTS, epochs=1)
    with refined(tuning):
        fitted(networks.perceptron())
        other = fitted(torch.nn.Sequential(torch.nn.Linear(6, 3), torch.nn.Linear(3, 1), torch.nn.Sigmoid()))
    assert not any((each == 0).any() for each in weights(other))
    assert by_torch(version[1])


def test_weights_are_found_under_one_prefix_alone(version: tuple[Any, bytes]) -> None:
    module, content = version
    known = constants(content)
    found = stored_weights(module, known)
    assert found is not None
    assert {name: each.shape for name, each in found.items()} == {
        name: tuple(each.shape) for name, each in module.named_parameters()
    }
    twice = known | {f"other.{name}": each for name, each in known.items()}
    assert stored_weights(module, twice) is None
    assert stored_weights(torch.nn.Linear(6, 17), known) is None
    assert stored_weights(torch.nn.ReLU(), known) is None
