"""Declared encoders: the vectors that they make, where they are, and the collections that use them."""

from __future__ import annotations

from contextlib import suppress

import msgspec

from mainspring.core.errors import MainspringError
from mainspring.project import Project
from mainspring.vectors.declaring import Encoder
from mainspring.vectors.model import Build


class EncoderReport(msgspec.Struct, frozen=True, kw_only=True):
    """A declared encoder.

    Attributes:
        model: Registered model that it names, or the model's name at the service.
        service: Upstream of the profile that serves it; "" for a registered model.
        version: Registered version that it is now; `None` for a service, or where none is registered.
        digest: Identity of its vectors: what was built with another digest has others. `None` where it is not known.
        dimension: Length of its vectors; `None` where it is not known.
        most_tokens: Tokens of a text that a service takes, where that is declared.
        timeout: Time that a service has for a query.
        collections: Collections that use it.
        outdated: Those of them that were built with another digest: the next build makes their vectors anew.
        problem: Why it cannot be used now; "" if it can, as far as is known without asking a service.
        fix: What mends that.
    """

    name: str
    model: str
    service: str
    version: str | None = None
    digest: str | None = None
    dimension: int | None = None
    most_tokens: int | None = None
    timeout: str | int
    collections: tuple[str, ...] = ()
    outdated: tuple[str, ...] = ()
    problem: str = ""
    fix: str = ""
    description: str = ""


def encoders(project: Project) -> list[EncoderReport]:
    """Return the declared encoders, by name."""
    return [_report(project, each) for _, each in sorted(project.definitions.encoders.items())]


def encoder_report(project: Project, name: str) -> EncoderReport:
    """Return a declared encoder.

    Raises:
        NotFound: It is not declared.
    """
    return _report(project, project.definitions.encoder(name))


def _report(project: Project, declared: Encoder) -> EncoderReport:
    using = sorted(name for name, each in project.definitions.collections.items() if each.encoder.name == declared.name)
    builds = [build for name in using if (build := project.builds.get(name)) is not None]
    found = EncoderReport(
        name=declared.name,
        model=declared.reference,
        service=declared.service,
        dimension=declared.dimension,
        most_tokens=declared.most_tokens,
        timeout=declared.timeout,
        collections=tuple(using),
        description=declared.description,
    )
    try:
        version, digest = None, None
        if declared.service:
            digest = project.encoder(declared).digest
        else:
            registered = project.encoder_version(declared)
            version, digest = registered.version, registered.digest
    except MainspringError as error:
        return msgspec.structs.replace(found, problem=error.what, fix=error.fix or "")
    return msgspec.structs.replace(
        found,
        version=version,
        digest=digest,
        dimension=found.dimension or _dimension(project, digest, builds),
        outdated=tuple(each.collection for each in builds if each.encoder != digest),
    )


def _dimension(project: Project, digest: str, builds: list[Build]) -> int | None:
    """Return the length of a registered encoder's vectors: as a build has it, else as its bundle says."""
    for each in builds:
        if each.encoder == digest:
            return each.spec.dimension
    with suppress(MainspringError):
        outputs = project.bundles.load(digest).manifest.output_tensors
        return outputs[0].shape[-1] if outputs else None
    return None
