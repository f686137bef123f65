"""Files as rows: texts, pages of PDF, and what is no text, is encrypted, damaged or empty."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from kit.collected import Desk, collection
from kit.encoders import WordEncoder
from mainspring.core.errors import NotFound
from mainspring.data.adapters.memory import MemoryLake
from mainspring.vectors import documents
from mainspring.vectors.chunking import declaring as chunks
from mainspring.vectors.documents import read_documents


def pdf(*pages: str, password: str = "") -> PdfWriter:
    """Return a PDF with one line of text on each page."""
    writer = PdfWriter()
    font = DictionaryObject({NameObject(f"/{key}"): NameObject(f"/{value}") for key, value in
                             {"Type": "Font", "Subtype": "Type1", "BaseFont": "Helvetica"}.items()})  # fmt: skip
    for text in pages:
        page = writer.add_blank_page(200, 200)
        content = DecodedStreamObject()
        content.set_data(f"BT /F1 12 Tf 20 100 Td ({text}) Tj ET".encode())
        page[NameObject("/Contents")] = writer._add_object(content)
        fonts = DictionaryObject({NameObject("/F1"): writer._add_object(font)})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
    if password:
        writer.encrypt(password, algorithm="RC4-128")
    return writer


def read(folder: Path) -> dict[str, tuple[str | None, str | None]]:
    return {each["path"]: (each["text"], each["problem"]) for each in read_documents(folder)}


def test_texts_are_read_and_what_is_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "LARGEST_BYTES", 1000)
    contents = {
        "a/b.md": "# Über\n".encode(), "bom.txt": "\ufeffWith a mark.".encode(), "wide.txt": "Wide ü".encode("utf-16"),
        "latin.txt": "Käse".encode("latin-1"), "noise.html": b"a\0b", "empty.md": b"", "blank.md": b" \n",
        "large.txt": b"x" * 1001, "code.py": b"no", "damaged.pdf": b"%PDF-1.7 no", "other.pdf": b"\x89PNG",
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "link.md").symlink_to(tmp_path / "a" / "b.md")
    assert read(tmp_path) == {
        "a/b.md": ("# Über\n", None), "bom.txt": ("With a mark.", None), "wide.txt": ("Wide ü", None),
        "latin.txt": (None, "no text: save it as UTF-8 or UTF-16"),
        "noise.html": (None, "no text: save it as UTF-8 or UTF-16"),
        "empty.md": (None, "empty: leave it out, or write something"), "blank.md": (None, documents.EMPTY),
        "large.txt": (None, "too large: split it, of at most 64 MiB a file"),
        "damaged.pdf": (None, "damaged: open it in a reader of PDF, and save it again"),
        "other.pdf": (None, documents.DAMAGED),
    }  # fmt: skip
    kinds = {each["path"]: each["kind"] for each in read_documents(tmp_path, "a/*")}
    assert kinds == {"a/b.md": "markdown"}
    with pytest.raises(NotFound, match="no folder"):
        list(read_documents(tmp_path / "nowhere"))


def test_files_outside_of_the_folder_are_not_read(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "a.md").write_text("Text.")
    (inside / "linked").symlink_to(outside)
    assert [each["path"] for each in read_documents(inside)] == ["a.md"]
    assert list(read_documents(inside, "../out/*")) == []


def test_pages_of_a_pdf_are_the_places_of_its_chunks(tmp_path: Path) -> None:
    pdf("One of two pages here", "Two has something else").write(tmp_path / "open.pdf")
    pdf("Secret", password="x").write(tmp_path / "closed.pdf")
    pdf().write(tmp_path / "none.pdf")
    pdf("").write(tmp_path / "blank.pdf")
    found = read(tmp_path)
    found_text = "One of two pages here\fTwo has something else"
    assert found.pop("open.pdf") == (found_text, None)
    empty: Any = {
        "none.pdf": (None, documents.EMPTY),
        "blank.pdf": (None, "pages without text: recognise the text of the scan (OCR), and save it again"),
        "closed.pdf": (None, "encrypted: save it without its password"),
    }
    assert found == empty
    desk, declared = Desk(MemoryLake()), collection(chunks.tokens(8))
    desk.land({"path": "a", "body": found_text}, {"path": "b", "body": "No pages."})
    desk.build(WordEncoder(), declared)
    hits = {hit.text: hit.page for hit in desk.search(WordEncoder(), "pages", 9, declared)}
    desk.engine.dispose()
    assert hits == {"One of two pages here\fTwo has something ": 1, "else": 2, "No pages.": None}
