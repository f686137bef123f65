"""Nothing of ours pickles: not the code, and (tests/e2e uses the same search) not what a run leaves behind."""

from __future__ import annotations

import ast
import base64
import gzip
import json
import pickle
import sqlite3
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kit.pickles import pickles_in

ROOT = Path(__file__).parents[2]
MEASURED = ROOT / "bench" / "bundle_side.py"  # what bundles are compared with: it pickles, in a process of its own
CODE = sorted(
    path for folder in ("src", "examples", "bench") for path in (ROOT / folder).rglob("*.py") if path != MEASURED
)

MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "joblib", "marshal", "shelve", "dill", "jsonpickle"}
CALLS = {"torch.load", "yaml.load", "yaml.unsafe_load", "pandas.read_pickle", "pd.read_pickle"}
METHODS = {"to_pickle", "read_pickle"}
# Of each, what no spelling of it goes without: a source that has none of these needs no parsing.
WORDS = ("pickle", "Pickle", "marshal", "joblib", "shelve", "dill", "load")


def pickling(source: str) -> list[str]:
    """Return what in this Python source pickles or unpickles, with its line."""
    if not any(word in source for word in WORDS):
        return []
    found = []
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.partition(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
            names = [str(node.module)]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in CALLS or called.rpartition(".")[2] in METHODS:
                names = [called]
            elif called in ("__import__", "import_module", "importlib.import_module"):
                names = [ast.literal_eval(each) for each in node.args if isinstance(each, ast.Constant)]
                names = [name for name in names if str(name).partition(".")[0] in MODULES]
            names += [
                "allow_pickle"
                for each in node.keywords
                if each.arg == "allow_pickle"
                and not (isinstance(each.value, ast.Constant) and each.value.value is False)
            ]
        found += [f"line {getattr(node, 'lineno', 0)}: {name}" for name in names]
    return found


def test_the_code_does_not_pickle() -> None:
    assert len(CODE) > 500
    found = {str(path.relative_to(ROOT)): pickling(path.read_text()) for path in CODE}
    assert {name: uses for name, uses in found.items() if uses} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "def f():\n    from cloudpickle import dumps",
        "import joblib.numpy_pickle as x",
        "import marshal, json",
        "numpy.load(path, allow_pickle=True)",
        "numpy.load(path, allow_pickle=flag)",
        "torch.load(path)",
        "yaml.load(text)",
        "frame.to_pickle(path)",
        "__import__('dill')",
    ],
)
def test_the_search_sees_pickling(source: str) -> None:
    assert pickling(source)


def test_the_search_lets_the_rest_pass() -> None:
    assert pickling("import json\nnumpy.load(path, allow_pickle=False)\nyaml.safe_load(x)\nstore.load(x)") == []


class Custom:
    """Something that only a pickle can carry whole."""


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickled_file_is_found(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "model.bin").write_bytes(pickle.dumps([1.5, "x", {"a": Custom}], protocol=protocol))
    assert pickles_in(tmp_path) == ["inside/model.bin: pickle at byte 0"]


def test_a_pickle_is_found_in_whatever_holds_it(tmp_path: Path) -> None:
    content = pickle.dumps({"weights": list(range(100)), "class": Custom})
    (tmp_path / "a.log").write_bytes(b"header\n" + content + b"\ntrailer")
    (tmp_path / "b.gz").write_bytes(gzip.compress(content))
    (tmp_path / "c.json").write_text(json.dumps({"state": base64.b64encode(content).decode()}))
    with zipfile.ZipFile(tmp_path / "d.pt", "w") as archive:
        archive.writestr("archive/data.pkl", content)
    connection = sqlite3.connect(tmp_path / "e.db")
    with connection:
        connection.execute("CREATE TABLE jobs (id INTEGER, input TEXT, output BLOB)")
        connection.execute("INSERT INTO jobs VALUES (1, ?, NULL)", (base64.b64encode(content).decode(),))
        connection.execute("INSERT INTO jobs VALUES (2, NULL, ?)", (content,))
    connection.close()
    pq.write_table(pa.table({"blob": pa.array([content])}), tmp_path / "f.parquet", compression="zstd")

    found = pickles_in(tmp_path)

    assert {line.partition(":")[0] for line in found} == {"a.log", "b.gz", "c.json", "d.pt", "e.db", "f.parquet"}
    assert [line for line in found if line.startswith("e.db")] == [
        "e.db: jobs, row 0: base64 of a pickle at byte 0",
        "e.db: jobs, row 1: pickle at byte 0",
    ]


def test_ordinary_files_are_not_suspected(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"text": "gASV is how it begins", "gAWVabcdefghijkl": 1}))
    (tmp_path / "b.bin").write_bytes(bytes(range(256)) * 4096)
    (tmp_path / "c.bin").write_bytes(b"\x80\x02 and then no opcodes")
    pq.write_table(pa.table({"x": list(range(10_000))}), tmp_path / "d.parquet")
    connection = sqlite3.connect(tmp_path / "e.db")
    with connection:
        connection.execute("CREATE TABLE t (x BLOB)")
        connection.execute("INSERT INTO t VALUES (?)", (bytes(range(256)),))
    connection.close()
    assert pickles_in(tmp_path) == []
