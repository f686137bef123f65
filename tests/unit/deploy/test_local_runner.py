"""What the runner of one machine refuses before it starts a process."""

from __future__ import annotations

from pathlib import Path

import pytest

from mainspring.core.cores import usable_cores
from mainspring.core.errors import Invalid
from mainspring.deploy.adapters.torchrun import LocalRunner
from mainspring.training.distributed.ports import Job
from mainspring.training.distribution import Distributed


@pytest.mark.parametrize(
    ("distributed", "said"),
    [
        (Distributed(processes=1_024), "1,024 processes would wait for"),
        (Distributed(processes=2, machines=2), "machines=2; processes are started on this machine alone"),
    ],
)
def test_what_one_machine_cannot_run(distributed: Distributed, said: str, tmp_path: Path) -> None:
    if usable_cores() > 63:
        pytest.skip("this machine could")
    job = Job("a-run", "an.entry", "{}", tmp_path, distributed)
    with pytest.raises(Invalid, match=said):
        list(LocalRunner().run(job, lambda: 0))
    assert not list(tmp_path.iterdir())
