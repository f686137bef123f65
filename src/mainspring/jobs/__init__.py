"""Jobs: work that goes on after whoever began it is gone, and work that comes back by the clock.

`ports` says what a store of jobs does, `runner` runs them with handlers that `app` gives it, `times` says when a
schedule is due. Backends are in `adapters`.
"""

from mainspring.jobs.model import ENDED, Job, NewJob, Outcome, Progress, Schedule, Status, Step
from mainspring.jobs.ports import JobStore

__all__ = ["ENDED", "Job", "JobStore", "NewJob", "Outcome", "Progress", "Schedule", "Status", "Step"]
