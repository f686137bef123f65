"""No file of the repository has a key, a token or a private key of anybody."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# The shapes that issuers give their secrets so that scanners find them.
SHAPES = {
    "private key": rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----\s+[A-Za-z0-9+/=]{16}",
    "AWS key": rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "GitHub token": rb"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60})",
    "GitLab token": rb"\bglpat-[A-Za-z0-9_-]{20}",
    "Slack token": rb"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    "Google key": rb"\bAIza[0-9A-Za-z_-]{35}\b",
    "PyPI token": rb"\bpypi-[A-Za-z0-9_-]{50}",
    "Hugging Face token": rb"\bhf_[A-Za-z]{34}\b",
    "key of a model provider": rb"\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{32}",
    "JSON Web Token": rb"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    "key of Mainspring": rb"\bmsp_[0-9a-z]{26}_[0-9A-Za-z]{43}[0-9a-f]{8}\b",
}
SECRET = re.compile(b"|".join(b"(?P<_%d>%s)" % (number, shape) for number, shape in enumerate(SHAPES.values())))
# One of these is in each: most files have none, and are not searched any further.
BEGINNINGS = (
    *(b"PRIVATE KEY", b"AKIA", b"ASIA", b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"github_pat_", b"glpat-", b"xox"),
    *(b"AIza", b"pypi-", b"hf_", b"sk-", b"eyJ", b"msp_"),
)


def found_in(content: bytes) -> list[str]:
    if not any(beginning in content for beginning in BEGINNINGS):
        return []
    names = list(SHAPES)
    return [names[int((match.lastgroup or "_0")[1:])] for match in SECRET.finditer(content)]


def test_no_file_has_a_secret() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    files = [file for name in listed.split(b"\0") if (file := ROOT / name.decode()).is_file()]
    assert len(files) > 1_000
    assert {str(file): found for file in files if (found := found_in(file.read_bytes()))} == {}


@pytest.mark.parametrize("kind", SHAPES)
def test_a_secret_is_found(kind: str) -> None:
    made = {
        "private key": "-----BEGIN EC PRIVATE " + "KEY-----\n" + "M" * 60,
        "AWS key": "AKIA" + "A1" * 8,
        "GitHub token": "ghp_" + "a" * 36,
        "GitLab token": "glpat-" + "a" * 20,
        "Slack token": "xoxb-" + "1" * 12,
        "Google key": "AIza" + "b" * 35,
        "PyPI token": "pypi-" + "c" * 60,
        "Hugging Face token": "hf_" + "d" * 34,
        "key of a model provider": "sk-" + "e" * 40,
        "JSON Web Token": "eyJ" + "f" * 20 + ".eyJ" + "f" * 20 + "." + "f" * 20,
        "key of Mainspring": "msp_" + "1" * 26 + "_" + "A" * 43 + "0" * 8,
    }
    assert found_in(f"key = '{made[kind]}'\n".encode()) == [kind]
