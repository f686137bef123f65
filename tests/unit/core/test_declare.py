import sys
import textwrap
import threading
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import mainspring as ms
from mainspring.core.definition_registry import Declared, Place, caller, collecting, declare

PROJECT = """
import mainspring as ms

carrier = ms.Entity("carrier", keys={"carrier": ms.String})
flights = ms.Source(
    "flights",
    schema={"carrier": ms.String},
    event_time="at",
)
"""


def load(path: Path) -> Declared:
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    with collecting() as declared:
        spec.loader.exec_module(module_from_spec(spec))
    return declared


def test_definitions_are_collected_in_order_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "features.py"
    path.write_text(textwrap.dedent(PROJECT))
    declared = load(path)
    assert [type(item) for item, _ in declared.items] == [ms.Entity, ms.Source]
    (entity,) = declared.of(ms.Entity)
    assert declared.place(entity) == Place(str(path), 4)
    assert str(declared.place(declared.of(ms.Source)[0])) == f"{path}:5"


def test_a_module_whose_name_begins_like_ours_is_the_users() -> None:
    names = {"caller": caller, "__name__": "mainspring_project.features"}
    exec(compile("place = caller()", "features.py", "exec"), names)
    assert names["place"] == Place("features.py", 1)


def test_without_a_frame_of_the_users_the_outermost_is_named() -> None:
    names = {"caller": caller, "__name__": "mainspring.anything"}
    exec(compile("place = caller()", "ours.py", "exec"), names)
    assert names["place"] == Place(__file__, sys._getframe().f_lineno - 1)


def test_without_a_collector_nothing_happens() -> None:
    declare(object())
    with collecting() as declared:
        pass
    declare(object())
    assert declared.items == []


def test_collectors_nest_and_keep_apart() -> None:
    with collecting() as outer:
        declare("a")
        with collecting() as inner:
            declare("b")
        declare("c")
    assert [item for item, _ in outer.items] == ["a", "c"]
    assert [item for item, _ in inner.items] == ["b"]


def test_another_threads_definitions_are_not_ours() -> None:
    with collecting() as declared:
        thread = threading.Thread(target=declare, args=("theirs",))
        thread.start()
        thread.join()
    assert declared.items == []


def test_an_unknown_item_has_no_place() -> None:
    assert Declared().place(object()) == Place("<unknown>", 0)
