"""Declarations of language models, and the cost of their tokens."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.errors import Invalid
from mainspring.llm.declaring import LanguageModel, TokenPrice, UpstreamModel
from mainspring.llm.model import UpstreamError, Usage

QWEN = UpstreamModel("local", "qwen3-8b")
_tokens = st.integers(0, 10_000_000)
_price = st.integers(0, 1 << 20).map(lambda count: count / 1024)  # exact in binary


@given(_tokens, _tokens, _tokens, _tokens, st.tuples(_price, _price, _price, _price))
def test_a_request_costs_each_token_once_rounded_up_to_a_millionth(
    plain: int, cached: int, written: int, completion: int, prices: tuple[float, ...]
) -> None:
    usage = Usage(prompt=plain + cached + written, cached=cached, written=written, completion=completion, reasoning=1)
    price = TokenPrice(prompt=prices[0], cached=prices[1], written=prices[2], completion=prices[3])
    exact = sum(
        count * Fraction(each) for count, each in zip((plain, cached, written, completion), prices, strict=True)
    )
    assert price.micros(usage) == ceil(exact)


def test_tokens_of_the_cache_cost_as_others_where_nothing_else_is_said() -> None:
    usage = Usage(prompt=1_000_000, cached=400_000, written=100_000, completion=500_000)
    assert TokenPrice(prompt=0.5, completion=2.0).micros(usage) == 1_500_000
    assert TokenPrice(prompt=0.5, completion=2.0).micros(Usage(prompt=5, cached=9)) == ceil(9 * 0.5)


@pytest.mark.parametrize(
    ("given_", "names"),
    [
        ({"upstreams": []}, "no upstream"),
        ({"upstreams": ["local"]}, "'local'"),
        ({"between_events": "20m"}, "'20m'"),
        ({"first_event": 0}, "first_event=0"),
        ({"deadline": "never"}, "'never'"),
        ({"embeds": 1}, "embeds"),
        ({"name": "a/b"}, "a/b"),
    ],
)
def test_an_error_names_what_is_wrong(given_: dict[str, Any], names: str) -> None:
    name = given_.pop("name", "assistant")
    with pytest.raises(Invalid, match=names):
        LanguageModel(name, **{"upstreams": [QWEN], **given_})


@pytest.mark.parametrize("given_", [{"price": 3}, {"context": 0}, {"model": ""}, {"model": "a\n"}])
def test_an_upstreams_model_is_checked(given_: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="'local'"):
        UpstreamModel("local", **{"model": "qwen3-8b", **given_})


@pytest.mark.parametrize("given_", [{"prompt": -1.0}, {"completion": float("nan")}, {"cached": "1"}, {"prompt": None}])
def test_a_price_is_a_number_of_zero_or_more(given_: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="price of"):
        TokenPrice(**given_)


def test_asking_again_doubles_nothing_where_the_upstream_did_nothing() -> None:
    kinds = ("refused", "denied", "missing", "limited", "failed", "unreachable", "late", "broken")
    errors = {kind: UpstreamError("It.", kind=kind, upstream="local") for kind in kinds}  # type: ignore[arg-type]
    assert [kind for kind in kinds if not errors[kind].unseen] == ["failed", "late", "broken"]
    assert [kind for kind in kinds if not errors[kind].retryable] == ["refused", "denied", "missing"]
