"""Names of a project's things in a cloud: an endpoint's own name may have characters that the cloud does not take."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_IMAGE = re.compile(r"[a-z0-9][-a-z0-9._/:]*@sha256:[0-9a-f]{64}")


def cloud_names(project: str, endpoints: Sequence[str], longest: int, place: str) -> Mapping[str, str]:
    """Return the name of each endpoint there: `PROJECT-ENDPOINT` in small letters, digits and `-`.

    Raises:
        Invalid: A name is too long or no name there, or two endpoints would have the same.
    """
    found = dict[str, str]()
    for endpoint in endpoints:
        check_id(endpoint, "endpoint")
        name = re.sub("[^a-z0-9]+", "-", f"{project}-{endpoint}".lower()).strip("-")
        if len(name) > longest or not _NAME.fullmatch(name):
            raise Invalid(
                f"The endpoint {endpoint!r} would be {name!r} on {place}, which has {len(name)} characters.",
                fix=f"{place} takes {longest} small letters, digits and '-', beginning with a letter: rename it.",
            )
        if name in found.values():
            other = next(each for each, taken in found.items() if taken == name)
            raise Invalid(
                f"The endpoints {other!r} and {endpoint!r} would both be {name!r} on {place}.", fix="rename one."
            )
        found[endpoint] = name
    return found


def image_by_digest(image: str, what: str) -> str:
    """Return an image's name, if it says which one by its digest.

    Raises:
        Invalid: It has a tag alone, which can be moved, or there is none.
    """
    if not _IMAGE.fullmatch(image):
        raise Invalid(
            f"The {what} is {image!r}.", fix="push it, and write its name with the digest: REGISTRY/NAME@sha256:..."
        )
    return image
