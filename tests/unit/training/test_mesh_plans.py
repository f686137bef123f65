"""How a module is cut: into blocks, into stages, and within layers. One process."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from kit.later import later
from mainspring.core.errors import Invalid
from mainspring.training.loop.blocks import blocks, recomputed

pytestmark = pytest.mark.slow

torch = later("torch")
cut_module = later("mainspring.training.loop.mesh.cut")
outline = later("mainspring.training.loop.mesh.outline")
tensor = later("mainspring.training.loop.mesh.tensor")
nn = later("torch.nn")


def chain(wrong: str = "") -> Any:
    """Return layers in a list, between an embedding and a head; `wrong` says what is unusual."""

    class Choosing(nn.Linear):  # type: ignore[misc]
        def forward(self, rows: Any) -> Any:
            return super().forward(rows) if rows.sum().item() > 0 else rows

    class Chain(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(12, 8)
            self.layers = nn.ModuleList(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)) for _ in range(5))
            self.norm = nn.LayerNorm(8)
            self.head = nn.Linear(8, 12)
            if wrong == "data":
                self.layers[1] = Choosing(8, 8)

        def forward(self, words: Any) -> Any:
            found = self.tokens(words)
            layers = list(self.layers)
            for number, layer in enumerate(reversed(layers) if wrong == "order" else layers):
                found = layer(found) + 1.0 if wrong == "between" else layer(found)
                if wrong == "shared" and number < 4:
                    found = self.norm(found)
            return self.head(self.norm(found))

    return Chain()


def cut(module: Any, stages: int, words: Any = None) -> Any:
    words = torch.zeros((2, 3), dtype=torch.int64) if words is None else words
    return cut_module.cut(outline.Outline(module), (words,), stages)


def test_blocks_are_the_largest_list_or_the_children_of_a_sequential() -> None:
    assert list(blocks(chain())) == [f"layers.{number}" for number in range(5)]
    assert list(blocks(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)))) == ["0", "1", "2"]
    layer = nn.TransformerEncoderLayer(8, 2, 16)
    encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    assert list(blocks(nn.Sequential(nn.Embedding(5, 8), encoder, nn.Linear(8, 5)))) == [
        "0", "1.layers.0", "1.layers.1", "1.layers.2", "2",
    ]  # fmt: skip
    assert blocks(nn.Linear(2, 2)) == {}


def test_stages_are_balanced_as_by_trying_every_way() -> None:
    drawn = random.Random(0)
    for _ in range(40):
        costs = [float(drawn.choice([0, 1, 2, 7, 30])) for _ in range(drawn.randint(2, 8))]
        for stages in range(1, min(4, len(costs)) + 1):
            at = cut_module.balanced(costs, stages)
            assert len(at) == stages - 1

            def dearest(where: tuple[int, ...], costs: list[float] = costs) -> float:
                return max(sum(costs[begin:end]) for begin, end in itertools.pairwise((0, *where, len(costs))))

            ways = itertools.combinations(range(1, len(costs)), stages - 1)
            assert dearest(at) == min(map(dearest, ways))


def test_what_is_before_the_layers_is_in_the_first_stage_and_what_is_after_in_the_last() -> None:
    found = cut(chain(), 3)
    assert sum(found.stages, ()) == tuple(f"layers.{number}" for number in range(5))
    assert {name: found.stage_of[name] for name in ("tokens", "norm", "head")} == {"tokens": 0, "norm": 2, "head": 2}
    assert [found.stage_of[part[0]] for part in found.stages] == [0, 1, 2]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [("order", "not called once each in their order"), ("between", "is not the output of 'layers.0'"),
     ("shared", "'norm' is called between"), ("data", "a layer fails with")],
)  # fmt: skip
def test_a_module_that_cannot_be_cut_is_refused(wrong: str, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        cut(chain(wrong), 2)


def test_more_stages_than_layers_are_refused() -> None:
    with pytest.raises(Invalid, match="5 consecutive layers for 6 stages"):
        cut(chain(), 6)


def test_a_plan_has_pairs_of_layers_heads_and_embeddings() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16)
    assert tensor.plan_of(nn.Sequential(nn.Embedding(6, 8), layer), 2) == {
        "0": "rows", "1.linear1": "columns", "1.linear2": "rows", "1.self_attn": "heads",
        "1.self_attn.out_proj": "rows",
    }  # fmt: skip
    deep = nn.Sequential(*(each for _ in range(3) for each in (nn.Linear(4, 4), nn.Dropout(0.1))))
    assert tensor.plan_of(deep, 2) == {"0": "columns", "2": "rows"}  # the third layer has no partner


def test_a_llama_is_spread_by_the_names_of_its_layers() -> None:
    transformers = pytest.importorskip("transformers")
    made = transformers.LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    llama = transformers.LlamaForCausalLM(made)
    at = "model.layers.0"
    wanted = {f"{at}.self_attn.{name}_proj": "columns" for name in "qkv"}
    wanted |= {f"{at}.mlp.{name}_proj": "columns" for name in ("gate", "up")}
    wanted |= {f"{at}.self_attn.o_proj": "rows", f"{at}.mlp.down_proj": "rows", "model.embed_tokens": "rows"}
    assert tensor.plan_of(llama, 2) == wanted
    assert f"{at}.self_attn.q_proj" not in tensor.plan_of(llama, 4)  # two heads of keys are not four


def test_a_gpt_2_is_spread_with_its_attention_by_heads() -> None:
    transformers = pytest.importorskip("transformers")
    made = transformers.GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=4, n_positions=8)
    model = transformers.GPT2LMHeadModel(made)
    plan = tensor.plan_of(model, 2)
    wanted = {"attn.c_attn": "heads", "attn.c_proj": "rows", "mlp.c_fc": "columns", "mlp.c_proj": "rows"}
    assert plan == {
        **{f"transformer.h.{layer}.{name}": how for layer in (0, 1) for name, how in wanted.items()},
        "transformer.wpe": "rows",
    }
    assert tensor.left_whole(model, plan) == "Embedding (7% of the weights)"  # the words, which are the head too
    assert "transformer.h.0.attn.c_attn" not in tensor.plan_of(model, 8)  # four heads are not eight


class Experts(nn.Module):  # type: ignore[misc,name-defined]
    """A mixture of experts whose matrices are one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(8, 4)
        self.matrices = nn.Parameter(torch.randn(4, 8, 8))

    def forward(self, rows: Any) -> Any:
        shares = self.router(rows).softmax(-1)
        return torch.einsum("bi,eio,be->bo", rows, self.matrices, shares)


def test_experts_and_other_unknown_layers_are_left_whole_and_said() -> None:
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8), Experts())
    plan = tensor.plan_of(module, 2)
    assert plan == {"0": "columns", "2": "rows"}
    assert tensor.left_whole(module, plan) == "Experts (45% of the weights), Linear (6% of the weights)"
    assert not tensor.left_whole(module[:3], plan)


def test_widths_that_do_not_divide_and_tied_weights_are_left_whole() -> None:
    network = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 6), nn.ReLU(), nn.Linear(6, 6))
    with pytest.raises(Invalid, match=r"No layer can be spread over 2 processes. The module has 0 \(Linear\), 2"):
        tensor.plan_of(network, 2)
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 6), nn.Linear(6, 4))
    tied[1].weight = tied[0].weight
    assert tensor.plan_of(tied, 2) == {"2": "columns", "3": "rows"}


def test_a_plan_that_is_given_is_checked() -> None:
    module = chain()
    assert tensor.plan_of(module, 2, {"layers.*.0": "columns", "layers.?.2": "rows"}).keys() == {
        f"layers.{number}.{place}" for number in range(5) for place in (0, 2)
    }
    for wrong in ({"nothing": "rows"}, {"head": "columns and rows"}, {"norm": "rows"}, {"layers.0.0": "heads"}):
        with pytest.raises(Invalid):
            tensor.plan_of(module, 2, wrong)
    with pytest.raises(Invalid, match="Linear of 12, cannot be cut by columns into 5 parts"):
        tensor.plan_of(module, 5, {"head": "columns"})


def test_activations_computed_again_change_neither_gradients_nor_statistics() -> None:
    torch.manual_seed(1)
    network = nn.Sequential(
        nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.4), nn.Linear(8, 8)),
        nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8, momentum=None), nn.Tanh()), nn.Linear(8, 1),
    ).double()  # fmt: skip
    rows = torch.randn(6, 4).double()
    before = {name: each.clone() for name, each in network.state_dict().items()}

    def trained(wanted: bool) -> tuple[list[Any], dict[str, Any], int]:
        network.load_state_dict(before)
        torch.manual_seed(2)
        kept: list[int] = []
        with (
            recomputed(blocks(network).values(), wanted),
            torch.autograd.graph.saved_tensors_hooks(
                lambda each: (kept.append(each.numel()), each)[1], lambda each: each
            ),
        ):
            loss = network(rows).sum()
        held = sum(kept)
        with recomputed(blocks(network).values(), wanted):
            loss.backward()
        gradients = [each.grad.clone() for each in network.parameters()]
        network.zero_grad()
        return gradients, {name: each.clone() for name, each in network.state_dict().items()}, held

    plain, again = trained(wanted=False), trained(wanted=True)
    assert all(torch.equal(one, other) for one, other in zip(plain[0], again[0], strict=True))
    assert all(torch.equal(value, again[1][name]) for name, value in plain[1].items())
    assert again[2] < 0.6 * plain[2]
    assert "forward" not in network[0].__dict__
