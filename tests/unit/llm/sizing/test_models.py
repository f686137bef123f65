"""Where the model and the GPUs of a plan come from: files, names, descriptions, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mainspring.core.accelerators import parse_group, shipped
from mainspring.core.errors import Invalid, NotFound
from mainspring.llm.sizing.models import families, read_model


@pytest.mark.parametrize(
    "text",
    ["llama-3-1-8b", "Llama-3.1-8B", "meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Meta-Llama-3.1-8B"],
)
def test_a_family_is_found_by_the_names_that_it_has(text: str) -> None:
    assert read_model(text).total() == 8_030_261_248


def test_a_folder_a_file_and_fields_describe_the_same(tmp_path: Path) -> None:
    fields = {**families()["qwen2-5-0-5b"]["config"], "auto_map": {"AutoConfig": "trap.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    (tmp_path / "trap.py").write_text("raise SystemExit('the code of a model was run')")
    text = ",".join(
        f"{name}={json.dumps(value).strip(chr(34))}" for name, value in fields.items() if name != "auto_map"
    )
    assert {read_model(each).total() for each in (str(tmp_path), str(tmp_path / "config.json"), text)} == {494_032_768}


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "cannot be read"), (b"[]", "holds no object"), (b"{", "cannot be read"), (b"\xff\xfe", "cannot be read"),
     (b"[" * 100_000, "cannot be read"), (b'{"a": "' + b"x" * (1 << 20) + b'"}', "over 1,048,576 bytes"),
     (b"{}", "'None' are not known")],
)  # fmt: skip
def test_a_damaged_configuration_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(Invalid, match=said):
        read_model(str(tmp_path))


def test_no_configuration_and_no_family_are_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"config\.json cannot be read"):
        read_model(str(tmp_path))
    with pytest.raises(NotFound, match="'gpt-9' is neither a file nor a known family"):
        read_model("gpt-9")
    with pytest.raises(Invalid, match="'hidden' is no field=value"):
        read_model("model_type=llama,hidden")


@pytest.mark.parametrize(
    ("text", "nodes", "per_node", "name"),
    [("H100", 1, 1, "H100"), ("8xh100", 1, 8, "H100"), ("16xH100", 2, 8, "H100"), ("2x4xA100-40gb", 2, 4, "A100-40"),
     ("3xrtx 4090", 1, 3, "RTX-4090")],
)  # fmt: skip
def test_gpus_are_named_by_number_and_kind(text: str, nodes: int, per_node: int, name: str) -> None:
    group = parse_group(text)
    assert (group.nodes, group.per_node, group.gpu.name) == (nodes, per_node, name)


@pytest.mark.parametrize("text", ["0xH100", "2x0xH100", "9999xH100", "9xH100", "100x100xH100", "99999999xH100"])
def test_a_number_of_gpus_that_is_no_group_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_group(text)


def test_a_file_describes_another_gpu(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("memory_mib = 131072\nbandwidth_gb_s = 273\ntflops = { bf16 = 125 }\nprice = 0.4\n")
    group = parse_group(f"2x{path}")
    assert (group.gpu.name, group.gpu.memory, group.gpu.flops("fp8")) == ("mine", 128 * 2**30, 125e12)


@pytest.mark.parametrize(
    "text",
    ["memory_mib = 1", "memory_mib = -1\nbandwidth_gb_s = 1\ntflops = { bf16 = 1 }",
     "memory_mib = 1\nbandwidth_gb_s = 1\ntflops = {}", "memory_mib = nan\nbandwidth_gb_s = 1\ntflops = { bf16 = 1 }",
     "memory_mib = 1\nbandwidth_gb_s = 1\ntflops = { bf16 = 1 }\nmemory = 2",
     "memory_mib = 1\nbandwidth_gb_s = 1\ntflops = { bf16 = 1 }\nprice = -1"],
)  # fmt: skip
def test_a_wrong_description_of_a_gpu_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(Invalid, match="does not describe a GPU"):
        parse_group(f"1x{path}")


def test_an_unknown_gpu_is_not_found() -> None:
    with pytest.raises(NotFound, match="no GPU 'B9000'; known are H100"):
        parse_group("8xB9000")


def test_the_shipped_tables_name_their_sources() -> None:
    assert all(gpu.source for gpu in shipped().values())
    assert all(fields["source"] and fields["repository"] for fields in families().values())
