"""Imports of providers' price files: prices arrive, the rest is counted, and a file that lies is refused by name."""

from __future__ import annotations

import contextlib
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from kit.price_files import (
    AWS_HEADER,
    SAGEMAKER_HEADER,
    aws_csv,
    aws_json,
    aws_rows,
    azure_item,
    azure_pages,
    google_page,
    google_sku,
    sagemaker_rows,
)
from mainspring.core.errors import Invalid, MainspringError, NotFound
from mainspring.cost.catalogue import streamed_json
from mainspring.cost.catalogue.importing import PriceImport, read_prices
from mainspring.cost.catalogue.offers import Offer, catalogue_lines, shipped


def imported(tmp_path: Path, kind: str, text: str, *regions: str) -> tuple[PriceImport, dict[str, Offer]]:
    path = tmp_path / "prices.txt"
    path.write_text(text, encoding="utf-8")
    report, offers = read_prices(path, kind, regions, today="2026-11-30")
    return report, {each.name: each for each in offers}


@pytest.mark.parametrize("indent", [None, 2])
def test_amazons_two_formats_give_the_same_offers(tmp_path: Path, indent: int | None) -> None:
    report, offers = imported(tmp_path, "aws", aws_csv(aws_rows()))
    other, same = imported(tmp_path, "aws", json.dumps(aws_json(aws_rows()), indent=indent))
    assert offers == same
    large = offers["aws/eu-west-1/m7i.large"]
    assert (large.on_demand, large.one_year, large.three_years, large.spot) == (0.11235, 0.0743, 0.0509, None)
    assert (large.vcpus, large.cores, large.memory_gib, large.date) == (2, 1, 8.0, "2026-11-20")
    gpu, arm = offers["aws/eu-west-1/g5.xlarge"], offers["aws/eu-west-1/x8g.48xlarge"]
    assert (gpu.gpu, gpu.gpus, gpu.gpu_gib, gpu.on_demand) == ("A10G", 1, 24.0, 1.123)
    assert (arm.cores, arm.memory_gib) == (192, 3072.0)
    assert len(offers) == 4
    assert (report.read, report.others, report.not_understood) == (13, 7, {})
    assert report.currency == other.currency == "USD"
    assert report.digest != other.digest


def test_instances_of_sagemakers_endpoints_are_read_from_its_own_list(tmp_path: Path) -> None:
    report, offers = imported(tmp_path, "aws", aws_csv(sagemaker_rows(), SAGEMAKER_HEADER))
    _, same = imported(tmp_path, "aws", json.dumps(aws_json(sagemaker_rows())))
    assert offers == same
    large, gpu = offers["aws/eu-west-1/ml.m7i.large"], offers["aws/eu-west-1/ml.g5.2xlarge"]
    assert (large.on_demand, large.vcpus, large.cores, large.memory_gib, large.gpus) == (0.134, 2, 1, 8.0, 0)
    assert (gpu.on_demand, gpu.gpu, gpu.gpus, gpu.gpu_gib, gpu.managed) == (1.69, "A10G", 1, 24.0, True)
    assert offers["aws/eu-west-1/ml.p9.48xlarge"].gpu == "p9"
    assert (len(offers), report.others, report.not_understood) == (3, 4, {})


def test_shipped_instances_of_sagemaker_agree_with_their_machines() -> None:
    """Its list is of the same machines, at 15 to 40 percent more."""
    plain = {each.name: each for each in shipped() if not each.managed}
    managed = [each for each in shipped() if each.managed]
    assert len({each.region for each in managed}) == 6
    for each in managed:
        machine = plain[each.name.replace("/ml.", "/")]
        assert (each.vcpus, each.memory_gib, each.gpu, each.gpus) == (
            machine.vcpus, machine.memory_gib, machine.gpu, machine.gpus,
        )  # fmt: skip
        assert each.on_demand
        assert machine.on_demand
        assert 1.14 < each.on_demand / machine.on_demand < 1.41, each.name
        assert each.low is None or each.high is None or each.low <= each.on_demand <= each.high, each.name
        assert "SageMaker" in each.source


def test_only_the_regions_that_are_asked_for_are_kept(tmp_path: Path) -> None:
    _, offers = imported(tmp_path, "aws", aws_csv(aws_rows()), "us-east-1")
    assert list(offers) == ["aws/us-east-1/m7i.large"]
    with pytest.raises(Invalid, match=r"no price of a machine in \['mars-1'\]"):
        imported(tmp_path, "aws", aws_csv(aws_rows()), "mars-1")


def test_azures_pages_are_read_one_after_the_other(tmp_path: Path) -> None:
    report, offers = imported(tmp_path, "azure", "\ufeff" + azure_pages())
    machine = offers["azure/westeurope/Standard_D2s_v5"]
    assert (machine.on_demand, machine.spot) == (0.115, 0.0243)
    assert machine.one_year == pytest.approx(594 / 8760)
    assert machine.three_years == pytest.approx(1150 / 26_280)
    assert (machine.vcpus, machine.memory_gib) == (2, 8.0)
    assert offers["azure/westeurope/Standard_X9_v9"].vcpus is None
    assert (report.read, report.others, report.kept) == (9, 4, 2)
    items = json.dumps([azure_item()])
    assert list(imported(tmp_path, "azure", items)[1]) == ["azure/westeurope/Standard_D2s_v5"]


def test_googles_parts_are_added_to_machines(tmp_path: Path) -> None:
    report, offers = imported(tmp_path, "google", json.dumps(google_page()), "us-central1")
    machine = offers["google/us-central1/n2-standard-4"]
    assert machine.on_demand == pytest.approx(4 * 0.031611 + 16 * 0.004237)
    assert machine.spot == pytest.approx(4 * 0.007 + 16 * 0.0009)
    assert machine.one_year == pytest.approx(4 * 0.019915 + 16 * 0.002669)
    assert machine.three_years is None
    gpu = offers["google/us-central1/g2-standard-24"]
    assert gpu.on_demand == pytest.approx(24 * 0.024988 + 96 * 0.002927 + 2 * 0.56004)
    assert not [name for name in offers if "a2-" in name], "a part of it has no price"
    assert report.others == 1


def test_googles_parts_agree_with_the_shipped_catalogue(tmp_path: Path) -> None:
    """The parts are of Google's list; the shipped prices of machines came from another table of it."""
    _, offers = imported(tmp_path, "google", json.dumps(google_page()), "us-central1")
    for each in shipped():
        if each.name in offers:
            assert offers[each.name].on_demand == pytest.approx(each.on_demand, rel=1e-3), each.name


def _without(column: str) -> str:
    return aws_csv(aws_rows(), [each for each in AWS_HEADER if each != column])


def _row(**other: str) -> str:
    return aws_csv([*aws_rows()[:1], {**aws_rows()[0], "Instance Type": "m7i.xlarge", **other}])


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("aws", _without("Currency"), "no header has .'Currency'."),
        ("aws", _row(Currency=""), "names no currency at line 7"),
        ("aws", _row(Currency="XXX"), "'XXX', which is no currency"),
        ("aws", _row(Currency="CNY"), "in USD and, at line 7, in CNY"),
        ("aws", "instance,price\nm7i.large,0.1\n", "no price list of EC2"),
        ("aws", "", "no price list of EC2"),
        ("aws", "{", "no JSON near character 1"),
        ("aws", '{"terms": {"OnDemand": {"A": {}}}, "products": {}}', "no products before its terms"),
        ("azure", json.dumps({"Items": [{**azure_item(), "currencyCode": None}]}), "names no currency at item 1"),
        ("azure", json.dumps({"Items": []}), "no Items"),
        ("azure", json.dumps({"Items": [azure_item()]})[:-20], "no JSON near"),
        ("google", json.dumps({"skus": [google_sku("N2 Instance Core", 1, currencyCode="")]}), "names no currency"),
        ("google", json.dumps(google_page()["skus"][:1]), "no price of a machine"),
        ("catalogue", "provider,price\n", "is no catalogue"),
        ("catalogue", aws_csv(aws_rows()), "is no catalogue"),
        ("azure", '{"Items": ' + "[" * 100_000, "nested too deep|no JSON"),
    ],
)  # fmt: skip
def test_a_file_that_is_wrong_is_refused_by_name(tmp_path: Path, kind: str, text: str, said: str) -> None:
    with pytest.raises(MainspringError, match=said):
        imported(tmp_path, kind, text)


@pytest.mark.parametrize("price", ["-0.1", "nan", "inf", "1e9", "", "free"])
def test_a_price_that_is_none_is_counted_and_said(tmp_path: Path, price: str) -> None:
    report, offers = imported(tmp_path, "aws", _row(PricePerUnit=price))
    assert list(offers) == ["aws/eu-west-1/m7i.large"]
    assert sum(report.not_understood.values()) == 1
    assert report.examples[0].startswith("line 7: the price is")
    with_nan = json.dumps({"Items": [azure_item(), azure_item(armSkuName="Standard_E2s_v5", retailPrice=float("nan"))]})
    assert imported(tmp_path, "azure", with_nan)[0].not_understood


def test_a_second_price_and_a_short_row_are_counted(tmp_path: Path) -> None:
    rows = aws_rows()
    text = aws_csv([rows[0], {**rows[0], "PricePerUnit": "0.2"}]) + '"one","two"\n'
    report, offers = imported(tmp_path, "aws", text)
    assert offers["aws/eu-west-1/m7i.large"].on_demand == 0.11235
    assert report.not_understood == {
        "the same offer has two prices": 1, "the row has another number of columns than the header": 1,
    }  # fmt: skip


def test_bytes_that_are_no_text_and_a_line_without_an_end_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    for content in (b"\xff\xfe\x00", aws_csv(aws_rows()).encode() + b'"\xff"\n', b"x" * (3 << 20)):
        path.write_bytes(content)
        with pytest.raises(Invalid, match=r"no UTF-8|over 1,048,576|no price list"):
            read_prices(path, "aws")
    with pytest.raises(NotFound, match="cannot be read"):
        read_prices(tmp_path / "none.csv", "aws")


def test_the_catalogues_own_format_comes_back(tmp_path: Path) -> None:
    _, offers = imported(tmp_path, "catalogue", "\n".join(catalogue_lines(shipped())) + "\n")
    assert list(offers.values()) == list(shipped())


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=150)
@given(
    st.dictionaries(st.sampled_from(["products", "other", "more"]), _VALUES, max_size=3),
    st.dictionaries(st.text(max_size=4), _VALUES, max_size=4),
    st.lists(_VALUES, max_size=4),
    st.integers(1, 7),
    st.sampled_from([None, 2]),
)
def test_members_are_those_of_the_whole_document(
    before: dict[str, Any], wanted: dict[str, Any], elements: list[Any], chunk: int, indent: int | None
) -> None:
    """The oracle is the parser of the whole text; chunks of a few characters cut every token."""
    document = {**before, "terms": {"A": wanted, "B": [1]}, "Items": elements}
    text = json.dumps(document, indent=indent) * 2
    kept, streamed_json._CHUNK = streamed_json._CHUNK, chunk
    try:
        found = list(streamed_json.members(io.StringIO(text), {("terms", "A"), ("Items",)}, "it"))
    finally:
        streamed_json._CHUNK = kept
    once = [(("terms", "A"), key, value) for key, value in wanted.items()]
    once += [(("Items",), "", value) for value in elements]
    assert found == once * 2


class _Endless(io.TextIOBase):
    """Text of a file that is too large to be kept: a beginning, one part many times, an end."""

    def __init__(self, begin: str, part: str, times: int, end: str) -> None:
        self._parts = iter((begin, *(part for _ in range(times)), end))
        self._left = ""

    def read(self, size: int | None = -1) -> str:
        while len(self._left) < (size or 0) and (part := next(self._parts, "")):
            self._left += part
        given, self._left = self._left[:size], self._left[size:]
        return given


def test_memory_does_not_grow_with_the_file() -> None:
    import tracemalloc

    item = json.dumps(azure_item(productName="Virtual Machines Dsv5 Series Windows"))
    page = ",".join([item] * 1000)
    text = _Endless('{"Items": [' + item, "," + page, 20, "]}")  # 10 MB
    tracemalloc.start()
    count = sum(1 for _ in streamed_json.members(text, {("Items",)}, "it"))  # type: ignore[arg-type]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20_001
    assert peak < 8 << 20


def _changed(value: Any, draw: random.Random) -> Any:
    """Return a document with some of its values replaced by others, of any type."""
    if draw.random() < 0.04:
        return draw.choice([None, 1, -1, [], {}, "", "x", True, float("nan"), 1e999, [1], {"a": 1}, 10**400])
    if isinstance(value, dict):
        return {key: _changed(each, draw) for key, each in value.items()}
    return [_changed(each, draw) for each in value] if isinstance(value, list) else value


def _cut(text: str, draw: random.Random) -> bytes:
    """Return a text with some of its bytes replaced, removed and added."""
    content = bytearray(text.encode())
    for _ in range(draw.randint(1, 6)):
        place = draw.randrange(len(content))
        new = bytes(draw.choices(b'{}[]",:\\0e-x\n\r\xff ', k=draw.randint(0, 4)))
        content[place : place + draw.choice((0, 1, 20))] = new
        content = content or bytearray(b"x")
    return bytes(content)


@pytest.mark.parametrize("kind", ["aws csv", "aws", "azure", "google", "catalogue"])
def test_a_damaged_file_is_counted_or_refused_and_nothing_else(tmp_path: Path, kind: str) -> None:
    draw, path = random.Random(kind), tmp_path / "prices"
    documents: dict[str, Any] = {
        "aws": aws_json(aws_rows()),
        "azure": {"Items": [azure_item(), azure_item(type="Reservation")]},
        "google": google_page(),
    }
    texts = {"aws csv": aws_csv(aws_rows()), "catalogue": "\n".join(catalogue_lines(shipped()[:4]))}
    text = texts.get(kind) or json.dumps(documents[kind])
    for _ in range(examples(gate=150, deep=4_000)):
        whole = kind in documents and draw.random() < 0.5
        path.write_bytes(json.dumps(_changed(documents[kind], draw)).encode() if whole else _cut(text, draw))
        with contextlib.suppress(MainspringError):
            report, offers = read_prices(path, kind.partition(" ")[0])
            assert report.kept == len(offers) > 0
