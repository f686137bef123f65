"""Checks of `doctor` for language models, encoders and rerankers: whether the profile and the registry have what
serves them."""

from __future__ import annotations

from collections.abc import Iterator

from mainspring.client.certificates import Certificates
from mainspring.core.errors import Invalid
from mainspring.operations.findings import Finding, well
from mainspring.project import Project
from mainspring.project.receivers import variable
from mainspring.project.upstreams import key_of

_CHECK = "upstreams"


def check_upstreams(project: Project) -> Iterator[Finding]:
    """Yield the findings. Nothing is asked of an upstream; one that the profile lacks is a step that remains."""
    upstreams = project.settings.upstreams
    findings = [*unreadable(project), *_lacking(project), *_unregistered(project)]
    yield from findings
    if upstreams and not findings:
        yield well(_CHECK, f"servers of language models in the profile: {len(upstreams)}")


def unreadable(project: Project) -> Iterator[Finding]:
    """Yield upstreams with a key or a certificate that cannot be read: a gateway does without these."""
    for each in project.settings.upstreams.values():
        try:
            key_of(each)
            if each.url.startswith("https:"):
                Certificates(each.ca, each.cert, each.cert_key).context()
        except Invalid as error:
            yield Finding(check=_CHECK, ok=False, detail=error.what, fix=error.fix or "")


def _lacking(project: Project) -> Iterator[Finding]:
    declared, known = project.definitions, project.settings.upstreams
    asked = [(f"language model {each.name}", {some.upstream for some in each.upstreams})
             for each in declared.language_models.values()]  # fmt: skip
    asked += [(f"encoder {each.name}", {each.service}) for each in declared.encoders.values() if each.service]
    asked += [(f"reranker {each.name}", {each.service}) for each in declared.rerankers.values() if each.service]
    for what, names in asked:
        if not any(variable(name) in known for name in names):
            yield _step(
                f"the profile has no upstream {' or '.join(sorted(names))}, of {what}",
                f"write [profiles.{project.settings.profile}.llm.upstreams.{min(names)}], then its url",
            )


def _unregistered(project: Project) -> Iterator[Finding]:
    for each in project.definitions.rerankers.values():
        name = each.reference.replace("@", ":").partition(":")[0]
        if not each.service and not project.versions.all(name):
            yield _step(
                f"the reranker {each.name} is not registered: passages stay in the order in which they were found",
                f"run `mainspring encoders add {name} FOLDER`",
            )


def _step(detail: str, fix: str) -> Finding:
    return Finding(check=_CHECK, ok=True, detail=detail, fix=fix)
