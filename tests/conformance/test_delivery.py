"""Every store of rollouts and of gates' evaluations, against the shared suites."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import sqlalchemy as sa

from mainspring.delivery.adapters.catalog import CatalogEvaluations, CatalogRollouts
from mainspring.delivery.conformance import EvaluationsConformance, RolloutStoreConformance, rollout
from mainspring.delivery.rollout.deciding import intervened
from mainspring.registry.adapters.catalog import AliasMoves


class TestCatalogRollouts(RolloutStoreConformance):
    @pytest.fixture
    def store(self, catalog: sa.Engine) -> CatalogRollouts:
        return CatalogRollouts(catalog)

    def test_a_rollout_stays_live_while_its_promotion_moves_the_alias(
        self, catalog: sa.Engine, store: CatalogRollouts
    ) -> None:
        made, look = intervened(store.create(*rollout()), "stop", "ben", "now", 6)
        with ThreadPoolExecutor(1) as thread:
            with AliasMoves(catalog).exclusively() as moving:
                store.expect_live("r1", moving)
                stopping = thread.submit(store.replace, made, [look])
                with suppress(TimeoutError):
                    stopping.result(0.3)
                assert not stopping.done()
            assert stopping.result(60).status == "stopped"


class TestCatalogEvaluations(EvaluationsConformance):
    @pytest.fixture
    def evaluations(self, catalog: sa.Engine) -> CatalogEvaluations:
        return CatalogEvaluations(catalog)
