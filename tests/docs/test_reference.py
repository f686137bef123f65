"""The reference says what the code says: commands, settings, exit codes, names, routes."""

from __future__ import annotations

import re
from pathlib import Path

import mainspring
from kit.pages import DOCS, script
from mainspring.cli import exits
from mainspring.llm.routes import LLM_ROUTES
from mainspring.operations.opened import OpenedProject
from mainspring.project.settings import DEFAULTS
from mainspring.serving.http.gateway import ROUTES
from mainspring.serving.http.hosted import HOSTED_ROUTES

REFERENCE = DOCS / "reference"


def rows(page: str, section: str = "") -> list[list[str]]:
    """Return the cells of the page's tables, without the code marks; of one section where it is named."""
    text = (REFERENCE / page).read_text(encoding="utf-8")
    if section:
        text = text.split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|--")]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines]


def test_the_command_line_is_current() -> None:
    written = (REFERENCE / "cli.md").read_text(encoding="utf-8")
    assert written == script("cli_reference").page(), "run `python docs/cli_reference.py`"


def test_plans_of_trainings_are_those_of_the_code() -> None:
    written = (REFERENCE / "training-plans.md").read_text(encoding="utf-8")
    assert written == script("training_plan_reference").page(), "run `python docs/training_plan_reference.py`"


def test_plans_of_language_models_are_current() -> None:
    written = (REFERENCE / "llm-sizing.md").read_text(encoding="utf-8")
    assert written == script("llm_plan_reference").page(), "run `python docs/llm_plan_reference.py`"


def test_roles_and_actions_are_current() -> None:
    written = (REFERENCE / "access.md").read_text(encoding="utf-8")
    assert written == script("access_reference").page(), "run `python docs/access_reference.py`"


def test_rights_in_clouds_are_those_of_the_tables() -> None:
    written = (REFERENCE / "iam.md").read_text(encoding="utf-8")
    assert written == script("iam_reference").page(), "run `python docs/iam_reference.py`"


def test_every_command_and_kind_of_job_has_an_action_or_a_reason() -> None:
    from mainspring.console.permissions import NEEDS
    from mainspring.operations.jobs.handlers import WORK
    from mainspring.operations.pipelines.names import APPROVAL, RUN, STEP

    tables = script("access_reference")
    commands = list(tables.commands())
    found = {each: tables.who_may(each) for each in commands}
    assert len(found) == len(commands) > 150
    assert all(action or who for action, who in found.values())
    groups = {each.partition(" ")[0] for each in commands}
    assert tables._CHECKED.keys() <= found.keys()
    assert tables._SAME.keys() <= found.keys() | groups
    assert {each for each in groups if any(who.startswith(f"{tables._FOLDER}: ") for name, (_, who) in found.items()
            if name.partition(" ")[0] == each)} == tables._WHY.keys()  # fmt: skip
    assert tables._KINDS.keys() == WORK.keys() | {"jobs of the project", f"{RUN}NAME", STEP, APPROVAL}
    assert tables.JOB_EVENTS.keys() == tables._KINDS.keys()
    without = {each for each in commands if each not in tables.EVENTS}
    assert tables.EVENTS.keys() | without == found.keys()
    told = {each if each in tables.NO_EVENT else each.partition(" ")[0] for each in without}
    assert told == tables.NO_EVENT.keys()
    assert {each for each, event in tables.JOB_EVENTS.items() if not event} == tables._NO_JOB_EVENT.keys()
    assert [path for method, path in NEEDS if method != "GET" and "/jobs" in path] == []


def test_settings_are_those_of_the_code() -> None:
    documented = {cells[0]: cells[1:3] for cells in rows("settings.md", "Every setting")[1:]}
    assert documented == {name: [f"MAINSPRING_{name.upper()}", str(default)] for name, default in DEFAULTS.items()}


def test_exit_codes_are_those_of_the_code() -> None:
    documented = {cells[1]: int(cells[0]) for cells in rows("exit-codes.md")[1:]}
    assert documented == {name: code for name, code in vars(exits).items() if name.isupper() and isinstance(code, int)}


def test_every_public_name_is_documented_and_no_other() -> None:
    text = (REFERENCE / "definitions.md").read_text(encoding="utf-8")
    grouped = re.findall(r"\bms\.(\w+)\.(\w+)", text)
    short = {name for _, name in grouped} & set(mainspring.__all__)  # those that are also there without their group
    assert set(re.findall(r"\bms\.(\w+)", text)) | short == set(mainspring.__all__)
    named = {(group, name) for group in mainspring._GROUPS for name in getattr(mainspring, group).__all__}
    assert set(grouped) == named


def test_what_an_opened_project_has_is_documented_and_no_more() -> None:
    text = (REFERENCE / "definitions.md").read_text(encoding="utf-8")
    public = {name for name in vars(OpenedProject) if not name.startswith("_")} | {"services"}
    assert set(re.findall(r"\bproject\.(\w+)", text)) == public


def test_the_data_plane_is_whole() -> None:
    documented = {
        tuple(cells[:2]) for cells in rows("http-api.md", "Data plane") if "/" in cells[0] and " " in cells[0]
    }
    assert documented == {
        (f"{route.method} {route.path}", "none" if route.action is None else route.action.value)
        for route in (*ROUTES, *LLM_ROUTES, *HOSTED_ROUTES)
    }


def test_the_control_plane_is_whole(tmp_path: Path) -> None:
    from mainspring.console.api import api
    from mainspring.project import open_project
    from mainspring.project.settings import load_settings

    (tmp_path / "mainspring.toml").write_text('name = "empty"\nmodules = []\n')
    routes = {
        f"{method} {route.path}"
        for route in api(open_project(load_settings(tmp_path, environment={}))).routes
        for method in route.methods - {"HEAD"}
    }
    text = (REFERENCE / "http-api.md").read_text(encoding="utf-8").split("## Control plane", 1)[1]
    documented = {f"{method} {path}" for method, path in re.findall(r"`(GET|POST|DELETE) (/api[^`?]*)", text)} - {
        "GET /api/openapi.json"
    }
    assert documented == routes


def test_only_real_verbs_are_named() -> None:
    from mainspring.cli.main import COMMANDS

    for page in DOCS.rglob("*.md"):
        for verb in re.findall(r"`mainspring ([a-z]+)[ `]", page.read_text(encoding="utf-8")):
            assert verb in COMMANDS, f"{page.name}: mainspring {verb}"


def test_guides_import_public_modules_alone() -> None:
    internal = {
        page.name
        for folder in ("tutorial", "howto")
        for page in (DOCS / folder).glob("*.md")
        if re.search(r"^(?:from|import) mainspring\.(?!client\b)", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert internal == {"write-an-adapter.md"}  # it is about an internal port, and says so
