"""Conformance suite of the stores of versions and aliases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from mainspring.core.errors import Conflict, Invalid, NotFound
from mainspring.core.time import SECOND
from mainspring.registry.model import AliasMove
from mainspring.registry.ports import ModelVersions

A, B = "a" * 64, "b" * 64


class VersionsConformance:
    """The fixture `versions` is an empty store."""

    def test_versions_count_up_by_model(self, versions: ModelVersions) -> None:
        first = versions.register("late", A, "run1", {"dataset": "d1"}, SECOND)
        second = versions.register("late", B, "run2", {}, 2 * SECOND)
        other = versions.register("fraud", A, "run3", {}, 3 * SECOND)
        assert [version.version for version in (first, second, other)] == ["1", "2", "1"]
        assert versions.get("late", "1") == first
        assert versions.all() == [other, second, first]
        assert (first.digest, first.run_id, first.created_at, dict(first.tags)) == (
            A,
            "run1",
            SECOND,
            {"dataset": "d1"},
        )

    def test_a_digest_keeps_its_version(self, versions: ModelVersions) -> None:
        first = versions.register("late", A, "run1", {}, SECOND)
        versions.register("late", B, "run2", {}, 2 * SECOND)
        assert versions.register("late", A, "run3", {"x": "y"}, 3 * SECOND) == first
        assert len(versions.all("late")) == 2

    def test_the_same_digest_registered_at_once_gets_one_version(self, versions: ModelVersions) -> None:
        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(lambda number: versions.register("late", A, f"run{number}", {}, SECOND), range(4)))
        assert {version.version for version in made} == {"1"}
        assert len(versions.all("late")) == 1

    def test_all_is_newest_first(self, versions: ModelVersions) -> None:
        versions.register("late", A, "run1", {}, SECOND)
        versions.register("fraud", A, "run2", {}, 2 * SECOND)
        versions.register("late", B, "run3", {}, 3 * SECOND)
        assert [(version.model, version.version) for version in versions.all()] == [
            ("late", "2"),
            ("fraud", "1"),
            ("late", "1"),
        ]
        assert [version.version for version in versions.all("late")] == ["2", "1"]
        assert versions.all("nobody") == []

    def test_what_is_no_digest_is_refused(self, versions: ModelVersions) -> None:
        with pytest.raises(Invalid, match="digest"):
            versions.register("late", "../../etc", "run1", {}, SECOND)

    def test_an_alias_moves_and_every_move_is_kept(self, versions: ModelVersions) -> None:
        versions.register("late", A, "run1", {}, SECOND)
        versions.register("late", B, "run2", {}, 2 * SECOND)
        up = AliasMove("late", "champion", None, "1", "ana", "first", 3 * SECOND)
        on = AliasMove("late", "champion", "1", "2", "ana", "better", 4 * SECOND)
        back = AliasMove("late", "champion", "2", "1", "ben", "rollback", 5 * SECOND, domain_at=-7 * SECOND)
        for move, named in ((up, "1"), (on, "2"), (back, "1")):
            versions.set_alias(move)
            assert versions.get("late", "champion").version == named
        assert versions.moves("late") == [back, on, up]
        assert versions.moves("late", "challenger") == []
        assert versions.get("late", "1").aliases == ("champion",)
        assert [version.aliases for version in versions.all("late")] == [(), ("champion",)]

    def test_a_version_has_several_aliases(self, versions: ModelVersions) -> None:
        versions.register("late", A, "run1", {}, SECOND)
        for alias in ("champion", "challenger"):
            versions.set_alias(AliasMove("late", alias, None, "1", "ana", "", SECOND))
        assert versions.get("late", "challenger").aliases == ("challenger", "champion")
        assert versions.moves("late", "challenger") == [AliasMove("late", "challenger", None, "1", "ana", "", SECOND)]

    def test_a_move_from_what_is_no_longer_so_is_refused(self, versions: ModelVersions) -> None:
        versions.register("late", A, "run1", {}, SECOND)
        versions.register("late", B, "run2", {}, SECOND)
        versions.set_alias(AliasMove("late", "champion", None, "1", "ana", "", SECOND))
        for old in (None, "2"):
            with pytest.raises(Conflict, match="now names version 1"):
                versions.set_alias(AliasMove("late", "champion", old, "2", "ben", "", SECOND))
        assert versions.get("late", "champion").version == "1"
        assert len(versions.moves("late")) == 1

    def test_a_check_that_raises_moves_nothing(self, versions: ModelVersions) -> None:
        versions.register("late", A, "run1", {}, SECOND)

        def ended(_: object) -> None:
            raise NotFound("It has ended.")

        with pytest.raises(NotFound, match="ended"):
            versions.set_alias(AliasMove("late", "champion", None, "1", "ana", "", SECOND), ended)
        assert versions.moves("late") == []

    def test_of_moves_at_once_one_wins(self, versions: ModelVersions) -> None:
        for digest in (A, B):
            versions.register("late", digest, "run", {}, SECOND)

        def move(number: int) -> bool:
            try:
                versions.set_alias(AliasMove("late", "champion", None, str(1 + number % 2), f"p{number}", "", SECOND))
            except Conflict:
                return False
            return True

        with ThreadPoolExecutor(4) as pool:
            won = list(pool.map(move, range(8)))
        assert won.count(True) == 1
        (only,) = versions.moves("late")
        assert versions.get("late", "champion").version == only.new

    def test_the_unknown_is_not_found(self, versions: ModelVersions) -> None:
        versions.register("late", A, "run1", {}, SECOND)
        for model, reference in (("late", "champion"), ("late", "2"), ("fraud", "1")):
            with pytest.raises(NotFound, match=f"{model}[:@]{reference}"):
                versions.get(model, reference)
        with pytest.raises(NotFound):
            versions.set_alias(AliasMove("late", "champion", None, "9", "ana", "", SECOND))
        assert versions.moves("late") == []

    def test_a_removed_version_is_gone_and_its_number_is_not_given_again(self, versions: ModelVersions) -> None:
        versions.register("late", A, "run1", {}, SECOND)
        versions.register("late", B, "run2", {}, 2 * SECOND)
        versions.remove("late", "2")
        versions.remove("late", "2")
        versions.remove("late", "9")
        with pytest.raises(NotFound):
            versions.get("late", "2")
        assert [version.version for version in versions.all("late")] == ["1"]
        assert versions.register("late", B, "run3", {}, 3 * SECOND).version == "3"
        with pytest.raises(NotFound):
            versions.set_alias(AliasMove("late", "champion", None, "2", "ana", "", SECOND))

    def test_a_version_that_an_alias_names_is_not_removed(self, versions: ModelVersions) -> None:
        versions.register("late", A, "run1", {}, SECOND)
        versions.register("late", B, "run2", {}, 2 * SECOND)
        versions.set_alias(AliasMove("late", "champion", None, "1", "ana", "", SECOND))
        with pytest.raises(Conflict, match="late:1 has the aliases champion"):
            versions.remove("late", "1")
        versions.set_alias(AliasMove("late", "champion", "1", "2", "ana", "", SECOND))
        versions.remove("late", "1")
        assert [version.version for version in versions.all("late")] == ["2"]
        assert [move.new for move in versions.moves("late")] == ["2", "1"]

    @pytest.mark.parametrize("alias", ["3", "v3", "latest", "", "a/b", "x' OR '1'='1"])
    def test_what_could_be_taken_for_a_number_is_no_alias(self, versions: ModelVersions, alias: str) -> None:
        versions.register("late", A, "run1", {}, SECOND)
        with pytest.raises(Invalid):
            versions.set_alias(AliasMove("late", alias, None, "1", "ana", "", SECOND))
