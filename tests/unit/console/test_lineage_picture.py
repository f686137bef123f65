"""The picture shows every node and edge, and nothing on top of something else."""

import xml.etree.ElementTree as ET
from itertools import combinations

import pytest

from kit.console.shop import definitions
from mainspring.console.layered import fitted
from mainspring.console.lineage_picture import picture
from mainspring.operations.data.lineage import MODEL, SOURCE, VIEW, Edge, Lineage, Node, lineage

DEFINED = definitions()
WHOLE = lineage(
    DEFINED.sources,
    [*DEFINED.views.values(), *DEFINED.request_features.values()],
    DEFINED.models,
    DEFINED.endpoints,
    [],
    {},
)
HOSTILE = "<script>alert(1)</script>\"'&{{7*7}}"
SPACE = "{http://www.w3.org/2000/svg}"


def wide(count: int) -> Lineage:
    views = [Node(VIEW, f"View{n}") for n in range(count)]
    edges = [Edge("source:s", view.id, "rows") for view in views]
    return Lineage((Node(SOURCE, "s"), *views), tuple(edges))


def drawn(graph: Lineage, here: str = "", href=lambda node: None) -> list[ET.Element]:
    made = picture(graph, here, href)
    return [ET.fromstring(str(each)) for each in (made.across, made.down)]


def boxes(svg: ET.Element) -> dict[str, tuple[float, float, float, float]]:
    found = {}
    for node in svg.iter():
        if "node" in (node.get("class") or "").split():
            rect = node.find("rect")
            x, y, width, height = (float(rect.get(name)) for name in ("x", "y", "width", "height"))
            found[node.find("title").text.partition(":")[0]] = (x, y, x + width, y + height)
    return found


@pytest.mark.parametrize("graph", [WHOLE, wide(3), WHOLE.around(VIEW, "Orders"), WHOLE.around(SOURCE, "checkouts")])
def test_every_node_is_drawn_inside_the_picture_and_beside_the_others(graph) -> None:
    for svg in drawn(graph):
        found = boxes(svg)
        assert len(found) == len(graph.nodes)
        left, top, width, height = map(float, svg.get("viewBox").split())
        for x, y, right, bottom in found.values():
            assert left <= x
            assert top <= y
            assert right <= left + width
            assert bottom <= top + height
        for one, two in combinations(found.values(), 2):
            assert one[2] <= two[0] or two[2] <= one[0] or one[3] <= two[1] or two[3] <= one[1]


@pytest.mark.parametrize("graph", [WHOLE, wide(3)])
def test_every_edge_is_drawn_from_its_start_to_its_end(graph) -> None:
    said = {f"{e.gives} from {e.start.partition(':')[2]} to {e.end.partition(':')[2]}" for e in graph.edges}
    for svg in drawn(graph):
        assert {path.find("title").text for path in svg.iter("path") if path.find("title") is not None} == said


def test_an_edge_that_passes_a_column_passes_between_its_boxes() -> None:
    across, _ = drawn(WHOLE)
    found = boxes(across)
    (path,) = [
        path
        for path in across.iter("path")
        if path.find("title") is not None and path.find("title").text == "labels from checkouts to fraud"
    ]
    levels = [float(part.split("H")[0].split()[-1]) for part in path.get("d").split("C")[1:] if "H" in part]
    views = [box for name, box in found.items() if name.startswith("Feature view")]
    assert levels
    assert all(not top < levels[0] < bottom for _, top, _, bottom in views)


def test_the_page_s_own_node_is_marked_and_no_link() -> None:
    made = picture(WHOLE, "view:Orders", lambda node: f"/x/{node.name}")
    for svg in (made.across, made.down):
        assert svg.count('aria-current="page"') == 1
        assert 'href="/x/Orders"' not in svg
        assert svg.count("href=") == len(WHOLE.nodes) - 1


def test_of_many_some_are_counted_and_the_page_s_own_is_drawn() -> None:
    made = picture(wide(30), "view:View29", lambda node: None)
    assert made.left_out == {"Feature view": 21}
    assert "View29" in made.across


def test_nothing_is_no_picture() -> None:
    assert picture(Lineage((), ()), "", lambda node: None).across == ""


def test_whatever_things_are_called_is_text() -> None:
    graph = Lineage((Node(MODEL, HOSTILE, HOSTILE),), ())
    made = picture(graph, "", lambda node: None)
    for svg in (made.across, made.down):
        assert "<script" not in svg
        assert ET.fromstring(str(svg)) is not None


@pytest.mark.parametrize(
    ("text", "room", "shown"),
    [("short", 20, "short"), ("a" * 30, 10, "a" * 9 + "…"), ("数" * 10, 10, "数" * 4 + "…"), ("", 5, "")],
)
def test_what_does_not_fit_is_cut(text, room, shown) -> None:
    assert fitted(text, room) == shown
