"""Parser of tensors on a command line: `NAME:DATATYPE` or `NAME:DATATYPE:-1,4`."""

from __future__ import annotations

from mainspring.core.errors import Invalid
from mainspring.registry.model import TensorSpec
from mainspring.serving.protocol.tensor import DATATYPES


def parse_spec(text: str) -> TensorSpec:
    """Return the tensor that `text` describes; without dimensions it has one value per row.

    Raises:
        Invalid: The text is not valid.
    """
    name, _, rest = text.partition(":")
    datatype, _, dims = rest.partition(":")
    try:
        shape = tuple(int(size) for size in dims.split(",")) if dims else (-1,)
    except ValueError:
        shape = ()
    if not name or datatype not in DATATYPES or shape[:1] != (-1,) or any(size != -1 and size < 1 for size in shape):
        raise Invalid(
            f"{text!r} is not a tensor specification.",
            fix=f"write NAME:DATATYPE:-1,4 (the first dimension, -1, is the rows); datatypes: {', '.join(DATATYPES)}.",
        )
    return TensorSpec(name, datatype, shape)
