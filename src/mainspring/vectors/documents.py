"""Files as documents: texts, Markdown, HTML and PDF, as rows for a source."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mainspring.core.errors import MissingExtra, NotFound

KINDS = {
    ".txt": "text",
    ".text": "text",
    ".rst": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".pdf": "pdf",
}
PAGE = "\f"  # between the pages of a PDF
LARGEST_BYTES = 64 << 20
# Problems of files, each with its fix.
EMPTY = "empty: leave it out, or write something"
NO_TEXT = "no text: save it as UTF-8 or UTF-16"
TOO_LARGE = f"too large: split it, of at most {LARGEST_BYTES >> 20} MiB a file"
ENCRYPTED = "encrypted: save it without its password"
DAMAGED = "damaged: open it in a reader of PDF, and save it again"
SCANNED = "pages without text: recognise the text of the scan (OCR), and save it again"


def read_documents(folder: str | os.PathLike[str], pattern: str = "**/*") -> Iterator[dict[str, Any]]:
    """Yield a row for each file of a folder whose name says that it is a document, by path: `.txt`, `.md`, `.html`,
    `.pdf` and their like.

    A row has `path`, relative to the folder, with `/`; `kind`, which is `text`, `markdown`, `html` or `pdf`; `text`,
    with a form feed between pages; `problem`, which says why there is no text, and what helps, null otherwise;
    `modified_at`. So no
    file ends the reading: where a source has the check `ms.not_null("text")`, those without text go to its quarantine.
    Links are not followed.

    Args:
        pattern: Files of the folder, as of `pathlib.Path.glob`.

    Raises:
        NotFound: There is no such folder.
        MissingExtra: There is a PDF, and the package that reads it is not installed.
    """
    root = Path(folder)
    if not root.is_dir():
        raise NotFound(f"There is no folder {root}.", fix="name the folder with the documents.")
    for path in sorted(root.glob(pattern)):
        kind = KINDS.get(path.suffix.lower())
        if kind is None or path.is_symlink() or not path.is_file() or _leaves(path, root):
            continue
        text, problem = _read(path, kind)
        modified = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        yield {
            "path": path.relative_to(root).as_posix(),
            "kind": kind,
            "text": text,
            "problem": problem,
            "modified_at": modified,
        }


def _leaves(path: Path, root: Path) -> bool:
    return not path.resolve().is_relative_to(root.resolve())


def _read(path: Path, kind: str) -> tuple[str | None, str | None]:
    """Return a file's text, or why it has none."""
    size = path.stat().st_size
    if size > LARGEST_BYTES:
        return None, TOO_LARGE
    if not size:
        return None, EMPTY
    if kind == "pdf":
        return _read_pdf(path)
    content = path.read_bytes()
    try:
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        return None, NO_TEXT
    if "\0" in text:
        return None, NO_TEXT
    return (text, None) if text.strip() else (None, EMPTY)


def _read_pdf(path: Path) -> tuple[str | None, str | None]:
    try:
        from pypdf import PdfReader
        from pypdf.errors import FileNotDecryptedError, PyPdfError
    except ModuleNotFoundError as error:
        raise MissingExtra("To read a PDF", "documents") from error
    try:
        with path.open("rb") as file:
            reader = PdfReader(file)
            if reader.is_encrypted and not reader.decrypt(""):
                return None, ENCRYPTED
            pages = [page.extract_text().replace(PAGE, "\n") for page in reader.pages]
    except FileNotDecryptedError:
        return None, ENCRYPTED
    except (PyPdfError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, OverflowError):
        return None, DAMAGED  # the library raises these on files that are none
    text = PAGE.join(pages).replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    if text.replace(PAGE, "").strip():
        return text, None
    return None, SCANNED if pages else EMPTY
