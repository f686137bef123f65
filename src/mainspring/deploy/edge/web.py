"""The page of a package: a static folder whose scripts verify the package and run its model by onnxruntime-web.

onnxruntime-web is npm's; its two files are taken from a folder, from the archive that `npm pack` makes, or by
`npm pack` now. Only the release whose SHA-256 stand here is taken.
"""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from html import escape
from pathlib import Path

import msgspec

from mainspring.core.errors import Corrupt, Invalid, NotFound
from mainspring.core.files import disk_errors, make_folder, write_atomic
from mainspring.deploy.edge.package import INDEX, expect_new, read_package

RELEASE = "onnxruntime-web@1.30.0"
FILES: Mapping[str, str] = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}

_SCRIPTS = Path(__file__).with_name("page")
_PLACES = ("", "dist", "package/dist", "node_modules/onnxruntime-web/dist")
_NPM_S = 300
_FIX = f"give --onnxruntime-web the archive that `npm pack {RELEASE}` makes, or a folder with its files."


def write_page(folder: Path, package: Path, public: bytes, *, runtime: Path | None = None) -> int:
    """Write the page of a package into a new folder, and return its size in bytes.

    Args:
        public: The key that must have signed the package; the page trusts it alone.
        runtime: A folder or an archive with onnxruntime-web; by default `npm pack` fetches it.

    Raises:
        Conflict: The folder is not empty.
        NotFound: There is no package, or onnxruntime-web is not there.
        Corrupt: The package, or a file of onnxruntime-web, is not the signed or released one.
    """
    expect_new(folder)
    files = read_package(package, public)
    name = str(msgspec.json.decode(files[INDEX])["name"])
    content = {f"package/{each}": files[each] for each in files}
    content |= {f"ort/{each}": found for each, found in runtime_files(runtime).items()}
    content |= {path.name: path.read_bytes() for path in sorted(_SCRIPTS.iterdir())}
    page = content["index.html"].decode().replace("{{name}}", escape(name)).replace("{{key}}", public.hex())
    content["index.html"] = page.encode()
    with disk_errors(folder):
        for sub in ("", "package", "ort"):
            make_folder(folder / sub, mode=0o755)
        for each, found in content.items():
            write_atomic(folder / each, found, mode=0o644)
    return sum(map(len, content.values()))


def runtime_files(source: Path | None) -> dict[str, bytes]:
    """Return the files of onnxruntime-web by name, each with the SHA-256 of the release.

    Raises:
        NotFound: A file is not there, or npm is not.
        Corrupt: A file is of another release, or was changed.
    """
    if source is None:
        with tempfile.TemporaryDirectory(prefix="mainspring-npm-") as folder:
            return runtime_files(_packed(Path(folder)))
    found = {}
    for name, digest in FILES.items():
        content = _from_archive(source, name) if source.is_file() else _from_folder(source, name)
        if content is None:
            raise NotFound(f"{source} has no {name} of onnxruntime-web.", fix=_FIX)
        if hashlib.sha256(content).hexdigest() != digest:
            raise Corrupt(f"{name} in {source} is not that of {RELEASE}: its SHA-256 differs.", fix=_FIX)
        found[name] = content
    return found


def _from_folder(source: Path, name: str) -> bytes | None:
    paths = (source / place / name for place in _PLACES)
    return next((path.read_bytes() for path in paths if path.is_file()), None)


def _from_archive(source: Path, name: str) -> bytes | None:
    try:
        with tarfile.open(source) as archive:
            file = archive.extractfile(f"package/dist/{name}")
            return None if file is None else file.read()
    except KeyError:
        return None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise Invalid(f"{source} is not an archive of npm: {error}.", fix=_FIX) from error


def _packed(folder: Path) -> Path:
    command = ["npm", "pack", RELEASE, "--silent"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=_NPM_S)
    except FileNotFoundError:
        raise NotFound("npm is not installed, and onnxruntime-web was not given.", fix=_FIX) from None
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = str(error.stderr or error).strip().splitlines()[-1:]
        raise NotFound(f"`{' '.join(command)}` failed: {' '.join(said)}", fix=_FIX) from error
    return next(folder.glob("*.tgz"))
