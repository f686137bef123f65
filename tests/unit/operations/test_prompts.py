from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

import mainspring as ms
from kit import documents
from mainspring.cli.main import cli
from mainspring.core.errors import Invalid, NotFound
from mainspring.llm.prompts import Template
from mainspring.operations.apply import apply
from mainspring.operations.prompts import described, point, prompt_difference, prompt_version
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings
from mainspring.security.model import AuditFilter

TOML = 'name = "desk"\nmodules = ["desk_p1.prompts"]\n'
MODULE = """import mainspring as ms

answer = ms.Prompt("answer", "Question: {question}", system="Be short.", description="One.")
other = ms.Prompt("other", "Say {word}.")
"""


def write(root: Path, module: str) -> None:
    (root / "desk_p1").mkdir(exist_ok=True)
    (root / "desk_p1" / "__init__.py").touch()
    (root / "desk_p1" / "prompts.py").write_text(module)
    (root / "mainspring.toml").write_text(TOML)


def opened(root: Path) -> Project:
    return open_project(load_settings(root, environment={}))


def shown(*words: str) -> str:
    done = CliRunner().invoke(cli, ["prompts", *words])
    assert done.exit_code == 0, done.output
    return done.output


def test_apply_records_a_version_of_each_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, MODULE)
    with closing(opened(tmp_path)) as project:
        with pytest.raises(NotFound, match="No prompt 'answer' was applied"):
            prompt_version(project, "answer")
        apply(project, dry_run=True)
        assert project.prompts.newest() == []
        apply(project)
        assert [(each.name, each.version) for each in project.prompts.newest()] == [("answer", 1), ("other", 1)]
        with pytest.raises(Invalid, match="nothing before version 1"):
            prompt_difference(project, "answer", None, None)
    for changed in (MODULE.replace("One.", "Two."), MODULE.replace("Be short.", "Be kind."), MODULE):
        write(tmp_path, changed)
        with closing(opened(tmp_path)) as project:
            apply(project)
            apply(project)
    rows = [line.split()[:2] for line in shown("list").splitlines() if line.startswith(("answer", "other"))]
    assert rows == [["answer", "3"], ["other", "1"]]
    assert "[system]\nBe kind." in shown("show", "answer:2")
    assert shown("diff", "answer", "1", "2").splitlines()[-4:] == [
        "-Be short.", "+Be kind.", " [user]", " Question: {question}",
    ]  # fmt: skip
    with closing(opened(tmp_path)) as project:
        assert [each.version for each in project.prompts.all("answer")] == [3, 2, 1]
        assert prompt_version(project, "answer:2").prompt.render(question="x")[0].text == "Be kind."
        with pytest.raises(NotFound, match="has no version '4'"):
            prompt_version(project, "answer:4")
        with pytest.raises(NotFound, match="answer"):
            prompt_version(project, "answr")
        newest = prompt_version(project, "answer")
        assert newest.digest == prompt_version(project, "answer:1").digest
        assert newest.messages == (Template("system", "Be short."), Template("user", "Question: {question}"))
        documents.check(["prompts", "list"], [described(each) for each in project.prompts.newest()])
        documents.check(["prompts", "show"], described(newest))
        documents.check(["prompts", "diff"], msgspec.to_builtins(prompt_difference(project, "answer", 1, 2)))
        with pytest.raises(NotFound, match="has no alias 'champion'"):
            prompt_version(project, "answer@champion")
        point(project, "answer", "champion", 1)
        documents.check(["prompts", "point"], described(point(project, "answer", "champion", 2, canary=3, share=0.5)))
        documents.check(["prompts", "aliases"], [described(each) for each in project.prompts.aliases("answer")])
        drawn = {prompt_version(project, "answer@champion", str(key)).version for key in range(40)}
        assert drawn == {2, 3}
        for wrong in (
            lambda: point(project, "answer", "7", 1),
            lambda: point(project, "answer", "a b", 1),
            lambda: point(project, "answer", "champion", 1, canary=2),
            lambda: point(project, "answer", "champion", 1, share=0.5),
            lambda: point(project, "answer", "champion", 1, canary=2, share=1.0),
        ):
            with pytest.raises(Invalid):
                wrong()
        with pytest.raises(NotFound):
            point(project, "answer", "champion", 9)
        assert [entry.event.detail for entry in project.audit.search(AuditFilter(action="prompts.point"))] == [
            "champion to 2, 0.5 of the keys to 3", "champion to 1",
        ]  # fmt: skip
    assert shown("aliases", "answer").split()[-5:-3]
    assert ms.open(tmp_path).prompt("answer:1").render(question="x")[0].text == "Be short."
