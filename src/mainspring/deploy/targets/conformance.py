"""Tests that every target and every store of records passes; subclass them for a new adapter."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from urllib.parse import quote

import pytest

from mainspring.core.errors import Conflict, Invalid
from mainspring.deploy.targets import deploying
from mainspring.deploy.targets.model import ABSENT, Deployment, Made, Piece, Service
from mainspring.deploy.targets.ports import Records, Target

HIDDEN = "correct horse: battery/9"


def deployment(**changes: object) -> Deployment:
    usual = Deployment(
        project="shop",
        target="east",
        profile="production",
        services=(
            Service(endpoint="late", model="late", version="late:3", bundle="ab" * 32, memory=40 << 20),
            Service(endpoint="price", model="price", version="price:12", bundle="cd" * 32),
        ),
        image="registry.example.org/shop@sha256:" + "0f" * 32,
        env={"MAINSPRING_CATALOG_HOST": "db.example.org"},
        secrets=("MAINSPRING_CATALOG",),
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


class Cut(Exception):
    """The process of a deployment ends here."""


class _Cutting:
    """A target whose process dies after, or before, its n-th change."""

    def __init__(self, inner: Target, number: int, *, before: bool) -> None:
        self._inner, self._left, self._before = inner, number, before
        self.render, self.problems, self.look = inner.render, inner.problems, inner.look

    def _do(self, change: Callable[[], None]) -> None:
        self._left -= 1
        if self._before and not self._left:
            raise Cut
        change()
        if not self._left:
            raise Cut

    def make(self, piece: Piece) -> None:
        self._do(lambda: self._inner.make(piece))

    def remove(self, id: str) -> None:
        self._do(lambda: self._inner.remove(id))


class TargetConformance:
    """Fixtures: `target`, with nothing at its place; `records`, empty.

    Attributes:
        CHANGES: Fields of a deployment without which this kind of target has none.
    """

    CHANGES: Mapping[str, object] = {}
    READY_S = 30.0

    def pieces(self, target: Target, **changes: object) -> list[Piece]:
        return deploying.rendered(target, deployment(**{**self.CHANGES, **changes}), {"the password": HIDDEN})

    def deploy(self, target: Target, records: Records, pieces: Sequence[Piece], through: Target | None = None) -> int:
        planned = deploying.plan(target, "east", pieces, records)
        done = deploying.apply(through or target, planned, pieces, records, lambda: 7)
        return sum(each.done for each in done)

    def destroy(self, target: Target, records: Records) -> None:
        assert all(each.change.action == "remove" for each in deploying.destroy(target, "east", records, lambda: 9))

    def test_the_same_deployment_renders_the_same_bytes(self, target: Target) -> None:
        pieces, again = self.pieces(target), self.pieces(target)
        assert pieces
        assert pieces == again
        other = self.pieces(target, replicas=(2, 5), memory=3 << 30)
        assert [each.digest for each in other] != [each.digest for each in pieces]

    def test_what_is_rendered_touches_nothing(self, target: Target, records: Records) -> None:
        pieces = self.pieces(target)
        assert target.look([each.id for each in pieces]) == [ABSENT] * len(pieces)
        planned = deploying.plan(target, "east", pieces, records)
        assert {change.action for change in planned.changes} == {"make"}
        assert target.look([each.id for each in pieces]) == [ABSENT] * len(pieces)
        assert records.targets() == []

    def test_deployed_again_nothing_is_done(self, target: Target, records: Records) -> None:
        pieces = self.pieces(target)
        assert self.deploy(target, records, pieces) == len(pieces)
        statuses = deploying.await_ready(target, pieces, self.READY_S)
        assert {each.state for each in statuses} == {"ready"}, statuses
        assert [each.state for each in deploying.status(target, "east", records)] == ["ready"] * len(pieces)
        assert deploying.plan(target, "east", pieces, records).nothing
        assert self.deploy(target, records, pieces) == 0

    def test_a_changed_definition_changes_and_removes_what_it_has_to(self, target: Target, records: Records) -> None:
        before = self.pieces(target)
        self.deploy(target, records, before)
        after = self.pieces(target, replicas=(2, 5), services=deployment().services[:1], worker=False)
        planned = deploying.plan(target, "east", after, records)
        gone = {each.id for each in before} - {each.id for each in after}
        assert {change.piece for change in planned.changes if change.action == "remove"} == gone
        assert not planned.nothing
        self.deploy(target, records, after)
        assert [each.digest for each in target.look([each.id for each in after])] == [each.digest for each in after]
        assert target.look(sorted(gone)) == [ABSENT] * len(gone)
        assert {each.piece for each in records.made("east")} == {each.id for each in after}

    @pytest.mark.parametrize("before", [True, False])
    def test_a_deployment_that_was_cut_off_is_resumed(self, target: Target, records: Records, before: bool) -> None:
        pieces = self.pieces(target)
        for number in {1, (len(pieces) + 1) // 2, len(pieces)}:
            with pytest.raises(Cut):
                self.deploy(target, records, pieces, _Cutting(target, number, before=before))
            halves = [each for each in deploying.status(target, "east", records) if each.state == "half made"]
            assert [each.piece for each in halves] == [pieces[number - 1].id]
            self.deploy(target, records, pieces)
            assert deploying.plan(target, "east", pieces, records).nothing
            self.destroy(target, records)

    @pytest.mark.parametrize("before", [True, False])
    def test_what_is_half_made_or_half_removed_can_be_destroyed(
        self, target: Target, records: Records, before: bool
    ) -> None:
        pieces = self.pieces(target)
        with pytest.raises(Cut):
            self.deploy(target, records, pieces, _Cutting(target, len(pieces), before=before))
        with pytest.raises(Cut):
            self.destroy(_Cutting(target, max(1, len(pieces) // 2), before=before), records)
        self.destroy(target, records)
        assert target.look([each.id for each in pieces]) == [ABSENT] * len(pieces)
        assert records.targets() == []
        self.destroy(target, records)

    def test_what_somebody_removed_is_made_again(self, target: Target, records: Records) -> None:
        pieces = self.pieces(target)
        self.deploy(target, records, pieces)
        target.remove(pieces[-1].id)
        states = {each.piece: each.state for each in deploying.status(target, "east", records)}
        assert states[pieces[-1].id] == "absent"
        planned = deploying.plan(target, "east", pieces, records)
        assert [change.action for change in planned.changes][-1] == "make"
        self.deploy(target, records, pieces)
        assert deploying.plan(target, "east", pieces, records).nothing

    @pytest.mark.parametrize("spelt", [HIDDEN, quote(HIDDEN, safe=""), base64.b64encode(HIDDEN.encode()).decode()])
    def test_a_secret_in_a_piece_is_refused(self, target: Target, spelt: str) -> None:
        with pytest.raises(Invalid, match="would contain the value of the password, a secret"):
            self.pieces(target, env={"NOTE": f"it is {spelt}"})

    def test_what_is_not_there_is_removed_without_an_error(self, target: Target) -> None:
        pieces = self.pieces(target)
        target.remove(pieces[-1].id)
        target.remove(pieces[0].id)

    @pytest.mark.parametrize("name", ["x" * 300, "Ärger", "a b", "../up", "a/b", ""])
    def test_a_name_that_the_target_forbids_is_named(self, target: Target, name: str) -> None:
        """A target either refuses the name of an endpoint, or makes another of it that it takes."""
        services = (replace(deployment().services[0], endpoint=name),)
        refused, pieces = None, list[Piece]()
        try:
            pieces = self.pieces(target, services=services)
        except Invalid as error:
            refused = error
        assert refused is None or (name[:20] in str(refused) and refused.fix)
        assert not any({"", "..", "."} & set(piece.name.split("/")) for piece in pieces)


class RecordsConformance:
    """Fixture: `records`, empty."""

    def test_records_are_kept_replaced_and_forgotten(self, records: Records) -> None:
        assert records.targets() == []
        assert records.made("east") == []
        first = Made(piece="File/a", position=1, digest="aa", done=False, at=5)
        second = Made(piece="File/b", position=0, digest="bb", done=True, at=6)
        records.keep("east", [first, second])
        records.keep("west", [first])
        records.keep("east", [])
        assert records.made("east") == [second, first]
        records.keep("east", [replace(first, done=True, digest="cc", at=7)])
        assert records.made("east") == [second, replace(first, done=True, digest="cc", at=7)]
        assert records.targets() == ["east", "west"]
        records.forget("east", ["File/a", "File/b", "File/never"])
        assert records.made("east") == []
        assert records.targets() == ["west"]
        assert records.made("west") == [first]


class OthersConformance:
    """Fixtures: `target`, `records`, and `taken`: makes something with the id of a piece as another person would.

    Attributes:
        CHANGES: As of `TargetConformance`.
    """

    CHANGES: Mapping[str, object] = {}

    def test_what_others_made_is_not_touched(
        self, target: Target, records: Records, taken: Callable[[Piece], None]
    ) -> None:
        pieces = deploying.rendered(target, deployment(**self.CHANGES), {})
        taken(pieces[0])
        planned = deploying.plan(target, "east", pieces, records)
        with pytest.raises(Conflict, match=pieces[0].name.split("/")[-1]):
            list(deploying.apply(target, planned, pieces, records, lambda: 7))
