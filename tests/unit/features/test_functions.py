"""Features of Python functions against a row-by-row oracle: derived tables, both reads, restarts, versions, faults."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import msgspec
import pyarrow as pa
import pytest

import mainspring as ms
from kit.depth import examples
from kit.oracle import Row
from kit.reviews import LAG, SHOPS, START, Asked, Careful, ReviewText, batch, expected, reviews, shop
from mainspring.core.errors import Invalid, NotFound
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import HOUR, ManualClock, from_datetime
from mainspring.data import duck
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.ingest import Ingestor
from mainspring.data.model import QUARANTINE_SUFFIX, SEQUENCE
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.definitions import dump, load
from mainspring.features.functions.child import Misfit, Runner
from mainspring.features.functions.code import code_of
from mainspring.features.functions.deriving import Deriver
from mainspring.features.functions.model import DERIVED_FROM, FAILURE, DerivedSource, RequestFunction
from mainspring.features.functions.process import FunctionFailed, FunctionProcess, FunctionProcesses
from mainspring.features.layout import slot
from mainspring.features.materialise import Materialiser
from mainspring.features.model import FeatureView
from mainspring.features.offline import point_in_time
from mainspring.features.online import OnlineReader

pytestmark = pytest.mark.slow

KEYINGS = {"shop": ("shop",)}
PROCESSES = FunctionProcesses()  # shared by all tests: to start one takes half a second
OUTPUTS = ["letters", "shout", *(f"mix_{n}" for n in range(5))]


class Shop:
    """A lake with reviews, their derived tables, and an online store."""

    def __init__(self) -> None:
        self.lake, self.locks = MemoryLake(), MemoryLocks()
        self.clock = ManualClock(START + 10 * HOUR)
        self.ingestor = Ingestor(self.lake, self.locks, self.clock)
        self.deriver = Deriver(self.lake, self.ingestor, self.locks, PROCESSES)
        self.store = MemoryOnlineStore()

    def land(self, rows: list[dict[str, Any]]) -> None:
        self.ingestor.ingest(reviews, rows, keyings=KEYINGS)

    def derive(self, view: FeatureView = ReviewText) -> Any:
        return self.deriver.derive(derived(view), KEYINGS)

    def rows(self) -> list[Row]:
        """The source's rows as the oracle takes them."""
        with duck.connect() as con:
            duck.register(con, "reviews", self.lake.scan("reviews"))
            found = con.sql(f"SELECT * FROM reviews ORDER BY {SEQUENCE}").to_arrow_table().to_pylist()
        return [
            Row((row["shop"],), from_datetime(row["written_at"]), from_datetime(row["read_at"]), row[SEQUENCE], row)
            for row in found
        ]

    def table(self, name: str) -> list[dict[str, Any]]:
        with duck.connect() as con:
            duck.register(con, "derived", self.lake.scan(name))
            return con.sql(f"SELECT * FROM derived ORDER BY {SEQUENCE}").to_arrow_table().to_pylist()

    def offline(self, view: FeatureView, instants: list[int]) -> list[dict[str, Any]]:
        asked = [(key, at) for at in instants for key in SHOPS]
        observed = pa.table(
            {"shop": [key for key, _ in asked], "_at": pa.array([at for _, at in asked], pa.timestamp("us", tz="UTC"))}
        )
        return point_in_time(observed, [view], self.lake.scan, schema={"shop": ms.String}).to_pylist()


def derived(view: FeatureView) -> DerivedSource:
    assert isinstance(view.source, DerivedSource)
    return view.source


def boundaries(rows: list[Row]) -> list[int]:
    """Each instant at which something becomes visible, and the microseconds beside it."""
    return sorted({row.visible(LAG) + beside for row in rows for beside in (0, 1)})


@pytest.mark.parametrize(("view", "careful"), [(ReviewText, False), (Careful, True)])
def test_both_reads_are_the_oracles_at_every_boundary(view: FeatureView, careful: bool) -> None:
    world = Shop()
    for seed in range(3):
        world.land(batch(seed, 25))
        report = world.derive(view)
        assert report.rows == 25
    rows = world.rows()
    names = {"size": "letters"}
    offline = world.offline(view, boundaries(rows))
    for row in offline:
        at = from_datetime(row["_at"])
        for name in view.names:
            want = expected(names.get(name, name), rows, row["shop"], at, careful=careful)
            assert row[f"{view.name}.{name}"] == want, (name, row)
    for at in boundaries(rows)[:: examples(gate=6, deep=1)]:
        world.clock.set(at)
        online = MemoryOnlineStore()
        Materialiser(world.lake, online, world.clock).run(view)
        read = OnlineReader([view], online).read({"shop": SHOPS}, at).features
        for place, key in enumerate(SHOPS):
            for name in view.names:
                want = expected(names.get(name, name), rows, key, at, careful=careful)
                assert read[f"{view.name}.{name}"][place] == want, (name, key, at)


def test_failures_are_counted_and_say_why() -> None:
    world = Shop()
    world.land(batch(1, 40))
    poison = sum(row.values["text"] == "poison" for row in world.rows())
    assert poison > 0
    report = world.derive()
    assert (report.rows, report.failed) == (40, poison)
    reasons = {row[FAILURE] for row in world.table(derived(ReviewText).name)}
    assert reasons == {None, "ValueError: poison cannot be read"}
    world.derive(Careful)
    aside = world.table(derived(Careful).name + QUARANTINE_SUFFIX)
    assert len(aside) == poison
    assert {row[FAILURE] for row in aside} == {"ValueError: poison cannot be read"}
    cost = world.deriver.cost(derived(Careful))
    assert (cost.rows, cost.failed, cost.behind) == (40, poison, 0)
    assert cost.seconds > 0


def test_a_second_run_computes_nothing_and_only_new_rows_are_computed() -> None:
    world = Shop()
    world.land(batch(1, 30))
    assert world.derive().rows == 30
    version = world.lake.version(derived(ReviewText).name)
    assert world.derive().rows == 0
    assert world.lake.version(derived(ReviewText).name) == version
    world.land(batch(2, 12))
    assert world.deriver.cost(derived(ReviewText)).behind == 12
    assert world.derive().rows == 12


@pytest.mark.parametrize("view", [ReviewText, Careful])
def test_a_restored_source_takes_its_derived_rows_back_without_computing_them_again(view: FeatureView) -> None:
    world = Shop()
    world.land(batch(1, 20))
    version = world.lake.version("reviews")
    world.land(batch(2, 20))
    world.derive(view)
    world.lake.restore("reviews", version)
    world.land(batch(3, 9))
    report = world.derive(view)
    assert (report.rows, report.kept) == (9, 20)
    names = [row[DERIVED_FROM] for row in world.table(derived(view).name)]
    if world.lake.version(derived(view).name + QUARANTINE_SUFFIX) is not None:
        names += [int(row[DERIVED_FROM]) for row in world.table(derived(view).name + QUARANTINE_SUFFIX)]
    rows = world.rows()
    assert sorted(names) == [row.seq for row in rows]
    for row in world.offline(view, [START + 9 * HOUR]):
        name = view.names[0]
        assert row[f"{view.name}.{name}"] == expected(
            "letters", rows, row["shop"], START + 9 * HOUR, careful=view is Careful
        )


class Dies(MemoryLake):
    """A lake whose process ends at one of its writes, before or after it."""

    steps = 0
    dies_at = 0

    def append(self, *arguments: Any, **options: Any) -> Any:
        self._step()
        made = super().append(*arguments, **options)
        self._step()
        return made

    def _step(self) -> None:
        self.steps += 1
        if self.steps == self.dies_at:
            raise KeyboardInterrupt


def test_a_run_that_dies_at_any_write_is_continued() -> None:
    for step in range(1, 50):
        world = Shop()
        world.lake = lake = Dies()
        world.ingestor = Ingestor(world.lake, world.locks, world.clock)
        world.deriver = Deriver(world.lake, world.ingestor, world.locks, PROCESSES)
        world.land(batch(4, 30))
        world.derive(Careful)
        world.land(batch(5, 30))
        lake.steps, lake.dies_at = 0, step
        try:
            world.derive(Careful)
        except KeyboardInterrupt:
            lake.dies_at = 0
            world.derive(Careful)
        else:
            assert step > 4
            return
        rows = world.rows()
        for row in world.offline(Careful, [START + 9 * HOUR]):
            assert row["Careful.size"] == expected("letters", rows, row["shop"], START + 9 * HOUR, careful=True)


def test_windows_over_outputs_are_a_view_like_any_other() -> None:
    world = Shop()
    world.land(batch(1, 40))
    world.derive()

    @ms.feature_view(entity=shop, source=ReviewText.source)
    class Lengths:
        mean_1h = ms.mean("letters", window="1h")

    world.deriver.derive(derived(ReviewText), KEYINGS)
    at = START + 2 * HOUR
    seen = [row for row in world.rows() if row.visible(LAG) < at and at - HOUR <= row.event]
    for row in world.offline(Lengths, [at]):
        lengths = [
            len(each.values["text"])
            for each in seen
            if each.key == (row["shop"],) and each.values["text"] not in (None, "poison")
        ]
        found = row["Lengths.mean_1h"]
        assert found == pytest.approx(sum(lengths) / len(lengths)) if lengths else found is None


def test_request_features_are_the_same_in_both_reads() -> None:
    texts = ["good", None, "café", "poison", ""]
    observed = pa.table({"text": texts, "_at": pa.array([START] * 5, pa.timestamp("us", tz="UTC"))})

    def no_scan(_: str) -> Any:
        raise NotFound("no table is read")

    offline = point_in_time(observed, [Asked], no_scan, schema=reviews.columns)
    patient = replace(Asked, function=replace_timeout(Asked, 60_000_000))
    reader = OnlineReader([patient], MemoryOnlineStore(), schema=reviews.columns)
    online = reader.read({"text": texts}, START)
    wanted = {"Asked.letters": [4, None, 4, None, 0], "Asked.first": ["g", None, "c", None, ""]}
    assert {name: offline.column(name).to_pylist() for name in wanted} == wanted
    assert online.features == wanted
    assert [each.function.name for each in reader.functions]


def test_definitions_carry_the_code() -> None:
    observations = ms.Observations(reviews, keys=[shop], at=ms.col("written_at"))
    groups, _ = load(dump([ReviewText, Asked], observations))
    view, request = groups
    assert isinstance(view, FeatureView)
    assert isinstance(request, RequestFunction)
    assert derived(view).function == derived(ReviewText).function
    assert derived(view).parent.name == "reviews"
    assert (slot(view), view.columns, view.source.columns) == (
        slot(ReviewText), ReviewText.columns, ReviewText.source.columns,
    )  # fmt: skip
    assert request.function == Asked.function
    assert request.columns == Asked.columns
    world = Shop()
    world.land(batch(1, 10))
    assert world.derive(view).rows == 10


# Faults: each names the function.


def times(text: pa.Array[Any]) -> dict[str, Any]:
    return {"at": [time.time_ns()] * len(text)}


def mean(text: pa.Array[Any]) -> dict[str, Any]:
    return {"at": [sum(len(each or "") for each in text.to_pylist())] * len(text)}


def process_id(text: pa.Array[Any]) -> dict[str, Any]:
    return {"at": [os.getpid()] * len(text)}


def hangs(text: pa.Array[Any]) -> dict[str, Any]:
    time.sleep(60)
    return {"at": [0] * len(text)}


def crashes(text: pa.Array[Any]) -> dict[str, Any]:
    os._exit(3)


def short(text: pa.Array[Any]) -> dict[str, Any]:
    return {"at": [0] * (len(text) - 1)}


def misnamed(text: pa.Array[Any]) -> dict[str, Any]:
    return {"when": [0] * len(text)}


def mistyped(text: pa.Array[Any]) -> dict[str, Any]:
    return {"at": ["x"] * len(text)}


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (times, "called twice on the same rows"),
        (mean, "called on row 0 alone and among 20 rows"),
        (process_id, "called in two processes"),
        (hangs, "was stopped: it ran for 500ms on 20 rows"),
        (crashes, "ended its process on 20 rows"),
    ],
)
def test_a_function_that_cannot_be_used_is_named(function: Any, says: str) -> None:
    world = Shop()
    world.land(batch(1, 20))
    view = ms.python_features(
        entity=shop, source=reviews, columns=["text"], returns={"at": ms.Int64},
        timeout="500ms" if function is hangs else "1m",
    )(function)  # fmt: skip
    with pytest.raises(FunctionFailed, match=f"{function.__name__}.*{says}"):
        world.derive(view)
    assert world.lake.version(derived(view).name) is None


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (short, "returns 4 values of 'at' for 5 rows"),
        (misnamed, r"returns \['when'\], not a mapping of \['at'\]"),
        (mistyped, "returns 'at' as string, not Int64"),
        (lambda text: {"at": len(text)}, "which is no column"),
        (lambda text: [1] * len(text), "returns a list"),
        (lambda text: {"at": [1.5] * len(text)}, "as double, not Int64"),
    ],
)
def test_a_result_of_another_form_is_refused(function: Any, says: str) -> None:
    declared = derived(
        ms.python_features(entity=shop, source=reviews, columns=["text"], returns={"at": ms.Int64})(times)
    ).function
    with pytest.raises(Misfit, match=says):
        Runner(declared, function).run(pa.table({"text": ["a"] * 5}))


def test_what_was_spent_is_told_while_a_call_runs() -> None:
    slow = ms.python_features(
        entity=shop, source=reviews, columns=["text"], returns={"size": ms.Int64}, timeout="1m"
    )(hangs)  # fmt: skip
    process = FunctionProcess(derived(slow).function)
    process.start()

    def hang() -> None:
        with suppress(FunctionFailed):
            process.values({"text": ["a"]}, 1)

    call = threading.Thread(target=hang)
    call.start()
    time.sleep(0.3)
    began = time.monotonic()
    assert process.spent() == (0, 0.0)
    assert time.monotonic() - began < 5.0
    assert call.is_alive(), "the call runs for a minute"
    process.close()
    call.join()


def test_a_process_is_started_again_after_a_hang() -> None:
    function = replace_timeout(Asked, 30_000_000)
    process = FunctionProcess(function)
    assert process.values({"text": ["ab"]}, 1) == {"letters": [2], "first": ["a"]}
    process.close()
    assert process.values({"text": ["ab"]}, 1) == {"letters": [2], "first": ["a"]}
    process.close()


def replace_timeout(group: RequestFunction, timeout_us: int) -> Any:
    return msgspec.structs.replace(group.function, timeout_us=timeout_us)


# Declarations


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"columns": ["texts"]}, r"reads \['texts'\]"),
        ({"columns": []}, "reads no columns"),
        ({"columns": ["stars"]}, "cannot be called with"),
        ({"returns": {"at": "int"}}, "type 'int'"),
        ({"returns": {}}, "returns 0 features"),
        ({"returns": {"shop": ms.String}}, "returns 'shop', which is another column"),
        ({"returns": {"a_0": ms.Float32, "a": ms.vector(1)}}, "two features of one name"),
        ({"when": "later"}, "computed at 'later'"),
        ({"on_error": "ignore"}, "on_error='ignore'"),
        ({"batch_rows": 0}, "batches of 0 rows"),
        ({"entity": ms.Entity("writer", keys={"writer": ms.String})}, r"lacks \['writer'\]"),
        ({"entity": None}, "The entity of a feature function"),
    ],
)
def test_a_declaration_that_does_not_fit_is_refused(changed: dict[str, Any], says: str) -> None:
    declared = {"entity": shop, "source": reviews, "columns": ["text"], "returns": {"at": ms.Int64}, **changed}
    with pytest.raises(Invalid, match=says):
        ms.python_features(**declared)(times)


def test_only_plain_functions_have_a_version() -> None:
    def nested(text: Any) -> Any:
        return text

    for function in (nested, lambda text: text, str.upper):
        with pytest.raises(Invalid, match="not a plain function"):
            code_of(function)


MODULE = """\
import math
import words
from words import COUNTED as counted

LIMIT = 3

@something
def other(x):
    return x


def helper(x):
    return LIMIT + math.floor(x)


{decorator}
def feature(text):
    {comment}return helper(len(text)) + counted
"""


@pytest.fixture
def module(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Write a module and return its function's code."""
    import importlib
    import sys

    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("sys.dont_write_bytecode", True)

    def written(text: str, words: str = "COUNTED = 1\n") -> Any:
        (tmp_path / "shop_of_texts.py").write_text(text.replace("@something", "").format(decorator="", comment=""))
        (tmp_path / "words.py").write_text(words)
        for name in ("shop_of_texts", "words"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return code_of(importlib.import_module("shop_of_texts").feature)

    yield written
    for name in ("shop_of_texts", "words"):
        sys.modules.pop(name, None)


def test_a_version_is_of_what_the_function_uses(module: Any) -> None:
    code = module(MODULE)
    assert "other" not in code.text
    assert "LIMIT = 3" in code.text
    assert "import math" in code.text
    assert list(code.files) == ["words"]
    assert module(MODULE).digest == code.digest
    assert module(MODULE.replace("return x", "return x + 1")).digest == code.digest
    assert module(MODULE.replace("LIMIT = 3", "LIMIT = 4")).digest != code.digest
    assert module(MODULE.replace("math.floor", "math.ceil")).digest != code.digest
    assert module(MODULE, "COUNTED = 2\n").digest != code.digest


def test_a_changed_function_is_another_table_and_the_old_one_stays() -> None:
    world = Shop()
    world.land(batch(1, 20))
    world.derive()
    made = derived(ReviewText)
    function = msgspec.structs.replace(made.function, version="2")
    from mainspring.features.functions.declaring import derive

    other = derive(reviews, shop.keys, function)
    assert other.name != made.name
    new = replace(ReviewText, source=other)
    assert slot(new) != slot(ReviewText)
    before = world.offline(ReviewText, [START + 9 * HOUR])
    world.deriver.derive(other, KEYINGS)
    assert world.offline(ReviewText, [START + 9 * HOUR]) == before
    assert [row["ReviewText.letters"] for row in world.offline(new, [START + 9 * HOUR])] == [
        row["ReviewText.letters"] for row in before
    ]
