"""Every kind of page that links lead to, and what a person reads there."""

import html
import re
from urllib.parse import parse_qs, urljoin, urlsplit

from kit.console.client import Client

# What Python writes of a value and no person does, and numbers that are instants without saying so.
REPRS = re.compile(
    r"(?<![\w.-])(?:None|True|False|nan|inf)(?=$|[,;)\]}])"
    r"|\[['\"]|\{['\"]|\(['\"]|<class |<function | object at 0x|datetime\.|datetime\(|dict_|frozenset\(|\b1[0-9]{15}\b"
)
_UNLIKE = re.compile(r"[0-9a-f]{20,}|01[0-9a-z]{24}|(?<=versions/)\d+")
_KIND_OF_PAGE = 2  # pages that differ in ids and values alone


def crawl(client: Client, start: str = "/") -> dict[str, str]:
    """Return path -> text, titles of elements included; of pages that differ in an id alone, the first few."""
    found: dict[str, str] = {}
    seen: dict[str, int] = {}
    left = [start]
    while left:
        path = left.pop(0)
        kind = _UNLIKE.sub("", path.partition("?")[0]) + str(sorted(parse_qs(path.partition("?")[2])))
        if path in found or seen.get(kind, 0) >= _KIND_OF_PAGE:
            continue
        answer = client.page(path)
        if not answer.headers.get("content-type", "").startswith("text/html"):
            continue
        seen[kind] = seen.get(kind, 0) + 1
        found[path] = visible(answer.text)
        for link in re.findall(r'href="([^"]+)"', answer.text):
            to = urlsplit(urljoin(path, html.unescape(link)))
            if not to.netloc and not to.path.startswith(("/api/", "/static/")):
                left.append(to.path + (f"?{to.query}" if to.query else ""))
    return found


def visible(page: str) -> str:
    """Return a page's words: its text without scripts and what a person typed, and its titles and labels."""
    titles = re.findall(r'(?:title|aria-label)="([^"]*)"', page)
    text = re.sub(r"<[^>]+>", "\n", page.split("<main", 1)[-1])
    return html.unescape("\n".join([text, *titles]))


def reprs(pages: dict[str, str]) -> dict[str, list[str]]:
    """Return path -> lines in which a value stands as Python writes it."""
    found = {path: [line.strip() for line in text.splitlines() if REPRS.search(line)] for path, text in pages.items()}
    return {path: lines for path, lines in found.items() if lines}
