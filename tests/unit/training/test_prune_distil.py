"""Pruned modules and distilled ones, beside what is computed by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from kit.later import later
from mainspring.core.errors import Invalid
from mainspring.training.loop.fit import fit_torch
from mainspring.training.optimise.distilling import distil
from mainspring.training.optimise.pruning import prune

pytestmark = pytest.mark.slow

torch = later("torch")
networks = later("kit.networks")
X: Any = None  # rows, from the fixture below
Y: Any = None


@pytest.fixture(autouse=True, scope="module")
def rows() -> Iterator[None]:
    with networks.one_thread():
        inputs, labels = networks.rows_of_numbers()
        globals().update(X=inputs, Y=labels)
        yield


def network(width: int = 16) -> Any:
    return networks.perceptron(width, norm=True)


def entropy(outputs: Any, targets: Any) -> Any:
    return torch.nn.functional.binary_cross_entropy(outputs, targets)


def fitted(module: Any, epochs: int = 3, optimiser: str = "AdamW") -> Any:
    made = getattr(torch.optim, optimiser)(module.parameters(), lr=0.01, weight_decay=0.01)
    return fit_torch(module, (X, Y), entropy, optimiser=made, epochs=epochs, batch_size=50, seed=2)


@pytest.mark.parametrize("optimiser", ["AdamW", "SGD"])
def test_the_smallest_weights_become_zero_and_stay_so(optimiser: str) -> None:
    module = fitted(network())
    before = [layer.weight.detach().clone() for layer in module if isinstance(layer, torch.nn.Linear)]
    limit = np.sort(np.abs(np.concatenate([each.numpy().ravel() for each in before])))[round(0.6 * (96 + 256 + 16)) - 1]
    fitted(prune(module, 0.6), optimiser=optimiser)
    after = [layer.weight.detach() for layer in module if isinstance(layer, torch.nn.Linear)]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal((new == 0).numpy(), (old.abs() <= limit).numpy())
        assert bool((new != old)[old.abs() > limit].any())  # the others are trained


def test_neurons_without_effect_are_removed_without_effect() -> None:
    module = network()
    with torch.no_grad():
        for neuron in (1, 5, 9, 11):
            module[3].weight[:, neuron] = 0  # nothing reads it
            module[5].weight[:, neuron] = 0
    module.eval()
    wanted = module(X)
    parameters = sum(each.numel() for each in module.parameters())
    assert prune(module, 0.25, structured=True) is module
    torch.testing.assert_close(module(X), wanted, rtol=1e-6, atol=1e-6)
    assert (module[0].out_features, module[1].num_features, module[3].in_features, module[5].in_features) == (12,) * 4
    assert sum(each.numel() for each in module.parameters()) < 0.75 * parameters
    fitted(module)


def test_channels_of_convolutions_too() -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3)).eval()
    with torch.no_grad():
        module[2].weight[:, :4] = 0
    rows = torch.randn(2, 3, 9, 9)
    wanted = module(rows)
    torch.testing.assert_close(prune(module, 0.5, structured=True)(rows), wanted, rtol=1e-6, atol=1e-6)
    assert module[0].weight.shape == (4, 3, 3, 3)


def test_what_cannot_be_pruned_is_refused() -> None:
    with pytest.raises(Invalid, match="A share of 1 cannot be pruned"):
        prune(network(), 1.0)
    with pytest.raises(Invalid, match="ReLU has no linear or convolutional layer"):
        prune(torch.nn.ReLU(), 0.5)
    between = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Softmax(dim=1), torch.nn.Linear(4, 1))
    with pytest.raises(Invalid, match="in which one linear"):
        prune(between, 0.5, structured=True)


def test_a_layer_that_stands_twice_keeps_its_neurons() -> None:
    twice, active = torch.nn.Linear(4, 4), torch.nn.ReLU()
    module = torch.nn.Sequential(
        torch.nn.Linear(4, 4),
        active,
        twice,
        active,
        twice,
        active,
        torch.nn.Linear(4, 8),
        active,
        torch.nn.Linear(8, 1),
    )
    prune(module, 0.5, structured=True)
    assert [tuple(each.weight.shape) for each in module if each is not active] == [(4, 4)] * 3 + [(4, 4), (1, 4)]
    assert module(torch.randn(3, 4)).shape == (3, 1)


def test_a_student_learns_what_its_teacher_returns() -> None:
    teacher, student = fitted(network(), epochs=15), network(4)
    before = (student.eval()(X) - teacher(X)).abs().mean()
    made = torch.optim.Adam(student.parameters(), lr=0.02)
    distil(teacher, student, X, optimiser=made, epochs=30, batch_size=50, seed=0)
    assert (student(X) - teacher(X)).abs().mean() < before / 3


def test_it_is_the_loop_on_the_teachers_outputs_mixed_with_labels() -> None:
    teacher, by_hand, student = fitted(network()), network(4), network(4)
    labels = (X[:, :1] > 0).float()
    mixed = 0.7 * teacher(X).detach() + 0.3 * labels
    fit_torch(by_hand, (X, mixed), entropy, optimiser=torch.optim.SGD(by_hand.parameters(), lr=0.1), epochs=2, seed=5)
    made = torch.optim.SGD(student.parameters(), lr=0.1)
    distil(teacher, student, X, optimiser=made, labels=labels, labels_share=0.3, epochs=2, seed=5)
    for ours, theirs in zip(student.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_classes_and_numbers_have_their_losses() -> None:
    def of_classes(rows: Any) -> Any:
        return np.stack([0.2 + 0.6 * (rows[:, 0] > 0), 0.8 - 0.6 * (rows[:, 0] > 0)], axis=1).astype(np.float32)

    torch.manual_seed(0)
    classes = torch.nn.Sequential(torch.nn.Linear(6, 2), torch.nn.Softmax(dim=1))
    made = torch.optim.Adam(classes.parameters(), lr=0.05)
    distil(of_classes, classes, X, optimiser=made, epochs=20, batch_size=50, seed=0)
    assert (classes(X).detach().numpy() - of_classes(X.numpy())).__abs__().mean() < 0.15
    number = torch.nn.Linear(6, 1)
    made = torch.optim.Adam(number.parameters(), lr=0.05)
    distil(lambda rows: 3 * rows[:, :1] - 5, number, X, optimiser=made, epochs=60, batch_size=50, seed=0)
    assert number.weight[0, 0].item() == pytest.approx(3, abs=0.05)


def test_a_teacher_that_teaches_nothing_is_refused() -> None:
    student = network(4)
    made = torch.optim.SGD(student.parameters(), lr=0.1)
    with pytest.raises(Invalid, match=r"returns the shape \(2,\) for 300 rows"):
        distil(lambda rows: rows[:2, 0], student, X, optimiser=made)
    with pytest.raises(Invalid, match="NaN or infinity"):
        distil(lambda rows: rows / 0, student, X, optimiser=made)
    with pytest.raises(Invalid, match="no rows for the teacher"):
        distil(lambda rows: rows[:, :1], student, X[:0], optimiser=made)
    with pytest.raises(Invalid, match=r"labels have the shape \(300,\)"):
        distil(lambda rows: rows[:, :1], student, X, optimiser=made, labels=X[:, 0])


def test_frozen_layers_are_pruned_too() -> None:
    layer = torch.nn.Linear(4, 4).requires_grad_(False)
    assert int((prune(layer, 0.5).weight == 0).sum()) == 8
