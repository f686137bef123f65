"""The features of a package: typed operations in the order in which they are computed, one row at a time.

`features.json` is made by `mainspring edge build`, which resolved all types: a step names its operation, its type, and
the earlier steps that are its arguments. So this runtime decides nothing about types.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mainspring_edge.errors import InvalidRow, Refused
from mainspring_edge.operations import OPERATIONS, Operation, cast, clip, extreme, of_one, one_of, slice_of
from mainspring_edge.values import from_json, reader
from mainspring_edge.wall_clocks import part_of, start_of

FORMAT = 1

_Step = Callable[[list[Any]], Any]


class Features:
    """Features by their full names, from a row of inputs.

    Args:
        content: A verified `features.json`.

    Raises:
        Refused: This runtime does not know its format or one of its operations.

    Attributes:
        inputs: Input -> type: string, boolean, int32, int64, float32, float64 or timestamp.
        names: The features, in order.
    """

    def __init__(self, content: bytes) -> None:
        document = json.loads(content)
        if document["format"] != FORMAT:
            raise Refused("format", f"features.json has the format {document['format']}; this runtime reads {FORMAT}.")
        self.inputs: dict[str, str] = document["inputs"]
        self.names = list(document["features"])
        self._readers = [(name, reader(name, dtype)) for name, dtype in self.inputs.items()]
        places = {name: place for place, name in enumerate(self.inputs)}
        self._steps: list[_Step] = []
        self._dtypes: list[str] = []
        for step in document["steps"]:
            self._steps.append(self._compile(step, document["zones"], places))
            self._dtypes.append(step["dtype"])
        self._places = [len(self._readers) + step for step in document["features"].values()]

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
        """Return each row's features, in the order of `names`, null as `None`.

        Raises:
            InvalidRow: A row lacks an input, or has a value of another type. Other fields are ignored.
        """
        found = []
        for row in rows:
            values: list[Any] = []
            for name, read in self._readers:
                if name not in row:
                    raise InvalidRow(f"The row lacks the input {name!r}; it has {sorted(row)}.")
                values.append(read(row[name]))
            for step in self._steps:
                values.append(step(values))
            found.append([values[place] for place in self._places])
        return found

    def _compile(self, step: Mapping[str, Any], zones: Mapping[str, Any], inputs: Mapping[str, int]) -> _Step:
        name, dtype = step["op"], step["dtype"]
        if name == "column":
            place = inputs[step["name"]]
            return lambda values: values[place]
        if name == "literal":
            constant = from_json(step["value"], dtype)
            return lambda _: constant
        places = [len(self._readers) + place for place in step["args"]]
        function = self._function(step, zones)
        if function is None or not all(place < len(self._readers) + len(self._steps) for place in places):
            raise Refused("features", f"A feature needs the operation {name!r} of {dtype}, unknown to this runtime.")
        return _called(function, places)

    def _function(self, step: Mapping[str, Any], zones: Mapping[str, Any]) -> Operation | None:
        name, dtype = step["op"], step["dtype"]
        if name in ("time_part", "time_start"):
            make: Any = part_of if name == "time_part" else start_of
            field = make(step["name"], zones[step["zone"]])
            return None if field is None else of_one(field)
        if name in ("least", "greatest"):
            return extreme(name, dtype)
        if name == "slice":
            return slice_of(*step["options"])
        source = self._dtypes[step["args"][0]]
        if name == "cast":
            return cast(source, dtype)
        if name in ("clip", "one_of"):
            options = [from_json(option, source) for option in step["options"]]
            return clip(*options) if name == "clip" else one_of(options)
        return OPERATIONS.get(name)


def _called(function: Operation, places: Sequence[int]) -> _Step:
    if len(places) == 1:
        (only,) = places
        return lambda values: function(values[only])
    if len(places) == 2:
        left, right = places
        return lambda values: function(values[left], values[right])
    return lambda values: function(*[values[place] for place in places])
