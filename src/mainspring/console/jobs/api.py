"""JSON API of jobs, read-only: the content of their pages."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query

from mainspring.console.answers import Answer
from mainspring.console.endpoints.api import Id, Limit
from mainspring.console.jobs.listing import SHOWN, job_list, job_page
from mainspring.core.ids import check_id
from mainspring.jobs.plain import Plain, encoded
from mainspring.project import Project

Text = Annotated[str, Query(max_length=200)]


def add_job_api(router: APIRouter, project: Project) -> None:
    """Add the routes under `/jobs`."""

    @router.get("/jobs")
    def list_jobs(status: Text = "", before: Text = "", limit: Limit = SHOWN) -> Answer:
        """Jobs, newest first, and the schedules; `next` is the `before` of the next page."""
        found = job_list(project, status=status, before=before, limit=limit)
        return Answer(
            {
                "jobs": found.rows,
                "counts": found.counts,
                "next": found.next or None,
                "schedules": [{**_fields(each), "argument": raw(each.argument)} for each in found.schedules],
            }
        )

    @router.get("/jobs/{job_id}")
    def show_job(job_id: Id) -> Answer:
        """One job with its argument, its result, its error and its finished steps."""
        view = job_page(project, check_id(job_id, "job"))
        job = {name: getattr(view.job, name) for name in ("due_at", "started_at", "ended_at", "holder", "leased_until")}
        return Answer(
            {
                "job": {
                    **_fields(view.row),
                    **job,
                    "argument": raw(view.job.argument),
                    "result": raw(view.job.result),
                },
                "steps": [{**_fields(step), "result": raw(step.result)} for step in view.steps],
            }
        )


def _fields(of: Any) -> dict[str, Any]:
    return {each.name: getattr(of, each.name) for each in fields(of)}


def raw(value: Plain) -> msgspec.Raw:
    """Return a value as stored, in ASCII: it may contain numbers and texts that the API's own encoder rejects."""
    return msgspec.Raw(encoded(value, "A job's value").encode())
