from typing import Any

import pytest

import mainspring as ms
from mainspring.core.errors import Invalid
from mainspring.core.schema import DType, check_schema


def test_a_good_schema_is_returned() -> None:
    schema = {"origin": ms.String, "dep_delay": ms.Float32, "at": ms.Timestamp}
    assert check_schema(schema, "Source 's'") == schema


@pytest.mark.parametrize("name", ["", "_ours", "two words", "1st", 'quo"te', "a.b"])
def test_a_column_needs_a_name(name: str) -> None:
    with pytest.raises(Invalid, match="Source 's' has a column") as caught:
        check_schema({name: ms.String}, "Source 's'")
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("dtype", ["string", str, None, 3, [], DType.Duration])
def test_a_column_needs_one_of_our_types(dtype: Any) -> None:
    with pytest.raises(Invalid, match="declares column 'x' with the type"):
        check_schema({"x": dtype}, "Source 's'")


def test_types_print_as_they_are_written() -> None:
    assert repr(ms.Float32) == "Float32"
    assert [dtype for dtype in DType if dtype.numeric] == [DType.Int32, DType.Int64, DType.Float32, DType.Float64]
