"""Fine-tuning by LoRA: it learns, resumes exactly, and the adapter comes back from the registry as it was."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import mainspring as ms
from kit.later import later
from kit.tiny_language_model import LAYERS, SHOUTED, byte_rows, tiny_base
from mainspring.core.errors import Conflict, Corrupt, Invalid, NotConvertible
from mainspring.operations.models import lora as versions
from mainspring.operations.models.cards import card
from mainspring.operations.models.curating import find, show
from mainspring.operations.opened import OpenedProject
from mainspring.project.executors import executors
from mainspring.registry.lora_file import ADAPTER, check_lora
from mainspring.training.loop import lora
from mainspring.training.loop.checkpoints import Checkpoints
from mainspring.training.loop.signals import Interrupted

torch = later("torch")
networks = later("kit.networks")
later("peft")

pytestmark = pytest.mark.slow
ROWS: Any = None  # from the fixture below
SETTINGS: dict[str, Any] = {"targets": LAYERS, "lr": 0.01, "batch_size": 6, "seed": 3}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    globals().update(ROWS=byte_rows(SHOUTED))
    with networks.one_thread():
        yield


@pytest.fixture(scope="module")
def tuned() -> Any:
    return lora.fit_lora(tiny_base(), ROWS, epochs=30, **SETTINGS)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> OpenedProject:
    root = tmp_path_factory.mktemp("tuned")
    (root / "mainspring.toml").write_text('name = "tuned"\nmodules = ["tuned_things"]\n')
    (root / "tuned_things.py").write_text('"""A project that declares nothing."""\n')
    return ms.open(root)


@pytest.fixture(scope="module")
def registered(project: OpenedProject, tuned: Any) -> Any:
    gates = [ms.at_most("loss", 0.5), ms.at_least("accuracy", 0.9), ms.at_least("loss_gain", 1.0)]
    return project.register_adapter("shout", tuned, ROWS, base="tiny", gates=gates, alias="candidate")


def test_it_learns_and_leaves_the_base_as_it_was(tuned: Any) -> None:
    found = lora.evaluate_lora(tuned, ROWS)
    assert found["accuracy"] == 1.0
    assert found["loss"] < 0.2 < 1.0 < found["base_loss"]
    assert lora.base_digest(tuned) == lora.base_digest(tiny_base())
    assert lora.base_digest(tiny_base(1)) != lora.base_digest(tiny_base())


def test_a_training_that_was_stopped_goes_on_exactly_and_keeps_the_adapter_alone(tmp_path: Path) -> None:
    settings = {**SETTINGS, "dropout": 0.1, "epochs": 3, "checkpoints": tmp_path, "checkpoint_every_steps": 1}

    def stop(what: str, _share: float) -> None:
        if what.startswith("epoch 1"):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        lora.fit_lora(tiny_base(), ROWS, validation=ROWS, progress=stop, **settings)
    (folder,) = tmp_path.iterdir()
    kept = Checkpoints(folder).newest()
    assert kept is not None
    assert all(".lora_" in name for name in kept.state["module"])
    told: list[str] = []
    resumed = lora.fit_lora(
        tiny_base(), ROWS, validation=ROWS, progress=lambda what, _share: told.append(what), **settings
    )
    assert told[0].startswith("resumes from step ")
    whole = lora.fit_lora(tiny_base(), ROWS, validation=ROWS, **{**settings, "checkpoints": None})
    assert lora.adapter_file(resumed) == lora.adapter_file(whole)


def test_a_registered_adapter_comes_back_with_its_base(project: OpenedProject, registered: Any, tuned: Any) -> None:
    bundle = project.services.bundles.load(registered.digest)
    assert {*bundle.files} == {ADAPTER, "golden.json"}
    loaded = project.load_adapter("shout@candidate", tiny_base())
    assert torch.equal(lora.log_probabilities(loaded, ROWS[0]), lora.log_probabilities(tuned, ROWS[0]))
    assert lora.evaluate_lora(loaded, ROWS) == lora.evaluate_lora(tuned, ROWS)
    again = project.register_adapter(
        "shout", loaded, ROWS, base="tiny", gates=[ms.at_most("loss", 0.5), ms.at_least("accuracy", 0.9),
                                                   ms.at_least("loss_gain", 1.0)],
    )  # fmt: skip
    assert (again.version, again.new) == (registered.version, False)


def test_it_is_refused_on_another_base_which_stays_as_it_is(project: OpenedProject, registered: Any) -> None:
    for other in (tiny_base(1), tiny_base().to(torch.bfloat16)):
        digest = lora.base_digest(other)
        with pytest.raises(Conflict, match=r"was trained on 'tiny', weights [0-9a-f]{12}; those of the given Llama"):
            project.load_adapter("shout:1", other)
        assert lora.base_digest(other) == digest
        assert not hasattr(other, "peft_config")


def test_an_adapter_that_answers_differently_is_refused(project: OpenedProject, registered: Any) -> None:
    bundle = project.services.bundles.load(registered.digest)
    golden = msgspec.json.decode(bundle.files["golden.json"])
    golden["outputs"]["log_probability"][0][0] -= 0.01
    changed = {**bundle.files, "golden.json": msgspec.json.encode(golden)}
    from dataclasses import replace

    with pytest.raises(Corrupt, match=r"a log-probability differs by 0\.01"):
        versions._loaded(replace(bundle, files=changed), "shout:1", tiny_base())


def test_a_merged_model_answers_as_the_adapter_does(
    project: OpenedProject, registered: Any, tuned: Any, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    folder = project.merge_adapter("shout:1", tiny_base(), tmp_path / "merged")
    assert {path.suffix for path in folder.iterdir()} <= {".json", ".safetensors"}
    merged = AutoModelForCausalLM.from_pretrained(folder).eval()
    difference = lora.log_probabilities(merged, ROWS[0]) - lora.log_probabilities(tuned, ROWS[0])
    assert difference.abs().max() < 1e-4
    with pytest.raises(Conflict, match="is there already"):
        project.merge_adapter("shout:1", tiny_base(), folder)


def test_lineage_and_card_say_what_it_was_made_of(project: OpenedProject, registered: Any, tuned: Any) -> None:
    found = show(project.services, "shout:1").lineage
    assert [(each.role, each.digest) for each in found.ancestors] == [("base", lora.base_digest(tuned))]
    shown = card(project.services, "shout:1")
    assert ("Flavour", "lora") in [(fact.name, fact.value) for fact in shown.made]
    run = project.services.tracking.get(registered.run_id)
    assert run.metrics["loss"] == pytest.approx(lora.evaluate_lora(tuned, ROWS)["loss"])


def test_a_failed_gate_leaves_a_version_without_the_alias(project: OpenedProject, tuned: Any) -> None:
    with pytest.raises(Conflict, match=r"quiet:1 is registered and did not pass its gates: loss at most 1e-06"):
        project.register_adapter("quiet", tuned, ROWS, gates=[ms.at_most("loss", 1e-6)], alias="candidate")
    assert find(project.services, "quiet:1").aliases == ()
    with pytest.raises(Invalid, match="cannot judge an adapter"):
        project.register_adapter("quiet", tuned, ROWS, gates=[ms.beats("loss", 0.1)])
    with pytest.raises(Invalid, match="cannot judge an adapter"):
        project.register_adapter("quiet", tuned, ROWS, gates=[ms.at_least("auc", 0.1)])


def test_a_gateway_does_not_serve_an_adapter(project: OpenedProject, registered: Any) -> None:
    bundle = project.services.bundles.load(registered.digest)
    with pytest.raises(NotConvertible, match="answers only with its base"):
        executors(project.services)(bundle)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (lambda ids, labels: (ids, labels[:, 1:]), "The rows are"),
        (lambda ids, labels: (ids.int(), labels), "int64"),
        (lambda ids, labels: (ids, torch.full_like(labels, -100)), "without a token to predict"),
        (lambda ids, labels: (ids[:0], labels[:0]), "There are no rows"),
        (lambda ids, labels: (ids, torch.where(labels == -100, labels, labels + 1)), "neither its own token nor -100"),
    ],
)
def test_rows_that_cannot_be_learned_are_refused(rows: Callable[[Any, Any], Any], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        lora.fit_lora(tiny_base(), rows(*ROWS), **SETTINGS)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rank": 0}, "rank 0"),
        ({"alpha": 0.0}, "alpha 0"),
        ({"dropout": 1.0}, "dropout 1"),
        ({"targets": ["nose"]}, "nose"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        lora.fit_lora(tiny_base(), ROWS, **{**SETTINGS, **wrong})


def test_a_model_with_an_adapter_gets_no_second_one(tuned: Any) -> None:
    with pytest.raises(Invalid, match="has an adapter already"):
        lora.fit_lora(tuned, ROWS, **SETTINGS)
    with pytest.raises(Invalid, match="is not a model with one plain adapter"):
        lora.adapter_settings(tiny_base())


def test_the_file_is_nothing_but_pairs_of_matrices(tuned: Any) -> None:
    found = check_lora(lora.adapter_file(tuned), ADAPTER)
    assert (found.rank, len(found.layers)) == (8, 12)
    assert found.parameters == sum(each.numel() for name, each in tuned.named_parameters() if ".lora_" in name)
