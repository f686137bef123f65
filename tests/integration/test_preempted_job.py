"""A training job whose machine is preempted: it is run again later, and counts as no attempt."""

from __future__ import annotations

from contextlib import closing

import pytest

from kit.depot import Depot, opened
from mainspring.core.time import SECOND, ManualClock
from mainspring.jobs.model import NewJob, Status
from mainspring.jobs.runner import Runner
from mainspring.operations.jobs.children import Children
from mainspring.operations.jobs.handlers import handlers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PREEMPTED_AT_FIRST = """
    from pathlib import Path

    from mainspring.training.loop.signals import Interrupted

    before = Path(__file__).with_name("before")
    if not before.exists():
        before.touch()
        raise Interrupted(15, "Training was stopped as its machine is preempted.", preempted=True)
"""


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.usefixtures("forked")
def test_it_is_queued_again_after_the_notice_and_counts_as_no_attempt(apart: bool, depot: Depot) -> None:
    model = depot.root / "parcels" / "model.py"
    first = "    from sklearn.ensemble import"
    model.write_text(model.read_text().replace(first, PREEMPTED_AT_FIRST + first, 1))
    project = opened(depot)
    with closing(project), closing(Children(project.settings)) as children:
        now = project.wall.now()
        clock = ManualClock(now)
        [job] = project.jobs.enqueue([NewJob("train", {"model": "late-parcel"}, attempts=1)], now)
        runner = Runner(project.jobs, handlers(project, children if apart else None), clock, holder="h")
        stopped = runner.run_one()
        assert stopped is not None
        assert (stopped.status, stopped.attempts, stopped.error) == (Status.QUEUED, 0, None)
        assert stopped.due_at == now + 60 * SECOND
        assert runner.run_one() is None
        assert project.tracking.search("late-parcel")[0].status == "KILLED"
        clock.set(now + 61 * SECOND)
        done = runner.run_one()
        assert done is not None
        assert (done.id, done.status, done.attempts) == (job.id, Status.DONE, 1)
