"""Workflows of CI systems that run the model pipeline: GitHub Actions and GitLab CI."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from mainspring.core.errors import Conflict, Invalid
from mainspring.core.files import write_atomic
from mainspring.core.version import __version__

REPORT = "ci-report"
PATHS: Mapping[str, str] = {"github": ".github/workflows/mainspring.yml", "gitlab": ".gitlab-ci.yml"}
HEAD = "# Written by `mainspring ci --emit"  # the first line of each

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")  # means itself in YAML and in a shell
_INSTALL = (
    "if [ -f requirements.txt ]; then pip install -r requirements.txt; "
    'else pip install "mainspring[local,sklearn]>={version}"; fi'
)
_GITHUB = """\
# Written by `mainspring ci --emit github`: five stages for each pull request, all seven on {branch}.
name: model pipeline
on:
  pull_request:
  push:
    branches: ["{branch}"]
permissions:
  contents: read
concurrency:
  group: mainspring-${{{{ github.ref }}}}
defaults:
  run:
    working-directory: "{folder}"
jobs:
  pipeline:
    runs-on: ubuntu-latest
    timeout-minutes: 120
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: "3.11"
      - uses: actions/cache@v4
        with:
          path: ~/.cache/pip
          key: pip-${{{{ runner.os }}}}-${{{{ hashFiles('**/requirements.txt') }}}}
          restore-keys: pip-${{{{ runner.os }}}}-
      - name: Install
        run: |
          {install}
      - name: Check
        if: github.event_name == 'pull_request'
        run: |
          {check}
      - name: Deliver
        if: github.event_name == 'push'
        run: |
          {deliver}
      - name: Summary
        if: always()
        run: |
          if [ -f {report}/report.md ]; then cat {report}/report.md >> "$GITHUB_STEP_SUMMARY"; fi
      - uses: actions/upload-artifact@v4
        if: always()
        with:
          name: {report}
          path: "{folder}/{report}"
"""

_GITLAB = """\
# Written by `mainspring ci --emit gitlab`: five stages for each merge request, all seven on {branch}.
.mainspring:
  image: python:3.11
  timeout: 2h
  before_script:
    - cd "{folder}"
    - {install}
  artifacts:
    when: always
    paths: ["{folder}/{report}"]
    reports:
      junit: "{folder}/{report}/report.xml"

check:
  extends: .mainspring
  rules:
    - if: $CI_PIPELINE_SOURCE == "merge_request_event"
  script:
    - {check}

deliver:
  extends: .mainspring
  resource_group: mainspring
  rules:
    - if: $CI_COMMIT_BRANCH == "{branch}"
  script:
    - {deliver}
"""


def workflow(system: str, *, profile: str = "", branch: str = "main", folder: str = ".") -> str:
    """Return the text of a workflow: five stages for each proposed change, all seven on `branch`.

    Args:
        system: A key of `PATHS`.
        profile: The profile whose data and stores it uses; by default the project's own.
        folder: The project's folder in the repository.

    Raises:
        Invalid: A text could mean something else in YAML or in a shell.
    """
    for what, text in (("branch", branch), ("profile", profile or "local"), ("folder", folder)):
        if text != "." and not _PLAIN.fullmatch(text):
            raise Invalid(f"A workflow cannot name the {what} {text[:80]!r}.", fix="use letters, digits and . _ / -")
    option = f" --profile {profile}" if profile else ""
    command = f"mainspring ci{option} --report {REPORT}"
    return {"github": _GITHUB, "gitlab": _GITLAB}[system].format(
        branch=branch,
        folder=folder,
        install=_INSTALL.format(version=__version__),
        check=command,
        deliver=f"{command} --deploy",
        report=REPORT,
    )


def emit(root: Path, system: str, *, profile: str = "", branch: str = "main") -> Path:
    """Write a system's workflow to where the system looks for it, at the top of the repository, and return the path.

    Raises:
        Conflict: A file is there that this function did not write.
    """
    top = next((each for each in (root, *root.parents) if (each / ".git").exists()), root)
    path = top / PATHS[system]
    folder = root.relative_to(top).as_posix()
    text = workflow(system, profile=profile, branch=branch, folder=folder)
    if path.exists() and not path.read_text(encoding="utf-8", errors="replace").startswith(HEAD):
        raise Conflict(
            f"{path} is there already, and `mainspring ci --emit` did not write it.",
            fix="move it away, write the workflow, and put both together.",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text.encode())
    return path
