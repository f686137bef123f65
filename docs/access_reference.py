"""Writes docs/reference/access.md: actions, roles, scopes, and the policies themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import click

from mainspring.cli.main import COMMANDS, cli
from mainspring.jobs.pipelines.graph import APPROVAL, STEP
from mainspring.operations.jobs.handlers import WORK
from mainspring.operations.pipelines.names import RUN
from mainspring.security.model import PROJECT, Action, Binding, KeyScope, Kind, Principal, Role
from mainspring.security.policy import CedarAuthoriser

PAGE = Path(__file__).parent / "reference" / "access.md"
_HEAD = """\
# Roles and actions

<!-- Written by docs/access_reference.py; a test fails if it is not current. -->

Every route and call over the API requires one action on one resource. How roles are granted, and how a project
adds policies of its own: [control who may do what](../howto/access.md).

| action | permits to | scope of a key | roles |
|---|---|---|---|
"""
_COMMANDS = """
## Commands

A command that `who may` does not explain requires the action, on the resource that it names. All others work on
the project's folder, whose files are its user's alone (0700), and who may do everything with it: no role is asked. `as`
names the action that the same over the API requires. `event` names the event of what the command changed in the
[audit log](../howto/audit.md), or says why there is none.

| command | action | who may | event |
|---|---|---|---|
"""
_JOBS = """
## Jobs

No route starts, retries or cancels a job that is not a run of a pipeline, but one starts `evidence`. Who started a job
is recorded, and is an author of what it trains. One that was started by hand has an event `jobs.run` or `pipelines.run`
too. A run that changed nothing has no event.

| kind of job | action | who may start, retry and cancel it | event |
|---|---|---|---|
"""
# Command -> the action that it checks, of who decides: an API key, who is signed in, or the accounts of this user.
_CHECKED = {
    "models approve": Action.MODEL_APPROVE,
    "models waive": Action.MODEL_APPROVE,
    "models withdraw": Action.MODEL_APPROVE,
    "pipelines approve": Action.PIPELINE_APPROVE,
    **dict.fromkeys(("llm approvals", "llm approve", "llm deny"), Action.TOOL_APPROVE),
    "predict": Action.ENDPOINT_PREDICT,
    "whoami": Action.CONSOLE_OPEN,
}
# Command, or group of commands -> the action of the same over the API.
_SAME = {
    "audit export": Action.AUDIT_READ,
    "audit search": Action.AUDIT_READ,
    "data diff": Action.PROJECT_READ,
    "data log": Action.PROJECT_READ,
    "data profile": Action.TABLE_READ,
    "data quarantine": Action.TABLE_ROWS,
    "edge device": Action.FLEET_READ,
    "edge devices": Action.FLEET_READ,
    "edge status": Action.FLEET_READ,
    "endpoints": Action.ENDPOINT_READ,
    "explain": Action.PREDICTION_READ,
    "fairness": Action.ENDPOINT_READ,
    "features entity": Action.FEATURES_ENTITY,
    "features list": Action.FEATURES_READ,
    "features read": Action.FEATURES_ENTITY,
    "features show": Action.FEATURES_READ,
    "features unload": Action.FEATURES_ENTITY,
    "groups": Action.ACCOUNTS_PROVISION,
    "incidents": Action.INCIDENT_WRITE,
    "incidents list": Action.INCIDENT_READ,
    "incidents show": Action.INCIDENT_READ,
    "jobs list": Action.JOB_READ,
    "jobs logs": Action.JOB_READ,
    "jobs schedules": Action.JOB_READ,
    "jobs show": Action.JOB_READ,
    "keys create": Action.KEYS_MANAGE,
    "keys list": Action.KEYS_READ,
    "keys revoke": Action.KEYS_MANAGE,
    "models card": Action.MODEL_READ,
    "models history": Action.MODEL_READ,
    "models list": Action.MODEL_READ,
    "models show": Action.MODEL_READ,
    "models waivers": Action.MODEL_READ,
    "monitor query": Action.ENDPOINT_READ,
    "objectives": Action.ENDPOINT_READ,
    "pipelines cancel": Action.PIPELINE_RUN,
    "cost": Action.COST_READ,
    "pipelines graph": Action.PIPELINE_READ,
    "pipelines list": Action.PIPELINE_READ,
    "pipelines logs": Action.PIPELINE_READ,
    "pipelines retry": Action.PIPELINE_RUN,
    "pipelines run": Action.PIPELINE_RUN,
    "pipelines status": Action.PIPELINE_READ,
    "pipelines step": Action.PIPELINE_READ,
    "predictions list": Action.PREDICTION_READ,
    "predictions show": Action.PREDICTION_READ,
    "promote": Action.MODEL_PROMOTE,
    "replay": Action.PREDICTION_READ,
    "rollback": Action.MODEL_ROLLBACK,
    "rollout": Action.ENDPOINT_ROLLOUT,
    "rollout list": Action.ENDPOINT_READ,
    "rollout plan": Action.ENDPOINT_READ,
    "rollout status": Action.ENDPOINT_READ,
    "runs": Action.RUN_READ,
    "runs note": Action.RUN_WRITE,
    "runs rename": Action.RUN_WRITE,
    "sessions end": Action.SESSIONS_END,
    "sessions list": Action.SESSIONS_READ,
    "status": Action.PROJECT_READ,
    "streams dead-letters": Action.STREAM_READ,
    "streams list": Action.STREAM_READ,
    "streams show": Action.STREAM_READ,
    "users add": Action.ACCOUNTS_PROVISION,
    "users disable": Action.ACCOUNTS_PROVISION,
    "users enable": Action.ACCOUNTS_PROVISION,
    "users list": Action.ACCOUNTS_PROVISION,
    "users remove": Action.ACCOUNTS_PROVISION,
}
_CODE, _STATE = "runs code of the project", "reads and writes the state folder and its stores"
_RIGHTS, _SECRETS = "gives rights, which no key may give", "has the installation's own keys"
_OUTSIDE, _PERSONAL = "asks nobody, or the identity provider", "reaches values that identify a person"
# First word of a command -> why it is the folder's user's, where it has no action over the API.
_WHY = {
    **dict.fromkeys(
        ("apply", "advise", "batch", "bench", "budgets", "ci", "doctor", "features", "ingest", "jobs"), _CODE
    ),
    **dict.fromkeys(("materialize", "monitor", "pipelines", "profile", "quotas", "reproduce", "search"), _CODE),
    **dict.fromkeys(("budgets", "deploy", "optimize", "simulate", "streams", "targets", "train", "up"), _CODE),
    **dict.fromkeys(
        (
            "collections",
            "data",
            "encoders",
            "evidence",
            "export",
            "migrate",
            "models",
            "prices",
            "prompts",
            "retention",
        ),
        _STATE,
    ),
    **dict.fromkeys(
        ("prices", "sbom", "topics"),
        _STATE,
    ),
    **dict.fromkeys(("policy", "roles", "service-accounts", "users"), _RIGHTS),
    **dict.fromkeys(("audit", "backup", "console", "edge", "encryption", "restore"), _SECRETS),
    **dict.fromkeys(("completion", "demo", "init", "llm", "login", "logout", "tenant"), _OUTSIDE),
    **dict.fromkeys(("answers", "erase", "subject"), _PERSONAL),
}
_FOLDER = "the folder's user"
_QUEUED = f"{_FOLDER}, by `mainspring jobs`, or a schedule of the profile"
# Kind of job -> the action to start, retry and cancel it over the API.
_KINDS: dict[str, tuple[Action | None, str]] = {
    **dict.fromkeys(WORK, (None, _QUEUED)),
    "evidence": (Action.EVIDENCE_MEASURE, f"callers over the API start it; {_QUEUED}"),
    "jobs of the project": (None, _QUEUED),
    f"{RUN}NAME": (Action.PIPELINE_RUN, f"callers over the API; {_FOLDER}; what the pipeline declares"),
    STEP: (Action.PIPELINE_RUN, "as the run that it is a part of"),
    APPROVAL: (Action.PIPELINE_RUN, "as the run; `pipeline.approve` ends its wait"),
}

_READS, _FILE, _MODELS = "reads", "writes a file where its user says", "measures; its run names its user"
_PREDICTS = "predicts: the prediction log has the caller"
# Command -> the action of its event; of what it changed, so one that found nothing to change has none.
EVENTS = {
    **{each: each for each in ("apply", "evidence", "ingest", "migrate", "promote", "rollback")},
    **{each: each for each in ("search", "train", "up")},
    **{f"data {each}": f"data.{each}" for each in ("commit", "publish", "restore", "sign", "tag", "untag", "vacuum")},
    **{f"edge {each}": f"edge.{each}" for each in ("build", "publish", "register", "remove", "rollout", "rotate")},
    **{f"edge {each}": f"edge.{each}" for each in ("sign", "withdraw")},
    "prompts point": "prompts.point",
    **{f"answers {each}": each for each in ("promote", "rollback")},
    **{f"answers {each}": "ingest" for each in ("judge", "rate")},
    **{f"llm {each}": f"llm.{each}" for each in ("approve", "deny")},
    **{f"groups {each}": f"groups.{each}" for each in ("add", "add-member", "remove", "remove-member")},
    **{f"incidents {each}": f"incident.{each}" for each in ("close", "end-shed", "own", "silence", "verdict")},
    **{f"jobs {each}": f"jobs.{each}" for each in ("cancel", "retry", "run")},
    **{f"models {each}": "add" for each in ("add", "compose", "function")},
    **{f"models {each}": each for each in ("approve", "delete", "export", "import", "restore", "trust", "waive")},
    "models withdraw": "withdraw",
    **{f"pipelines {each}": f"pipelines.{each}" for each in ("approve", "cancel", "retry", "run")},
    **{f"rollout {each}": f"rollout.{each}" for each in ("promote", "start", "stop")},
    "rollout rollback": "rollout.roll-back",
    **{f"{kind} {each}": f"accounts.{each}" for kind in ("users", "service-accounts")
       for each in ("add", "bind", "disable", "enable", "remove")},
    **{f"{group} {each}": f"{group}.{each}" for group in ("keys",) for each in ("create", "revoke")},
    **{f"roles {each}": f"roles.{each}" for each in ("grant", "revoke")},
    **{f"runs {each}": "run.describe" for each in ("note", "rename")},
    **{f"subject {each}": f"subject.{each}" for each in ("export", "hold", "release")},
    **{f"topics {each}": f"topics.{each}" for each in ("create", "produce")},
    "audit export": "audit.export",
    "audit verify": "audit.verify",
    "backup make": "backup.make",
    "batch": "batch.run",
    "collections build": "collections.build",
    "deploy": "targets.deploy",
    "targets destroy": "targets.destroy",
    **dict.fromkeys(("advise size", "console", "simulate"), "keys.create"),
    "encoders add": "add",
    "encryption rewrite": "encryption.rewrite",
    "encryption rotate": "encryption.rotate",
    "erase": "subject.erase",
    "export project": "project.export",
    "login": "cli.login",
    "logout": "cli.logout",
    "materialize": "materialise",
    "models gc": "collect-garbage",
    "optimize": "optimise",
    "prices import": "prices.import",
    "models sign": "export",
    "replay": "predictions.replay",
    "restore": "backup.restore",
    "retention": "retention.run",
    "sessions end": "sessions.end",
    "streams run": "stream.start",
    "streams seek": "stream.seek",
    "streams send": "stream.send",
}  # fmt: skip
# Command, or group of commands -> why it has no event. Values of persons that they reveal have one.
NO_EVENT = {
    **dict.fromkeys(
        ("advise", "audit", "collections", "completion", "data", "doctor", "edge", "encryption", "endpoints"), _READS
    ),
    **dict.fromkeys(("answers", "backup", "budgets", "cost", "encoders", "prices"), _READS),
    **dict.fromkeys(("explain", "fairness", "features", "groups", "incidents", "jobs", "keys", "models"), _READS),
    **dict.fromkeys(
        ("monitor", "objectives", "pipelines", "policy", "predictions", "prices", "profile", "prompts"), _READS
    ),
    **dict.fromkeys(
        ("quotas", "roles", "rollout", "runs", "service-accounts", "sessions", "status", "streams"), _READS
    ),
    **dict.fromkeys(("subject", "targets", "tenant", "topics", "users", "whoami"), _READS),
    **dict.fromkeys(
        (
            "demo",
            "edge page",
            "export",
            "features read",
            "features unload",
            "init",
            "pipelines export",
            "sbom",
            "targets render",
        ),
        _FILE,
    ),
    **dict.fromkeys(("models influence", "models label-issues", "models near-duplicates"), _MODELS),
    **dict.fromkeys(("llm approvals", "llm usage"), _READS),
    **dict.fromkeys(("answers ask", "bench", "predict"), _PREDICTS),
    "collections evaluate": "measures; the lake keeps the figures",
    "answers agreement": "measures; revealed answers have one each",
    "llm plan": "computes from a configuration; opens no project",
    "ci": "of what it trains and promotes",
    "monitor run": "computes from the prediction log; an incident has one",
    "pipelines run-step": "runs the step for another runner, whose run has one",
    "pipelines step": "runs the step for another engine, which has the run",
    "reproduce": "trains in a folder that it removes",
}
JOB_EVENTS = {
    "batch": "batch.run",
    "collect-garbage": "collect-garbage",
    "collections": "collections.build",
    "evidence": "evidence",
    "explain": "",
    "forget-jobs": "jobs.forget",
    "ingest-warehouse": "ingest",
    "materialise": "materialise",
    "monitor": "",
    "search": "search",
    "snapshot": "",
    "tidy": "features.tidy",
    "train": "train",
    "jobs of the project": "jobs.end",
    f"{RUN}NAME": "pipelines.end",
    STEP: "",
    APPROVAL: "pipelines.approve",
}
_NO_JOB_EVENT = {
    "explain": "computes; the job has the result",
    "monitor": NO_EVENT["monitor run"],
    "snapshot": _READS,
    STEP: "its run has one, and what its function changes",
}


def event_of(command: str) -> tuple[str, str]:
    """Return the action of a command's event, or an empty one and why it has none.

    Raises:
        KeyError: The command is in no table.
    """
    if command in EVENTS:
        return EVENTS[command], ""
    return "", NO_EVENT.get(command) or NO_EVENT[command.partition(" ")[0]]


def commands() -> Iterator[str]:
    """Yield every command, without groups."""
    context = click.Context(cli, info_name="mainspring")
    for name in COMMANDS:
        yield from _commands(cli.get_command(context, name), context, name)


def _commands(command: click.Command | None, context: click.Context, path: str) -> Iterator[str]:
    if not isinstance(command, click.Group):
        yield path
        return
    for name in command.list_commands(context):
        yield from _commands(command.get_command(context, name), context, f"{path} {name}")


def who_may(command: str) -> tuple[str, str]:
    """Return the action of a command, and who may run it.

    Raises:
        KeyError: The command is in no table.
    """
    if command in _CHECKED:
        return f"`{_CHECKED[command]}`", ""
    group = command.partition(" ")[0]
    same = _SAME.get(command, _SAME.get(group))
    return ("", f"{_FOLDER}: it {_WHY[group]}") if same is None else (f"as `{same}`", _FOLDER)


def page() -> str:
    """Return the page."""
    authoriser = CedarAuthoriser()
    meanings = dict(re.findall(r'= "([a-z.]+)"  # (.+)', inspect.getsource(Action)))
    lines = []
    for action in Action:
        roles = [role for role in Role if authoriser.allows(_with(role), action, PROJECT)]
        everyone = authoriser.allows(_with(None), action, PROJECT)
        scope = next(scope for scope in KeyScope if _key(authoriser, scope, action))
        who = "everyone known" if everyone else ", ".join(roles)
        lines.append(f"| `{action}` | {meanings[action]} | {scope} | {who} |\n")
    parts = [_HEAD, *lines, _COMMANDS]
    parts += [f"| `{each}` | {' | '.join(who_may(each))} | {_told(*event_of(each))} |\n" for each in commands()]
    parts += [_JOBS]
    parts += [
        f"| {_code(kind)} | {f'`{action}`' if action else ''} | {who} | "
        f"{_told(JOB_EVENTS[kind], _NO_JOB_EVENT.get(kind, ''))} |\n"
        for kind, (action, who) in _KINDS.items()
    ]
    for title, name in (
        ("Roles", "roles.cedar"),
        ("Scopes", "scopes.cedar"),
        ("Calls of tools", "tools.cedar"),
        ("Schema", "policies.cedarschema"),
    ):
        text = files("mainspring.security").joinpath(name).read_text("utf-8")
        parts.append(f"\n## {title}\n\n```text\n{text}```\n")
    return "".join(parts)


def _told(event: str, why_none: str) -> str:
    return f"`{event}`" if event else f"none: {why_none}"


def _code(kind: str) -> str:
    return kind if " " in kind else f"`{kind}`"


def _with(role: Role | None) -> Principal:
    roles = frozenset({Binding(role)} if role else ())
    return Principal("id", "name", frozenset(KeyScope), Kind.USER, roles=roles)


def _key(authoriser: CedarAuthoriser, scope: KeyScope, action: Action) -> bool:
    key = Principal("id", "name", frozenset({scope}), roles=frozenset({Binding(Role.ADMINISTRATOR)}))
    return authoriser.allows(key, action, PROJECT)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
