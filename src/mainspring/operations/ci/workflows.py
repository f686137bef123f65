"""Workflows of CI systems that run the model pipeline: GitHub Actions and GitLab CI."""

from __future__ import annotations

from collections.abc import Mapping

from mainspring.core.version import __version__

REPORT = "ci-report"
PATHS: Mapping[str, str] = {"github": ".github/workflows/mainspring.yml", "gitlab": ".gitlab-ci.yml"}

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
    branches: [{branch}]
permissions:
  contents: read
concurrency:
  group: mainspring-${{{{ github.ref }}}}
jobs:
  pipeline:
    runs-on: ubuntu-latest
    timeout-minutes: 120
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: "3.11"
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
          cat {report}/report.md >> "$GITHUB_STEP_SUMMARY"
      - uses: actions/upload-artifact@v4
        if: always()
        with:
          name: {report}
          path: {report}
"""

_GITLAB = """\
# Written by `mainspring ci --emit gitlab`: five stages for each merge request, all seven on {branch}.
.mainspring:
  image: python:3.11
  timeout: 2h
  before_script:
    - {install}
  artifacts:
    when: always
    paths: [{report}]
    reports:
      junit: {report}/report.xml

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


def workflow(system: str, *, profile: str = "", branch: str = "main") -> str:
    """Return the text of a workflow: five stages for each proposed change, all seven on `branch`.

    Args:
        system: A key of `PATHS`.
        profile: The profile whose data and stores it uses; by default the project's own.
    """
    option = f" --profile {profile}" if profile else ""
    command = f"mainspring ci{option} --report {REPORT}"
    return {"github": _GITHUB, "gitlab": _GITLAB}[system].format(
        branch=branch,
        install=_INSTALL.format(version=__version__),
        check=command,
        deliver=f"{command} --deploy",
        report=REPORT,
    )
