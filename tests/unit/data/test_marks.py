"""A batch of a stream is ingested once, with its marks, whatever becomes of its rows."""

from typing import Any

import pytest

from kit.landing import ROW, Landing, source
from mainspring.core.errors import Conflict
from mainspring.data.checks import in_range
from mainspring.data.write_keys import numbered


class Streamed(Landing):
    def batch(self, number: int, since: int | None, until: int, *rows: dict[str, Any]) -> tuple[int, int, int]:
        report = self.ingest(
            rows, batch_id=numbered("facts", number), marks={"offset": until, "n": number}, since={"offset": since}
        )
        return report.rows, report.quarantined, report.already

    def marks(self) -> dict[str, int]:
        return self.lake.marks("facts", ["offset", "n"])


def test_marks_go_with_the_rows() -> None:
    landing = Streamed(source(checks=[in_range("small", 0, 9)]))
    assert landing.batch(1, None, 3, ROW, {**ROW, "small": 77}) == (1, 1, 0)
    assert landing.marks() == {"offset": 3, "n": 1}
    versions = landing.lake.version("facts")
    assert landing.batch(1, None, 3, ROW, {**ROW, "small": 77}) == (0, 0, 2)
    assert landing.lake.version("facts") == versions
    with pytest.raises(Conflict, match="marks"):
        landing.batch(2, 2, 5, ROW)
    assert landing.batch(2, 3, 5, ROW) == (1, 0, 0)
    assert (len(landing.landed()), len(landing.quarantined())) == (2, 1)


def test_a_batch_without_rows_moves_the_marks() -> None:
    landing = Streamed(source(checks=[in_range("small", 0, 9)]))
    assert landing.batch(1, None, 1, {**ROW, "small": 77}) == (0, 1, 0)
    assert landing.batch(2, 1, 2, {**ROW, "small": 78}) == (0, 1, 0)
    assert landing.marks() == {"offset": 2, "n": 2}
    assert (landing.landed(), len(landing.quarantined())) == ([], 2)


def test_no_marks_before_the_last_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """A load whose rows change earlier ones takes two versions: only the second has the marks."""
    landing = Streamed(batch_rows=2)
    late = [{**ROW, "at": f"2013-07-01T0{hour}:00:00Z"} for hour in range(1, 6)]
    seen = []
    append = landing.lake.append

    def watched(table: str, *arguments: Any, **options: Any) -> int | None:
        made = append(table, *arguments, **options)
        if table == "facts":
            seen.append((len(landing.landed()), landing.marks()))
        return made

    monkeypatch.setattr(landing.lake, "append", watched)
    landing.batch(1, None, 5, *late)
    assert [(rows, bool(marks)) for rows, marks in seen if rows] == [(2, False), (4, False), (5, True)]
