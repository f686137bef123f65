"""The public names have the types that a user's type checker is told; see tests/typing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

CACHE = Path(__file__).parents[2] / ".mypy_cache" / "samples"  # also for the next run
SAMPLES = sorted((Path(__file__).parents[1] / "typing").glob("*.py"))

# Strict, by a configuration of its own: what a sample ignores is an error that must be there. Of other libraries, those
# are read whose types the samples name; torch alone would be 1,400 files.
CONFIGURATION = """
[mypy]
strict = true
follow_imports = skip
[mypy-mainspring.*]
follow_imports = normal
ignore_errors = true
[mypy-numpy.*,pandas.*,polars.*,pyarrow.*]
follow_imports = normal
"""


class _Otherwise(ast.NodeTransformer):
    """What is asserted to have a type is asserted to have none, and so shown with the type that it has."""

    count = 0

    def visit_Call(self, node: ast.Call) -> ast.Call:
        if isinstance(node.func, ast.Name) and node.func.id == "assert_type":
            self.count += 1
            node.args[1] = ast.Constant(None)
        return node


def test_samples_of_users_code_check(tmp_path: Path) -> None:
    """Each type that they name is known to the checker: were one Any, any type would do."""
    (tmp_path / "mypy.ini").write_text(CONFIGURATION)
    otherwise = _Otherwise()
    for sample in SAMPLES:
        (tmp_path / f"otherwise_{sample.name}").write_text(ast.unparse(otherwise.visit(ast.parse(sample.read_text()))))

    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", str(CACHE), *map(str, SAMPLES), *tmp_path.glob("otherwise_*.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    shown = [line for line in done.stdout.splitlines() if line.startswith("otherwise_")]
    assert [line for line in done.stdout.splitlines()[:-1] if line not in shown] == [], done.stderr
    shown = [line for line in shown if line.endswith("[assert-type]")]
    assert len(shown) == otherwise.count > 30
    assert [line for line in shown if 'of type "Any"' in line] == []
