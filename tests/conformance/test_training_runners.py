"""Every runner of trainings, against the shared suite."""

from __future__ import annotations

import pytest

from mainspring.deploy.adapters.torchrun import LocalRunner
from mainspring.training.distributed.conformance import RunnerConformance

pytest.importorskip("torch")
pytestmark = pytest.mark.slow


class TestLocalRunner(RunnerConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def runner(cls) -> LocalRunner:
        return LocalRunner()
