"""Bills of materials are valid CycloneDX, the same for the same facts, and signed as other tools verify it."""

import base64
import json
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from mainspring.core.errors import NotFound
from mainspring.core.schema import DType
from mainspring.governance.bom import Package, canonical, model, normalised, required, signed, software
from mainspring.governance.model import Card, Estimate, Fact, Gap, Group, Performance, Resources, Section, Slice
from mainspring.operations.bills import installed
from mainspring.registry.lineage import Ancestor, Lineage
from mainspring.registry.model import Input, Manifest
from mainspring.security.signing import SigningKey

AT = 1_700_000_000_000_000
PACKAGES = [
    Package("Zeta_lib", "1.0+cpu", "BSD 3-Clause", ("alpha",)),
    Package("alpha", "2", "MIT OR Apache-2.0"),
    Package("house", "0.1", "", ("zeta-lib", "gone")),
]


def check(document: dict[str, Any]) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document)) is None
    references = {each["bom-ref"] for each in [document["metadata"]["component"], *document["components"]]}
    assert len(references) == len(document["components"]) + 1
    assert {each["ref"] for each in document["dependencies"]} <= references
    assert {other for each in document["dependencies"] for other in each["dependsOn"]} <= references


def test_software_is_listed_with_what_needs_it() -> None:
    document = software(PACKAGES, "house", at=AT)
    check(document)
    assert [each["purl"] for each in document["components"]] == ["pkg:pypi/alpha@2", "pkg:pypi/zeta-lib@1.0%2Bcpu"]
    assert [each["licenses"] for each in document["components"]] == [
        [{"expression": "MIT OR Apache-2.0"}],
        [{"license": {"name": "BSD 3-Clause"}}],
    ]
    needs = {each["ref"]: each["dependsOn"] for each in document["dependencies"]}
    assert needs["pkg:pypi/house@0.1"] == ["pkg:pypi/zeta-lib@1.0%2Bcpu"]
    assert software(reversed(PACKAGES), "house", at=AT) == document
    assert software(PACKAGES[1:], "house", at=AT)["serialNumber"] != document["serialNumber"]


@pytest.mark.parametrize(
    ("license", "as_expression"),
    [
        ("MIT", True),
        ("MIT-0 OR Apache-2.0 WITH LLVM-exception AND BSD-2-Clause", True),
        ("BSD", False),
        ("Proprietary", False),
        ("MIT OR Proprietary", False),
        ("MIT WITH Apache-2.0", False),
        ("MIT OR", False),
        ("MITx0", False),
    ],
)
def test_only_known_licenses_make_an_expression(license: str, as_expression: bool) -> None:
    document = software([Package("house", "1", license)], "house", at=AT)
    check(document)
    expected = {"expression": license} if as_expression else {"license": {"name": license}}
    assert document["metadata"]["component"]["licenses"] == [expected]


def test_a_bill_of_what_is_notinstalled_says_so() -> None:
    with pytest.raises(NotFound, match="'gone' has no metadata"):
        software(PACKAGES, "gone", at=AT)


def test_what_isinstalled_here_is_a_valid_bill() -> None:
    document = software(installed(), "mainspring", at=AT)
    check(document)
    needs = {each["ref"]: each["dependsOn"] for each in document["dependencies"]}
    direct = needs[document["metadata"]["component"]["bom-ref"]]
    assert {"pkg:pypi/numpy", "pkg:pypi/cedarpy"} <= {each.partition("@")[0] for each in direct}


@pytest.mark.parametrize(
    ("requirement", "name"),
    [("numpy>=2.1", "numpy"), ("psycopg[binary]>=3.2; python_version > '3'", "psycopg"), ("x ; extra == 'all'", None)],
)
def test_requirements_name_distributions(requirement: str, name: str | None) -> None:
    assert required([requirement]) == (() if name is None else (name,))
    assert len(required([requirement], extras=True)) == 1


def test_names_are_compared_as_indexes_do() -> None:
    assert normalised("Zope.Interface__x") == "zope-interface-x"


def of_a_version() -> dict[str, Any]:
    manifest = Manifest(
        model="late", task="binary", flavour="onnx", inputs=(Input("distance", DType.Float64),), outputs=("p",),
        files={"model.onnx": "a" * 64, "golden.json": "b" * 64}, run_id="01run", dataset_commit="01commit",
        features_digest="d" * 64, code_version="e" * 40, created_at=AT,
    )  # fmt: skip
    lineage = Lineage(
        model="late", version="3", digest="c" * 64, aliases=("champion",), created_at=AT, authors=("ana",),
        flavour="onnx", task="binary", run_id="01run", run_status="FINISHED", dataset_commit="01commit",
        features_digest="d" * 64, code_version="e" * 40, metrics={}, tags={},
        ancestors=tuple(Ancestor(role=role, digest="f" * 64, version="late:2") for role in ("parent", "node a")),
    )  # fmt: skip
    bounded, free = Estimate("auc", 0.75, 0.7, 0.8), Estimate("log_loss", 0.5, None, None)
    card = Card(
        model="late", version="3", digest="c" * 64, aliases=(), made=(), lineage=(), inputs=(("distance", "Float64"),),
        words=(Section("Intended use", "Warn.\n"), Section("Ethical considerations", "None \x07 ☂ \"known\"\n")),
        data=(Fact("Training rows", "100"),),
        performance=Performance(
            100, (bounded, free), (Slice("hub", (Group(None, 60, (bounded,)),), 0, 0),), 50, "bootstrap"
        ),
        resources=Resources(seconds=1.5), gaps=(Gap("Contact", "Contact has not been written yet.", "write it."),),
    )  # fmt: skip
    return model(manifest, lineage, card, tables={"orders": 4, "scans": 2}, packages=PACKAGES[:2])


def test_a_version_is_listed_with_its_files_data_ancestors_and_card() -> None:
    document = of_a_version()
    check(document)
    assert [each["bom-ref"] for each in document["components"]] == [
        "file:golden.json", "file:model.onnx", "data", f"bundle:{'f' * 64}",
        "pkg:pypi/alpha@2", "pkg:pypi/zeta-lib@1.0%2Bcpu",
    ]  # fmt: skip
    card = document["metadata"]["component"]["modelCard"]
    assert card["quantitativeAnalysis"]["performanceMetrics"] == [
        {"type": "auc", "value": "0.75", "confidenceInterval": {"lowerBound": "0.7", "upperBound": "0.8"}},
        {"type": "log_loss", "value": "0.5"},
        {"type": "auc", "value": "0.75", "slice": "hub = None",
         "confidenceInterval": {"lowerBound": "0.7", "upperBound": "0.8"}},
    ]  # fmt: skip
    assert card["considerations"]["useCases"] == ["Warn.\n"]
    assert [each["name"] for each in document["components"][2]["data"]] == ["orders", "scans"]
    assert of_a_version() == document


def test_a_change_breaks_the_signature() -> None:
    document = signed(of_a_version(), SigningKey(bytes(32)))
    check(document)
    signature = document["signature"]
    public = base64.urlsafe_b64decode(signature["publicKey"]["x"] + "=")
    value = base64.urlsafe_b64decode(signature["value"] + "==")

    def verify(changed: dict[str, Any]) -> None:
        # As the format's specification has it: the document in RFC 8785's form, without the value.
        plain = {**changed, "signature": {name: each for name, each in signature.items() if name != "value"}}
        content = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        assert content == canonical(plain)
        Ed25519PublicKey.from_public_bytes(public).verify(value, content)

    verify(document)
    with pytest.raises(InvalidSignature):
        verify({**document, "version": 2})
