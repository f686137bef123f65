"""Ratings of answers by those who got them: kept on the disk of a gateway until the worker has ingested them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import msgspec

from mainspring.core.errors import Invalid, NotFound, Overloaded
from mainspring.core.files import make_folder, write_atomic
from mainspring.ledger.model import Prediction
from mainspring.vectors.served import SearchThreads

FOLDER = "ratings"
_REFUSED = "refused"
_MOST = 10_000  # that wait
_LATER_MS = 10_000
_WAITING = 16  # requests at once


class NoAnswer(NotFound):
    """There is no answer of the id that a caller gives, or none that the caller may see."""


class Rating(msgspec.Struct, frozen=True, kw_only=True):
    """Feedback on an answer.

    Attributes:
        column: Of the chain's feedback; `value` is one of its.
        reason: Text for the column "reason" of the column's source; empty for none.
        by: Id of the key that gave it.
    """

    answers: str
    answer: str
    column: str
    value: bool | int | float
    reason: str = ""
    by: str = ""


class KeptRatings:
    """Ratings in a folder, of each column of an answer the last one. Processes may share it; one ingests.

    Args:
        find: Returns a prediction of the log; called in a thread. It raises NotFound.
    """

    def __init__(self, folder: Path, find: Callable[[str], Prediction]) -> None:
        self._folder, self._find = folder, find
        self._threads = SearchThreads(FOLDER, threads=1, most_waiting=_WAITING)

    async def keep(self, rating: Rating, *, all_: bool) -> None:
        """Keep a rating; it survives the process.

        Args:
            all_: Whether its giver may see everybody's answers.

        Raises:
            NoAnswer: There is no such answer of the chain, or it was given to another key.
            Overloaded: Too many wait.
            StorageFull: There is no space.
        """
        await self._threads.run(lambda: self._keep(rating, all_), rating.by)

    def _keep(self, rating: Rating, all_: bool) -> None:
        try:
            logged: Prediction | None = self._find(rating.answer)
        except (Invalid, NotFound):
            logged = None
        if logged is None or logged.endpoint != rating.answers or not (all_ or logged.principal == rating.by):
            raise NoAnswer(
                f"There is no answer {rating.answer[:64]!r} of {rating.answers!r} that you may rate.",
                fix="give the id of an answer that this key got; it is known within a second.",
            )
        make_folder(self._folder)
        if sum(1 for _ in self._folder.glob("*.json")) >= _MOST:
            raise Overloaded("Too many ratings wait to be ingested.", retry_after_ms=_LATER_MS)
        name = f"{rating.answer}-{blake2b(rating.column.encode(), digest_size=6).hexdigest()}.json"
        write_atomic(self._folder / name, msgspec.json.encode(rating))

    def close(self) -> None:
        """End the thread."""
        self._threads.close()


def waiting(folder: Path) -> Iterator[tuple[Path, Rating]]:
    """Yield the ratings that wait, each taken away from those that write, with a file to delete once it is ingested.
    One that was not deleted comes again. Belongs to one process."""
    for kept in sorted(folder.glob("*.json")):
        taken = kept.with_suffix(".taken")
        if not taken.exists():  # else the one before is ingested first
            with suppress(FileNotFoundError):
                kept.rename(taken)
    for taken in sorted(folder.glob("*.taken")):
        yield taken, msgspec.json.decode(taken.read_bytes(), type=Rating)


def kept(folder: Path) -> Iterator[tuple[Path, Rating]]:
    """Yield every rating of the folder with its file: those that wait, and those that could not be ingested."""
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.taken"), *(folder / _REFUSED).glob("*.json")]):
        with suppress(FileNotFoundError, msgspec.DecodeError):  # it was ingested meanwhile
            yield path, msgspec.json.decode(path.read_bytes(), type=Rating)


def refuse(taken: Path) -> Path:
    """Put a rating away that cannot be ingested, and return where it is."""
    make_folder(taken.parent / _REFUSED)
    return taken.rename(taken.parent / _REFUSED / taken.with_suffix(".json").name)
