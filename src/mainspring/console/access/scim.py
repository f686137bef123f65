"""SCIM 2.0 (RFC 7643, RFC 7644): users and groups, as Okta and Entra ID provision them.

A part of the protocol: filters are `ATTRIBUTE eq "VALUE"`, there are neither bulk requests nor ETags nor sorting, and
attributes that are not kept are ignored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from mainspring.console.access.scim_answers import CORE, MESSAGES, ROOT, Refused, Scim
from mainspring.console.guard import caller
from mainspring.operations import provisioning
from mainspring.operations.provisioning import Person, Provisioned
from mainspring.project import Project
from mainspring.security.model import DirectoryGroup

_FILTER = re.compile(r'\s*([A-Za-z]+)\s+(?i:eq)\s+("(?:[^"\\]|\\.)*")\s*')
_MEMBER = re.compile(r'members\[value\s+eq\s+"([^"\\]+)"\]', re.IGNORECASE)
_LONGEST_FILTER, _MOST_RESULTS, _MOST_OPERATIONS = 1_000, 200, 100
_USERS = {"username": "userName", "externalid": "externalId", "id": "id"}
_GROUPS = {"displayname": "displayName", "externalid": "externalId", "id": "id"}


Excluded = Annotated[str, Query(alias="excludedAttributes")]
_Text = Annotated[str, Query()]


@dataclass(frozen=True, slots=True)
class _Asked:
    """Query of a list."""

    filter: _Text = ""
    startIndex: _Text = "1"  # noqa: N815  (SCIM's name)
    count: _Text = "100"

    def read(self, attributes: Mapping[str, str]) -> tuple[tuple[str, str], int, int]:
        """Return the attribute and value of the filter, the first result, and the most results."""
        begin, limit = _whole(self.startIndex), _whole(self.count)
        return _filtered(self.filter, attributes), max(0, begin - 1), min(max(0, limit), _MOST_RESULTS)


def add_scim(router: APIRouter, project: Project) -> None:
    """Add the routes under `/scim/v2`."""
    _add_users(router, project)
    _add_groups(router, project)
    _add_descriptions(router)


def _add_users(router: APIRouter, project: Project) -> None:
    @router.get("/Users")
    def list_users(asked: Annotated[_Asked, Depends()]) -> Scim:
        """Users, all or by `filter`: `userName eq "..."`, also of `externalId` and `id`."""
        (attribute, value), begin, limit = asked.read(_USERS)
        count, found = provisioning.find_users(project, attribute, value, begin, limit)
        return _listed(count, begin, (_user(project, each) for each in found))

    @router.post("/Users", status_code=201)
    async def create_user(request: Request) -> Scim:
        """Create a user."""
        made = await _acting(request, lambda given, who: provisioning.create_user(project, person_of(given), who))
        return Scim(_user(project, made), 201, {"location": _place(project, "Users", made.account.id)})

    @router.get("/Users/{user_id}")
    def show_user(user_id: str) -> Scim:
        """One user."""
        return Scim(_user(project, provisioning.find_user(project, user_id)))

    @router.put("/Users/{user_id}")
    async def replace_user(request: Request, user_id: str) -> Scim:
        """Replace a user."""

        def do(given: Any, who: str) -> Provisioned:
            return provisioning.replace_user(project, user_id, person_of(given), who)

        return Scim(_user(project, await _acting(request, do)))

    @router.patch("/Users/{user_id}")
    async def change_user(request: Request, user_id: str) -> Scim:
        """Change attributes of a user; `active` is what ends access."""

        def do(given: Any, who: str) -> Provisioned:
            person = replace(provisioning.find_user(project, user_id).person, active=None)
            for operation in _operations(given):
                person = _changed_person(person, *operation)
            return provisioning.replace_user(project, user_id, person, who)

        return Scim(_user(project, await _acting(request, do)))

    @router.delete("/Users/{user_id}", status_code=204)
    async def remove_user(request: Request, user_id: str) -> Response:
        """Remove a user."""
        await run_in_threadpool(provisioning.remove_user, project, user_id, caller(request).actor)
        return Response(status_code=204)


def _add_groups(router: APIRouter, project: Project) -> None:
    @router.get("/Groups")
    def list_groups(asked: Annotated[_Asked, Depends()], excluded: Excluded = "") -> Scim:
        """Groups, all or by `filter`: `displayName eq "..."`, also of `externalId` and `id`."""
        (attribute, value), begin, limit = asked.read(_GROUPS)
        count, found = project.directory.groups(attribute, value, begin=begin, limit=limit)
        members = "members" not in excluded
        return _listed(count, begin, (_group(project, each, members=members) for each in found))

    @router.post("/Groups", status_code=201)
    async def create_group(request: Request) -> Scim:
        """Create a group."""
        made = await _acting(request, lambda given, who: provisioning.create_group(project, group_of("", given), who))
        return Scim(_group(project, made), 201, {"location": _place(project, "Groups", made.id)})

    @router.get("/Groups/{group_id}")
    def show_group(group_id: str, excluded: Excluded = "") -> Scim:
        """One group."""
        found = provisioning.find_group(project, group_id)
        return Scim(_group(project, found, members="members" not in excluded))

    @router.put("/Groups/{group_id}")
    async def replace_group(request: Request, group_id: str) -> Scim:
        """Replace a group."""

        def do(given: Any, who: str) -> DirectoryGroup:
            with _changing(project, group_id):
                return provisioning.replace_group(project, group_of(group_id, given), who)

        return Scim(_group(project, await _acting(request, do)))

    @router.patch("/Groups/{group_id}")
    async def change_group(request: Request, group_id: str) -> Scim:
        """Change a group's name or members."""

        def do(given: Any, who: str) -> DirectoryGroup:
            with _changing(project, group_id):
                found = provisioning.find_group(project, group_id)
                for operation in _operations(given):
                    found = _changed_group(found, *operation)
                return provisioning.replace_group(project, found, who)

        return Scim(_group(project, await _acting(request, do)))

    @router.delete("/Groups/{group_id}", status_code=204)
    async def remove_group(request: Request, group_id: str) -> Response:
        """Remove a group."""
        await run_in_threadpool(provisioning.remove_group, project, group_id, caller(request).actor)
        return Response(status_code=204)


def _changing(project: Project, group_id: str) -> AbstractContextManager[object]:
    """Hold a group while it is changed: two changes at once must not undo each other."""
    return project.locks.hold(f"directory-group-{provisioning.find_group(project, group_id).id}")


def _add_descriptions(router: APIRouter) -> None:
    @router.get("/ServiceProviderConfig")
    def configuration() -> Scim:
        """The parts of SCIM that are supported."""
        absent = {"supported": False}
        return Scim(
            {
                "schemas": [f"{CORE}:ServiceProviderConfig"],
                "patch": {"supported": True},
                "bulk": {**absent, "maxOperations": 0, "maxPayloadSize": 0},
                "filter": {"supported": True, "maxResults": _MOST_RESULTS},
                **dict.fromkeys(("changePassword", "sort", "etag"), absent),
                "authenticationSchemes": [
                    {"type": "oauthbearertoken", "name": "API key", "description": "A key of a service account."}
                ],
            }
        )

    @router.get("/ResourceTypes")
    def types() -> Scim:
        """Users and groups."""
        found = [
            {
                "schemas": [f"{CORE}:ResourceType"],
                "id": name,
                "name": name,
                "endpoint": f"/{name}s",
                "schema": f"{CORE}:{name}",
            }
            for name in ("User", "Group")
        ]
        return _listed(len(found), 0, found)


def _place(project: Project, kind: str, id: str) -> str:
    return f"{project.settings.control.url}{ROOT}/{kind}/{id}"


def _user(project: Project, found: Provisioned) -> dict[str, Any]:
    person, account = found.person, found.account
    return {
        "schemas": [f"{CORE}:User"],
        "id": account.id,
        "userName": person.user_name,
        **({"externalId": person.external_id} if person.external_id else {}),
        "displayName": person.name,
        "name": {"formatted": person.name},
        "emails": [{"value": person.email, "primary": True}] if person.email else [],
        "active": person.active,
        "meta": {"resourceType": "User", "location": _place(project, "Users", account.id)},
    }


def _group(project: Project, found: DirectoryGroup, *, members: bool = True) -> dict[str, Any]:
    return {
        "schemas": [f"{CORE}:Group"],
        "id": found.id,
        "displayName": found.name,
        **({"externalId": found.external_id} if found.external_id else {}),
        **({"members": [{"value": each} for each in sorted(found.members)]} if members else {}),
        "meta": {"resourceType": "Group", "location": _place(project, "Groups", found.id)},
    }


async def _acting(request: Request, do: Callable[[Any, str], Any]) -> Any:
    """Call `do` with the request's document and the caller, in a thread."""
    return await run_in_threadpool(do, await _document(request), caller(request).actor)


async def _document(request: Request) -> dict[str, Any]:
    try:
        found = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise Refused("invalidSyntax", "The body is not JSON.") from None
    if not isinstance(found, dict):
        raise Refused("invalidSyntax", "The body is not a JSON object.")
    return found


def _listed(count: int, begin: int, found: Iterable[Any]) -> Scim:
    shown = list(found)
    page = {"totalResults": count, "startIndex": begin + 1, "itemsPerPage": len(shown), "Resources": shown}
    return Scim({"schemas": [f"{MESSAGES}:ListResponse"], **page})


def _whole(text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise Refused("invalidValue", "startIndex and count are whole numbers.")
    return int(text)


def _filtered(text: str, attributes: Mapping[str, str]) -> tuple[str, str]:
    """Return the attribute and value of a filter; empty ones without it."""
    if not text:
        return "", ""
    match = _FILTER.fullmatch(text) if len(text) <= _LONGEST_FILTER else None
    attribute = attributes.get(match[1].lower()) if match is not None else None
    try:
        value = json.loads(match[2]) if match is not None else ""
    except ValueError:
        attribute = None
    if attribute is None or not value.isprintable():
        known = ", ".join(attributes.values())
        raise Refused("invalidFilter", f'A filter is ATTRIBUTE eq "VALUE", with an attribute of {known}.')
    return attribute, value


def person_of(given: Mapping[str, Any]) -> Person:
    """Return the person whom a user resource describes."""
    names = {name.lower(): value for name, value in given.items()}
    user_name = _text(names.get("username"), "userName")
    name = names.get("name")
    parts = {key.lower(): _text(value, "name") for key, value in name.items()} if isinstance(name, dict) else {}
    full = f"{parts.get('givenname', '')} {parts.get('familyname', '')}".strip()
    shown = _text(names.get("displayname"), "displayName") or parts.get("formatted", "") or full or user_name
    external = _text(names.get("externalid"), "externalId")
    return Person(user_name, external, shown[:128], _email(names.get("emails")), _truth(names.get("active", True)))


def group_of(group_id: str, given: Mapping[str, Any]) -> DirectoryGroup:
    """Return the group that a group resource describes."""
    names = {name.lower(): value for name, value in given.items()}
    shown, external = _text(names.get("displayname"), "displayName"), _text(names.get("externalid"), "externalId")
    return DirectoryGroup(group_id, shown, external, _members(names.get("members") or []))


def _operations(given: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
    """Return the operations of a PATCH: add, replace or remove; a path, empty for none; and a value."""
    names = {name.lower(): value for name, value in given.items()}
    listed = names.get("operations")
    if not isinstance(listed, list) or not 0 < len(listed) <= _MOST_OPERATIONS:
        raise Refused("invalidSyntax", f"Operations is not a list of at most {_MOST_OPERATIONS}.")
    found = []
    for each in listed:
        what, path = (each.get("op"), each.get("path", "")) if isinstance(each, dict) else (None, "")
        if not isinstance(what, str) or what.lower() not in ("add", "replace", "remove") or not isinstance(path, str):
            raise Refused("invalidSyntax", "An operation is add, replace or remove, with a path that is text.")
        path = re.sub(rf"(?i)^{re.escape(CORE)}:(user|group):", "", path)
        if what.lower() != "remove" and not path:
            if not isinstance(each.get("value"), dict):
                raise Refused("invalidValue", "An operation without a path has an object as its value.")
            found += [(what.lower(), name, value) for name, value in each["value"].items()]
        else:
            found.append((what.lower(), path, each.get("value")))
    return found


def _changed_person(person: Person, what: str, path: str, value: Any) -> Person:
    """Return a person after one operation. Attributes that are not kept change nothing."""
    name, gone = path.lower(), what == "remove"
    if gone and name in ("", "username", "active"):
        raise Refused("noTarget" if not name else "mutability", f"{path or 'All'} cannot be removed.")
    if name == "active":
        return replace(person, active=_truth(value))
    if name == "username":
        return replace(person, user_name=_text(value, path))
    if name == "externalid":
        return replace(person, external_id="" if gone else _text(value, path))
    if name in ("displayname", "name.formatted"):
        return replace(person, name=person.user_name if gone else _text(value, path)[:128])
    if name.startswith("emails"):
        return replace(person, email="" if gone else value if isinstance(value, str) else _email(value))
    return person


def _changed_group(group: DirectoryGroup, what: str, path: str, value: Any) -> DirectoryGroup:
    """Return a group after one operation."""
    name, one = path.lower(), _MEMBER.fullmatch(path)
    if one is not None and what == "remove":
        return replace(group, members=group.members - {one[1]})
    if name == "members":
        if what == "remove":
            return replace(group, members=group.members - (group.members if value is None else _members(value)))
        listed = _members(value or [])
        return replace(group, members=listed if what == "replace" else group.members | listed)
    if what == "remove":
        raise Refused("noTarget" if not name else "mutability", f"{path or 'All'} cannot be removed.")
    if name == "displayname":
        return replace(group, name=_text(value, path))
    if name == "externalid":
        return replace(group, external_id=_text(value, path))
    if name in ("id", "schemas"):  # as Okta sends them with the name
        return group
    raise Refused("invalidPath", f"{path[:140]!r} is no attribute of a group.")


def _members(value: Any) -> frozenset[str]:
    listed = [value] if isinstance(value, dict) else value
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise Refused("invalidValue", "members is not a list of objects.")
    return frozenset(_text(each.get("value"), "value of a member") for each in listed)


def _email(value: Any) -> str:
    """Return the first address, or the primary one."""
    listed = [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
    chosen = next((each for each in listed if each.get("primary") is True), listed[0] if listed else {})
    return _text(chosen.get("value"), "email")


def _text(value: Any, what: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Refused("invalidValue", f"{what[:140]} is not a text.")
    return value


def _truth(value: Any) -> bool:
    """Return a truth value; Entra ID sends them as text."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise Refused("invalidValue", "active is neither true nor false.")
