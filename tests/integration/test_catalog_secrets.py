"""Secrets of the catalog: which columns have some, and that none is in a byte of it, on SQLite and on Postgres."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import sqlalchemy as sa

from kit.erased_shop import opened, write
from kit.identity_provider import CLIENT, IdentityProvider, SigningKey, running
from kit.servers import PostgresServer
from mainspring.core.errors import Denied, NotFound, Unavailable
from mainspring.core.settings import SignIn, TrustedIssuer
from mainspring.core.time import DAY, SECOND, ManualClock
from mainspring.operations import encryption
from mainspring.operations.backup.making import backup
from mainspring.operations.backup.restoring import restore
from mainspring.operations.keys import console_link, create_key
from mainspring.operations.pipelines import webhooks
from mainspring.project import Project
from mainspring.project.catalog import memory_catalog, schema_of
from mainspring.security.adapters.key_file import FileKeys
from mainspring.security.envelopes import key_of
from mainspring.security.model import Session, Wrapped
from mainspring.security.sessions import Sessions, session_secret
from mainspring.security.sign_ins import AWAY_US, CHECK_US, SignIns

CALLBACK = "http://localhost:8081/login/callback"
CLIENT_SECRET, ROUTING_KEY, ADDRESS = "client-4f1c9e77", "routing-88d2aa10", "https://hooks.example.org/T0-55e1c3"
WEBHOOK_SECRET = "hook-0b7d61fe"
_NUMBERS = (sa.Integer, sa.Boolean)

# Of each table the columns that could hold a secret: all but numbers. A new one is put here by whoever has looked at
# what is written into it. Those of `SECRET` have something secret, in the form that is named.
SECRET = {
    "api_keys.digest": "HMAC under the pepper, of 256 random bits",
    "data_keys.wrapped": "encrypted by the key service",
    "subject_keys.wrapped": "envelope",
    "user_sessions.sealed": "envelope",
}
COLUMNS = {
    "access_changes": "mark",
    "account_group_members": "group_name account_id",
    "account_groups": "name provider_group",
    "account_names": "name account_id bound_by",
    "accounts": "id kind name email service issuer subject provider_groups disabled_by",
    "alembic_version": "version_num",
    "alias_moves": "model alias old new actor reason",
    "anchor_states": "place",  # as it is shown, without a password
    "api_keys": "id name scopes digest created_by owner",
    "applied_definitions": "kind name content",  # receivers by their names
    "audit_events": "actor action resource detail subject salt commitment leaf",
    "audit_subtrees": "hash",
    "audit_tree": "origin frontier note",
    "collections": "lake name document",
    "deployed_pieces": "target piece digest",
    "moved_logs": "id place per_second",
    "training_machines": "id model host address certificate",  # whose private keys stay in the processes
    "held_calls": "id model tool arguments digest caller status decided_by",
    "prompt_moves": "name alias share moved_by",
    "prompt_versions": "name digest content",
    "data_keys": "id purpose wrapped version",
    "dataset_commits": "id parent message versions",
    "dataset_tags": "name commit_id",
    "directory_groups": "id name folded external_id",
    "directory_members": "group_id account_id",
    "directory_users": "account_id user_name folded external_id",
    "edge_days": "device document",
    "edge_devices": "id package document",  # public keys
    "edge_refusals": "device reason",
    "edge_rollouts": "id package live document",
    "edge_sketches": "id batch document",
    "edge_uploads": "device queue document",
    "ended_sessions": "id",  # of cookies, tickets and attempts that are void
    "endpoint_baselines": "endpoint baseline",
    "endpoint_simulations": "endpoint report",
    "erasures": "id entity subjects receipt",
    "gate_evaluations": "model version evaluation",
    "incident_endpoints": "incident endpoint",
    "incident_messages": "id lake target incident state message",  # receivers by their names
    "incidents": "id lake open state",
    "job_cache": "key result job",
    "job_logs": "job log",  # what the project's code prints
    "job_needs": "job need",
    "job_schedules": "name",
    "job_steps": "job name result",
    "jobs": "id handler argument key schedule status holder token progress result error parent group started_by team",
    "legal_holds": "subject entity reason held_by",
    "model_approvals": "model version digest approver reason",
    "model_deletions": "model version digest actor reason",
    "model_waivers": "model version digest gate actor reason signature ended_by",
    "model_withdrawals": "model version digest approver approval_reason actor reason",
    "monitor_checkpoints": "lake endpoint document",
    "monitor_parts": "lake endpoint part document",
    "monitor_windows": "lake endpoint document",
    "privacy_budgets": "source",
    "received_heads": "public note received_by refused",
    "role_grants": "kind who role resource granted_by",
    "rollout_looks": "rollout look",
    "rollouts": "id endpoint live status state",
    "routes": "endpoint route",
    "service_samples": "place subject document",
    "service_states": "place document",
    "pulled_batches": "lake source table arrival columns digests",  # 128 bits of the SHA-256 of rows
    "stream_batches": "lake stream topic spans",
    "stream_endpoint_batches": "lake endpoint body",
    "stream_endpoint_outbox": "lake endpoint body",
    "stream_endpoint_partitions": "lake endpoint progress running",
    "stream_endpoint_sinks": "lake endpoint id note",  # receivers by their names
    "stream_endpoint_states": "lake endpoint key value",
    "stream_leases": "lake stream owner",
    "stream_members": "lake stream owner document",
    "subject_keys": "subject id wrapped",
    "trusted_keys": "name public actor",  # public keys
    "usage_amounts": "machine subject measure",
    "usage_sources": "source state",  # what was counted until then
    "usage_subjects": "digest kind id version model key teams",
    "user_sessions": "id account_id sealed",
}


def test_every_column_has_been_looked_at() -> None:
    engine = memory_catalog()
    found = sa.inspect(engine)
    there = {
        table: {each["name"] for each in found.get_columns(table) if not isinstance(each["type"], _NUMBERS)}
        for table in found.get_table_names()
    }
    engine.dispose()
    known = {table: set(columns.split()) for table, columns in COLUMNS.items()}
    assert {table: columns for table, columns in there.items() if columns} == known
    assert {each for each in SECRET if each.split(".")[1] in known[each.split(".")[0]]} == SECRET.keys()


class Holder(FileKeys):
    """Does not answer while it is `away`."""

    away = False

    def unwrap(self, wrapped: Sequence[Wrapped], contexts: Sequence[str]) -> list[bytes]:
        if self.away:
            raise Unavailable("The key service is away.")
        return super().unwrap(wrapped, contexts)


class Installation:
    """A project with sign-in and receivers, whose processes are on a clock that the test moves."""

    def __init__(self, folder: Path, provider: IdentityProvider, **overrides: Any) -> None:
        provider.secret = CLIENT_SECRET
        self.folder, self.provider, self.overrides = folder, provider, overrides
        self.clock = ManualClock(int(provider.now() * SECOND))
        self.service = Holder(folder / ".mainspring" / "keys" / "master")

    def process(self) -> Project:
        """Open the project as another process does, which has no key in its memory."""
        notify = {"ops": {"url": ADDRESS, "secret": ROUTING_KEY}}
        settings = opened(self.folder, notify=notify, **self.overrides).settings
        sign_in = SignIn(TrustedIssuer(self.provider.url, (CLIENT,)), CLIENT, CLIENT_SECRET, redirect=CALLBACK)
        return Project(
            replace(settings, sign_in=sign_in, webhook_secret=WEBHOOK_SECRET), wall=self.clock, key_service=self.service
        )

    def sign_in(self, project: Project) -> tuple[str, Session]:
        """Sign somebody in by a browser, and return what the provider gave it and the session."""
        signs, sessions = _signs(project)
        address, cookie = signs.begin("/")
        status, headers, _ = self.provider.answer("GET", address.removeprefix(self.provider.url), {}, "")
        assert status == 302
        answer = {name: values[0] for name, values in parse_qs(urlsplit(headers["Location"]).query).items()}
        session = sessions.read(signs.finish(cookie, answer).cookie)
        assert session is not None
        return cookie, session


def _signs(project: Project) -> tuple[SignIns, Sessions]:
    sessions = Sessions(session_secret(project.pepper), project.wall, project.ended_sessions)
    signs = project.sign_ins(sessions)
    assert signs is not None
    return signs, sessions


@pytest.fixture(scope="module")
def provider() -> Iterator[IdentityProvider]:
    with running(IdentityProvider([SigningKey("ES256")])) as made:
        yield made


@pytest.fixture(params=["sqlite", "postgres"])
def installation(request: pytest.FixtureRequest, tmp_path: Path, provider: IdentityProvider) -> Installation:
    write(tmp_path)
    if request.param == "sqlite":
        return Installation(tmp_path, provider)
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return Installation(tmp_path, provider, catalog=server.fresh().text)


def _everything(project: Project) -> bytes:
    """Return every byte of a SQLite catalog, with its log; of Postgres all rows as text."""
    url = project.settings.catalog
    if url.scheme == "sqlite":
        return b"".join(path.read_bytes() for path in sorted(url.path.parent.glob("catalog.db*")))
    with project.engine.connect() as connection:
        tables = sa.inspect(connection).get_table_names(schema=schema_of(project.settings.scope))
        return "".join(
            str(row) for table in tables for row in connection.execute(sa.text(f'SELECT t::text FROM "{table}" t'))
        ).encode()


def _written(secret: bytes) -> list[bytes]:
    """Return a secret as it may be written."""
    return [secret, secret.hex().encode(), base64.b64encode(secret), base64.urlsafe_b64encode(secret).rstrip(b"=")]


def test_no_secret_is_in_a_byte_of_the_catalog(installation: Installation) -> None:
    project = installation.process()
    provider = installation.provider
    token = create_key(project, "ci", ["predict"], DAY)
    ticket = parse_qs(urlsplit(console_link(project)).query)["ticket"][0]
    given, session = installation.sign_in(project)
    installation.clock.advance(CHECK_US)
    signs, sessions = _signs(project)
    signs.account(session)  # a refresh, which replaces the tokens
    _, ended = installation.sign_in(project)
    signs.close(ended)
    deliver = {"x-gitlab-token": WEBHOOK_SECRET, "x-gitlab-event-uuid": "1"}
    with pytest.raises(NotFound):
        webhooks.deliver(project, "push", deliver, b"{}")
    folder = project.settings.state / "keys"
    keys = [each.id for each in project.data_key_store.all()]
    secrets = [
        token.split("_")[2].encode(), ticket.encode(), given.encode(), project.pepper,
        *(each.encode() for each in (*provider.accesses, *provider.refreshes)),
        *(each.encode() for each in (CLIENT_SECRET, ROUTING_KEY, ADDRESS, WEBHOOK_SECRET)),
        *project.data_keys.secrets(keys), *(each.read_bytes() for each in folder.glob("master/*")),
        (folder / "signing.ed25519").read_bytes(),
        sessions.csrf(session).encode(),
    ]  # fmt: skip
    assert len(secrets) > 15
    assert len(keys) == 1
    there = _everything(project)
    assert b"ana@example.org" in there, "the search finds what is in clear"
    assert [each for secret in secrets for each in _written(secret) if each in there] == []
    project.close()


def test_sessions_outlive_rotations_and_a_restore(tmp_path: Path, provider: IdentityProvider) -> None:
    write(tmp_path)
    installation = Installation(tmp_path, provider)
    project = installation.process()
    _, session = installation.sign_in(project)
    encryption.rotate(project)
    [before] = project.user_sessions.all()
    encryption.renew(project)
    installation.clock.advance(CHECK_US)
    account = _signs(project)[0].account(session)
    [after] = project.user_sessions.all()
    assert key_of(after.sealed) != key_of(before.sealed), "a check encrypts under the newest key"
    backup(project, str(tmp_path / "backups"))
    project.close()

    for path in (tmp_path / ".mainspring").glob("catalog.db*"):
        path.unlink()
    project = installation.process()
    restore(project, str(tmp_path / "backups"))
    installation.clock.advance(CHECK_US)
    assert _signs(project)[0].account(session) == account
    project.close()


def test_without_the_key_service_sessions_end_as_without_their_provider(
    tmp_path: Path, provider: IdentityProvider
) -> None:
    write(tmp_path)
    installation = Installation(tmp_path, provider)
    project = installation.process()
    _, session = installation.sign_in(project)
    [kept] = project.user_sessions.all()
    project.close()
    installation.service.away = True

    project = installation.process()
    signs, _ = _signs(project)
    installation.clock.advance(CHECK_US)
    asked = len(provider.asked)
    assert signs.account(session) == kept.account_id
    installation.clock.advance(AWAY_US)
    with pytest.raises(Unavailable):
        signs.account(session)
    with pytest.raises(Unavailable, match="sessions"):
        installation.sign_in(project)
    assert [path for path, _ in provider.asked[asked:] if path == "/userinfo"] == []
    assert project.user_sessions.all() == [kept], "the provider was not asked to replace what nobody could keep"
    project.close()

    installation.service.away = False
    project = installation.process()
    assert _signs(project)[0].account(session) == kept.account_id
    project.close()


def test_tokens_that_are_moved_or_changed_end_the_session(tmp_path: Path, provider: IdentityProvider) -> None:
    write(tmp_path)
    installation = Installation(tmp_path, provider)
    project = installation.process()
    [first, second] = [installation.sign_in(project)[1] for _ in range(2)]
    sealed = {each.id: each.sealed for each in project.user_sessions.all()}
    project.user_sessions.check(first.id, 0, sealed[second.id])
    project.user_sessions.check(second.id, 0, sealed[second.id][:-1] + b"?")
    for session in (first, second):
        with pytest.raises(Denied, match="has ended"):
            _signs(project)[0].account(session)
    project.close()
