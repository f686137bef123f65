"""Reviews of shops, with functions over their texts: features that are computed at ingestion and on request."""

from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

import mainspring as ms
from kit.oracle import HOUR, MINUTE, Feature, Row, value_at
from mainspring.core.time import parse_instant, to_datetime

START = parse_instant("2024-03-05T10:00:00Z")
LAG = 5 * MINUTE
SHOPS = ["north", "south", "east"]
VOWELS = "aeiou"

shop = ms.Entity("shop", keys={"shop": ms.String})
reviews = ms.Source(
    "reviews",
    schema={"shop": ms.String, "text": ms.String, "stars": ms.Int32},
    event_time="written_at",
    recorded_time="read_at",
    lag=LAG,
)


def vowels(text: str) -> list[float]:
    """The share of each vowel."""
    return [text.count(letter) / max(1, len(text)) for letter in VOWELS]


@ms.python_features(
    entity=shop,
    source=reviews,
    columns=["text", "stars"],
    returns={"letters": ms.Int32, "shout": ms.String, "mix": ms.vector(len(VOWELS))},
)
def ReviewText(text: pa.Array[Any], stars: pa.Array[Any]) -> dict[str, Any]:
    """A text's length, and it in capitals. The text "poison" cannot be read."""
    plain = text.to_pylist()
    if "poison" in plain:
        raise ValueError("poison cannot be read")
    return {
        "letters": pc.utf8_length(text),
        "shout": [None if each is None else each.upper() * stars[n].as_py() for n, each in enumerate(plain)],
        "mix": [None if each is None else vowels(each) for each in plain],
    }


@ms.python_features(
    entity=shop, source=reviews, columns=["text"], returns={"size": ms.Int32}, on_error="quarantine", batch_rows=7
)
def Careful(text: pa.Array[Any]) -> dict[str, Any]:
    """A text's length; the entity keeps its previous value where the text is poison."""
    if "poison" in text.to_pylist():
        raise ValueError("poison cannot be read")
    return {"size": pc.utf8_length(text)}


@ms.python_features(source=reviews, columns=["text"], returns={"letters": ms.Int32, "first": ms.String}, when="request")
def Asked(text: pa.Array[Any]) -> dict[str, Any]:
    """A text's length and its first letter."""
    if "poison" in text.to_pylist():
        raise ValueError("poison cannot be read")
    return {"letters": pc.utf8_length(text), "first": pc.utf8_slice_codeunits(text, 0, 1)}


def batch(seed: int, count: int, *, around: int = START) -> list[dict[str, Any]]:
    """Return reviews within an hour, of which some come late, many at the same instant, and some are poison."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        at = around + rng.randrange(12) * 5 * MINUTE
        words = ["poison"] if rng.random() < 0.1 else rng.choices(["good", "bad", "café", "so so"], k=rng.randrange(4))
        text = None if rng.random() < 0.05 else " ".join(words)
        late = rng.choice([0, 0, MINUTE, HOUR])
        rows.append(
            {
                "written_at": to_datetime(at), "read_at": to_datetime(at + late), "shop": rng.choice(SHOPS),
                "text": text, "stars": rng.randrange(6),
            }
        )  # fmt: skip
    return rows


def computed(name: str, text: str | None, stars: int) -> Any:
    """Return what a feature of `ReviewText` is for one row, without Arrow; null for poison."""
    if text is None or text == "poison":
        return None
    if name.startswith("mix_"):
        return float(pa.scalar(vowels(text)[int(name.removeprefix("mix_"))], pa.float32()).as_py())
    return text.upper() * stars if name == "shout" else len(text)


def expected(name: str, rows: list[Row], key: str, at: int, *, careful: bool = False) -> Any:
    """Return a feature's value for a shop at an instant, by brute force.

    Args:
        rows: Rows of the source in the order of arrival, with the texts and stars as values.
        careful: Whether poison is kept out, so that the shop keeps its previous value.
    """
    seen = [row for row in rows if not (careful and row.values["text"] == "poison")]
    feature = Feature("last", of=lambda values: computed(name, values["text"], values["stars"]))
    return value_at(feature, seen, (key,), at, LAG)[0]
