"""Bills of materials in CycloneDX 1.6 (ECMA-424): of the software of an environment, and of a model's version."""

from __future__ import annotations

import base64
import hashlib
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from mainspring.core.errors import NotFound
from mainspring.core.time import to_datetime
from mainspring.governance.model import Card, Section
from mainspring.registry.lineage import Lineage
from mainspring.registry.model import Manifest
from mainspring.security.signing import SigningKey

MODEL, DATA = "model", "data"  # references within a document
_NAMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LICENSES = frozenset([  # of SPDX's list, those that packages commonly have
    "0BSD", "AFL-3.0", "AGPL-3.0-only", "AGPL-3.0-or-later", "Apache-2.0", "Artistic-2.0", "BlueOak-1.0.0",
    "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CNRI-Python", "ECL-2.0",
    "EPL-1.0", "EPL-2.0", "EUPL-1.2", "GPL-2.0-only", "GPL-2.0-or-later", "GPL-3.0-only", "GPL-3.0-or-later",
    "HPND", "ISC", "LGPL-2.1-only", "LGPL-2.1-or-later", "LGPL-3.0-only", "LGPL-3.0-or-later", "MIT", "MIT-0",
    "MIT-CMU", "MPL-1.1", "MPL-2.0", "MulanPSL-2.0", "NCSA", "OFL-1.1", "OLDAP-2.8", "OpenSSL", "PostgreSQL",
    "PSF-2.0", "Python-2.0", "Unicode-3.0", "Unlicense", "UPL-1.0", "WTFPL", "X11", "Zlib", "ZPL-2.1",
])  # fmt: skip
_EXCEPTIONS = frozenset(["Classpath-exception-2.0", "GCC-exception-3.1", "LLVM-exception"])
_TASKS = {
    "binary": "binary classification",
    "multiclass": "multiclass classification",
    "regression": "regression",
    "tensors": "inference on tensors",
}


@dataclass(frozen=True, slots=True)
class Package:
    """An installed distribution.

    Attributes:
        license: An SPDX expression, or a license's name; empty if its metadata has none. Expressions of uncommon
            licenses are taken for names.
        requires: Names of the distributions that it needs; those that are not installed are ignored.
    """

    name: str
    version: str
    license: str = ""
    requires: tuple[str, ...] = ()


def software(packages: Iterable[Package], root: str, *, at: int) -> dict[str, Any]:
    """Return the bill of an environment: its distributions, and which needs which.

    Args:
        root: The distribution that the bill is of.
        at: UTC epoch microseconds.

    Raises:
        NotFound: `root` is not among them.
    """
    found = {normalised(each.name): each for each in sorted(packages, key=lambda each: normalised(each.name))}
    root = normalised(root)
    if root not in found:
        raise NotFound(
            f"The distribution {root!r} has no metadata in this environment, so what it needs is unknown.",
            fix="install it with pip or uv, instead of a copy of its source on the path.",
        )
    others = [each for name, each in found.items() if name != root]
    dependencies = []
    for name, each in found.items():
        needed = {normalised(other) for other in each.requires} & found.keys()
        dependencies.append(_dependency(_purl(each), [_purl(found[other]) for other in needed - {name}]))
    component = {**_library(found[root]), "type": "application"}
    return _document(component, [_library(each) for each in others], dependencies, at)


def model(
    manifest: Manifest, lineage: Lineage, card: Card, *, tables: Mapping[str, int], packages: Iterable[Package]
) -> dict[str, Any]:
    """Return the bill of a version (ML-BOM): files, data, ancestors, the software that trained it, and the model card.

    Args:
        tables: Tables of the dataset commit with their versions; empty if unknown.
        packages: The software of the training.
    """
    files = [
        {"type": "file", "bom-ref": f"file:{name}", "name": name, "hashes": _sha256(digest)}
        for name, digest in sorted(manifest.files.items())
    ]
    ancestors: list[dict[str, Any]] = []
    for each in lineage.ancestors:
        name, _, version = each.version.partition(":")
        ancestor = {
            "type": "machine-learning-model",
            "bom-ref": f"bundle:{each.digest}",
            "name": name or each.digest[:12],
            "description": each.role,
            "hashes": _sha256(each.digest),
        }
        ancestors.append(ancestor | ({"version": version} if version else {}))
    libraries = [_library(each) for each in sorted(packages, key=lambda each: normalised(each.name))]
    data = [_data(manifest.dataset_commit, tables, card)] if manifest.dataset_commit else []
    components = [*files, *data, *{each["bom-ref"]: each for each in ancestors}.values(), *libraries]
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": MODEL,
        "name": lineage.model,
        "version": lineage.version,
        "hashes": _sha256(lineage.digest),
        **({"authors": [{"name": each} for each in lineage.authors]} if lineage.authors else {}),
        "modelCard": _card(manifest, card, has_data=bool(data)),
        "properties": _properties(
            bundle=lineage.digest,
            run=lineage.run_id,
            code=lineage.code_version,
            features=lineage.features_digest,
            aliases=", ".join(lineage.aliases),
        ),
    }
    dependencies = [_dependency(MODEL, [each["bom-ref"] for each in components])]
    return _document(component, components, dependencies, manifest.created_at)


def signed(document: Mapping[str, Any], key: SigningKey) -> dict[str, Any]:
    """Return the document with an Ed25519 signature inside, in the JSON Signature Format, which CycloneDX names."""
    signature = {
        "algorithm": "Ed25519",
        "publicKey": {"kty": "OKP", "crv": "Ed25519", "x": _base64url(key.public)},
    }
    content = canonical({**document, "signature": signature})
    return {**document, "signature": {**signature, "value": _base64url(key.sign(content))}}


def canonical(document: Mapping[str, Any]) -> bytes:
    """Return the bytes that are signed: keys sorted, no spaces, as RFC 8785 has it for texts and whole numbers."""
    return msgspec.json.encode(document, order="sorted")


def normalised(name: str) -> str:
    """Return a distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def required(requirements: Iterable[str], *, extras: bool = False) -> tuple[str, ...]:
    """Return the distributions that requirements (PEP 508) name, those of extras only where asked."""
    return tuple(
        found[0]
        for each in requirements
        if (extras or "extra" not in each.partition(";")[2]) and (found := _NAMED.match(each)) is not None
    )


def _document(
    component: Mapping[str, Any],
    components: Sequence[Mapping[str, Any]],
    dependencies: Sequence[Mapping[str, Any]],
    at: int,
) -> dict[str, Any]:
    from mainspring.core.version import __version__

    tool = {"type": "application", "name": "mainspring", "version": __version__}
    body: dict[str, Any] = {
        "metadata": {
            "timestamp": f"{to_datetime(at):%Y-%m-%dT%H:%M:%SZ}",
            "tools": {"components": [tool]},
            "component": component,
        },
        "components": components,
        "dependencies": dependencies,
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, hashlib.sha256(canonical(body)).hexdigest())
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": f"urn:uuid:{serial}", "version": 1, **body}


def _library(package: Package) -> dict[str, Any]:
    purl = _purl(package)
    found: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "version": package.version,
        "purl": purl,
    }
    if package.license:
        found["licenses"] = [
            {"expression": package.license} if _is_spdx(package.license) else {"license": {"name": package.license}}
        ]
    return found


def _is_spdx(text: str) -> bool:
    for each in re.split(" (?:AND|OR) ", text):
        license, with_, exception = each.partition(" WITH ")
        if license not in _LICENSES or (with_ and exception not in _EXCEPTIONS):
            return False
    return True


def _purl(package: Package) -> str:
    return f"pkg:pypi/{normalised(package.name)}@{package.version.replace('+', '%2B')}"


def _dependency(of: str, on: Iterable[str]) -> dict[str, Any]:
    return {"ref": of, "dependsOn": sorted(on)}


def _sha256(digest: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": digest}]


def _data(commit: str, tables: Mapping[str, int], card: Card) -> dict[str, Any]:
    facts = {fact.name: fact.value for fact in card.data}
    return {
        "type": "data",
        "bom-ref": DATA,
        "name": "dataset commit",
        "version": commit,
        "data": [
            {"type": "dataset", "name": name, "contents": {"properties": _properties(version=str(version))}}
            for name, version in sorted(tables.items())
        ],
        "properties": _properties(**facts),
    }


def _card(manifest: Manifest, card: Card, *, has_data: bool) -> dict[str, Any]:
    taken = [each.dtype.value for each in manifest.inputs] or [each.datatype for each in manifest.tensors]
    given = [each.datatype for each in manifest.output_tensors] or ["float" for _ in manifest.outputs]
    parameters: dict[str, Any] = {
        "task": _TASKS.get(manifest.task, manifest.task),
        "architectureFamily": manifest.flavour,
        "inputs": [{"format": each} for each in taken],
        "outputs": [{"format": each} for each in given],
    }
    if has_data:
        parameters |= {"approach": {"type": "supervised"}, "datasets": [{"ref": DATA}]}
    found: dict[str, Any] = {"modelParameters": parameters}
    if measured := _measured(card):
        found["quantitativeAnalysis"] = {"performanceMetrics": measured}
    if considered := _considered(card.words):
        found["considerations"] = considered
    spent = card.resources
    found["properties"] = _properties(
        **{f"input {number}": f"{name}: {dtype}" for number, (name, dtype) in enumerate(card.inputs)},
        **({"training seconds": f"{spent.seconds:.6g}"} if spent.seconds is not None else {}),
        **({"training energy, Wh": f"{spent.energy_wh:.6g}"} if spent.energy_wh is not None else {}),
        **{f"gap {number}": f"{gap.section}: {gap.what}" for number, gap in enumerate(card.gaps)},
    )
    return found


def _measured(card: Card) -> list[dict[str, Any]]:
    if card.performance is None:
        return []
    of_slices = [(estimate, "") for estimate in card.performance.metrics] + [
        (estimate, f"{part.feature} = {group.value}")
        for part in card.performance.slices
        for group in part.groups
        for estimate in group.metrics
    ]
    found = []
    for estimate, part in of_slices:
        metric: dict[str, Any] = {"type": estimate.metric, "value": f"{estimate.value:.6g}"}
        if part:
            metric["slice"] = part
        if estimate.low is not None and estimate.high is not None:
            bounds = {"lowerBound": f"{estimate.low:.6g}", "upperBound": f"{estimate.high:.6g}"}
            metric["confidenceInterval"] = bounds
        found.append(metric)
    return found


def _considered(words: Sequence[Section]) -> dict[str, Any]:
    texts = {section.title: section.text for section in words}
    found: dict[str, Any] = {}
    if text := texts.get("Intended use"):
        found["useCases"] = [text]
    if text := texts.get("Limits"):
        found["technicalLimitations"] = [text]
    if text := texts.get("Ethical considerations"):
        found["ethicalConsiderations"] = [{"name": text}]
    return found


def _properties(**values: str) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in values.items() if value]


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
