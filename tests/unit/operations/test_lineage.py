from __future__ import annotations

from kit.console.shop import Basket, Orders, Returns, definitions, fraud
from mainspring.operations.data.lineage import ENDPOINT, MODEL, REQUEST, SOURCE, VIEW, Edge, lineage, models_using
from mainspring.registry.model import ModelVersion
from mainspring.serving.model import Arm, Route

DEFINED = definitions()


def whole(versions=(), routes=None):
    groups = [*DEFINED.views.values(), *DEFINED.request_features.values()]
    return lineage(DEFINED.sources, groups, DEFINED.models, DEFINED.endpoints, versions, routes or {})


def version(number: str, *aliases: str, model: str = "fraud") -> ModelVersion:
    return ModelVersion(model, number, "d" * 64, "run", 0, {}, aliases)


def route(*arms: tuple[str, float], endpoint: str = "checkout", model: str = "fraud") -> Route:
    made = tuple(Arm(number, "d" * 64, weight) for number, weight in arms)
    return Route(endpoint=endpoint, model=model, arms=made, deadline_us=1, max_queue_rows=1)


def note(graph, kind: str, name: str) -> str:
    return next(node.note for node in graph.nodes if (node.kind, node.name) == (kind, name))


def test_everything_is_in_it_once() -> None:
    graph = whole()
    assert [node.id for node in graph.nodes] == [
        "source:checkouts",
        "source:orders",
        "source:returns",
        "request:Basket",
        "view:Orders",
        "view:Returns",
        "model:fraud",
        "endpoint:checkout",
    ]
    assert set(graph.edges) == {
        Edge("source:orders", "view:Orders", "rows"),
        Edge("source:returns", "view:Returns", "rows"),
        Edge("view:Orders", "request:Basket", "features"),
        Edge("view:Orders", "model:fraud", "features"),
        Edge("request:Basket", "model:fraud", "features"),
        Edge("source:checkouts", "request:Basket", "observations"),
        Edge("source:checkouts", "model:fraud", "observations"),
        Edge("source:checkouts", "model:fraud", "labels"),
        Edge("model:fraud", "endpoint:checkout", "versions"),
    }
    assert len(graph.edges) == len(set(graph.edges))


def test_around_a_view_stands_what_it_comes_from_and_goes_into() -> None:
    graph = whole().around(VIEW, "Orders")
    assert {node.id for node in graph.nodes} == {
        "source:orders",
        "view:Orders",
        "request:Basket",
        "model:fraud",
        "endpoint:checkout",
    }
    assert {edge.end for edge in graph.edges if edge.start == "view:Orders"} == {"request:Basket", "model:fraud"}


def test_around_an_endpoint_stands_all_that_it_is_made_of_and_no_more() -> None:
    graph = whole().around(ENDPOINT, "checkout")
    assert "view:Returns" not in {node.id for node in graph.nodes}
    assert {"source:orders", "source:checkouts"} <= {node.id for node in graph.nodes}


def test_siblings_are_not_drawn_in() -> None:
    assert [node.id for node in whole().around(VIEW, "Returns").nodes] == ["source:returns", "view:Returns"]
    assert whole().around(VIEW, "Nobody").nodes == ()


def test_what_is_said_of_a_model_and_an_endpoint() -> None:
    assert note(whole(), MODEL, "fraud") == "no version yet"
    assert note(whole(), ENDPOINT, "checkout") == "not live"
    versions = [version("1"), version("2", "champion"), version("3", "challenger"), version("9", model="other")]
    graph = whole(versions, {"checkout": route(("2", 3.0), ("3", 1.0))})
    assert note(graph, MODEL, "fraud") == "3 versions, challenger is 3, champion is 2"
    assert note(graph, ENDPOINT, "checkout") == "versions 2 (75%), 3 (25%) are live"
    assert note(whole(versions, {"checkout": route(("2", 1.0))}), ENDPOINT, "checkout") == "version 2 is live"
    assert note(graph, VIEW, "Orders") == "9 features of buyer"
    assert note(graph, REQUEST, "Basket") == "1 feature, computed on demand"
    assert note(graph, SOURCE, "orders") == ""


def test_what_is_only_routed_is_there_too() -> None:
    graph = whole(routes={"old": route(("1", 1.0), endpoint="old", model="gone")})
    assert Edge("model:gone", "endpoint:old", "versions") in graph.edges
    assert {"model:gone", "endpoint:old"} <= {node.id for node in graph.nodes}


def test_a_model_uses_a_view_directly_or_through_what_is_computed_on_demand() -> None:
    from dataclasses import replace

    through = replace(fraud, features=(Basket,), columns=())
    assert models_using({"fraud": through}, "Orders") == ("fraud",)
    assert models_using({"fraud": replace(fraud, features=(Returns,), columns=())}, "Orders") == ()
    assert models_using({"fraud": replace(fraud, features=(Orders,), columns=())}, "Orders") == ("fraud",)
