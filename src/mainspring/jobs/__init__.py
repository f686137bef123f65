"""Jobs: background work that outlives its caller, and scheduled work.

`ports` defines the job store, `runner` runs jobs with handlers supplied by `operations`, `times` computes due times of
schedules. Backends are in `adapters`.
"""

from mainspring.jobs.model import ENDED, Job, NewJob, Outcome, Progress, Schedule, Status, Step
from mainspring.jobs.ports import JobStore

__all__ = ["ENDED", "Job", "JobStore", "NewJob", "Outcome", "Progress", "Schedule", "Status", "Step"]
