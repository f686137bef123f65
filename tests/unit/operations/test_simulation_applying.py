"""The chosen executors in the text of a definition: nothing else changes, or nothing at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from mainspring.core.errors import Conflict
from mainspring.operations.simulation.applying import Planned, plan_change, write_change

OTHER = 'ms.Endpoint("other", model="m@champion", executors=(1, 2))\n'


def planned(folder: Path, text: str | bytes, wanted: tuple[int, int], had: tuple[int, int] = (1, 1)) -> Planned:
    """The change of endpoint `a` of a project with one module of this text."""
    (folder / "service.py").write_bytes(text if isinstance(text, bytes) else text.encode())
    return plan_change(folder, ["service"], "a", had, wanted)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('ms.Endpoint("a", model="m@champion")', 'ms.Endpoint("a", model="m@champion", executors=(0, 3))'),
        ('ms.Endpoint("a", model="m@champion",)', 'ms.Endpoint("a", model="m@champion", executors=(0, 3),)'),
        ('ms.Endpoint(name="a", model="m@c" ,  )', 'ms.Endpoint(name="a", model="m@c" , executors=(0, 3),  )'),
        ('ms.Endpoint("a", executors=(1,1), model="m@c")', 'ms.Endpoint("a", executors=(0,3), model="m@c")'),
        ('ms.Endpoint("a", executors=[1, 1], model="m@c")', 'ms.Endpoint("a", executors=[0, 3], model="m@c")'),
        (
            'x = ms.Endpoint(\n    "a",\n    model="m@champion",  # the ï one\n)',
            'x = ms.Endpoint(\n    "a",\n    model="m@champion",  # the ï one\n    executors=(0, 3),\n)',
        ),
        (
            'x = ms.Endpoint(\n\t"a", description="é)", model=("m@champion")  # no comma: )\n)',
            'x = ms.Endpoint(\n\t"a", description="é)", model=("m@champion"),  # no comma: )\n\texecutors=(0, 3),\n)',
        ),
        (
            'ms.Endpoint("a", model="m@champion", executors=(  # least\n    1,  # 1\n    1,\n))',
            'ms.Endpoint("a", model="m@champion", executors=(  # least\n    0,  # 1\n    3,\n))',
        ),
        (
            'ms.Endpoint("a", description="""executors=(1, 1)\n)""", model="m@champion")',
            'ms.Endpoint("a", description="""executors=(1, 1)\n)""", model="m@champion", executors=(0, 3))',
        ),
        (
            'ms.Endpoint("a", model="m@champion", description=\'ms.Endpoint("a", model="m@champion")\' \\\n)',
            'ms.Endpoint("a", model="m@champion", description=\'ms.Endpoint("a", model="m@champion")\', \\\n'
            "executors=(0, 3),\n)",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_only_the_executors_change(tmp_path: Path, before: str, after: str, ending: str) -> None:
    head = f"# ms.Endpoint(\"a\", model='m@champion')\nimport mainspring as ms\n{OTHER}"
    text, path = (head + before + "\nx = 1\n").replace("\n", ending), tmp_path / "service.py"
    found = planned(tmp_path, text, (0, 3))
    path.chmod(0o644)
    assert "\n+" in found.change.diff
    assert path.read_bytes() == text.encode(), "a plan writes nothing"
    assert write_change(found).written
    assert path.read_bytes().decode() == (head + after + "\nx = 1\n").replace("\n", ending)
    assert path.stat().st_mode & 0o777 == 0o644
    with pytest.raises(Conflict, match="meanwhile"):
        write_change(found)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('for n in "ab":\n    ms.Endpoint(n, model="m@champion")', "no definition"),
        ('for n in "b":\n    ms.Endpoint("a", model="m@champion")', "a loop"),
        ('def f(): return ms.Endpoint("a", model="m@champion")\nf()', "a function"),
        ('if True:\n    ms.Endpoint("a", model="m@c")\nelse:\n    ms.Endpoint("a", model="n@c")', "2 definitions"),
        ('[ms.Endpoint("a", model="m@champion") for _ in "b"]', "a comprehension"),
        ('ms.Endpoint("a", **{"model": "m@champion"})', "unpacked"),
        ('ms.Endpoint(*["a"], model="m@champion")', "no definition"),
        ('N = (1, 1)\nms.Endpoint("a", model="m@champion", executors=N)', "not two numbers"),
        ('ms.Endpoint("a", model="m@champion", executors=(1, 2 - 1))', "not two numbers"),
        ('make = ms.Endpoint\nmake("a", model="m@champion")', "no definition"),
        ('A = "a"\nms.Endpoint(A, model="m@champion")', "no definition"),
    ],
)  # fmt: skip
def test_an_unclear_definition_is_left_alone(tmp_path: Path, text: str, why: str) -> None:
    whole = f"import mainspring as ms\n{text}\n"
    with pytest.raises(Conflict, match=why) as refused:
        planned(tmp_path, whole, (0, 3))
    assert "executors=(0, 3)" in (refused.value.fix or "")
    assert (tmp_path / "service.py").read_text() == whole


def test_names_and_encodings(tmp_path: Path) -> None:
    text = b'\xef\xbb\xbffrom mainspring import Endpoint as E\nE("a", model="m@champion", executors=(1, 1))\n'
    write_change(planned(tmp_path, text, (2, 2)))
    assert (tmp_path / "service.py").read_bytes() == text.replace(b"(1, 1)", b"(2, 2)")
    latin = '# coding: latin-1\nimport mainspring as ms\nms.Endpoint("a", model="m@champion")  # \xe9\n'
    with pytest.raises(Conflict, match="encoding"):
        planned(tmp_path, latin.encode("latin-1"), (2, 2))
    text = b'import mainspring as ms\nms.Endpoint("a", model="m@champion")\n'
    same = planned(tmp_path, text, (1, 1))
    assert same.change.diff == ""
    assert not write_change(same).written
    with pytest.raises(Conflict, match="not what the project has"):  # changed by other code
        planned(tmp_path, text, (1, 1), had=(1, 2))


def test_a_definition_in_an_imported_module_through_a_link(tmp_path: Path) -> None:
    (real := tmp_path / "real.py").write_text('import mainspring as ms\nms.Endpoint("a", model="m@champion")\n')
    (tmp_path / "linked.py").symlink_to(real)
    write_change(planned(tmp_path, "import linked\n", (1, 4)))
    assert (tmp_path / "linked.py").is_symlink()
    assert "executors=(1, 4)" in real.read_text()
