"""Every kind of page that links lead to, and what a person reads there."""

import html
import re
import shlex
from collections import Counter
from html.parser import HTMLParser
from urllib.parse import parse_qs, urljoin, urlsplit

import click

from kit.console.client import Client
from mainspring.cli.help import Group
from mainspring.cli.main import cli

# What Python writes of a value and no person does, and numbers that are instants without saying so.
REPRS = re.compile(
    r"(?<![\w.-])(?:None|True|False|nan|inf)(?=$|[,;)\]}])"
    r"|\[['\"]|\{['\"]|\(['\"]|<class |<function | object at 0x|datetime\.|datetime\(|dict_|frozenset\(|\b1[0-9]{15}\b"
)
_UNLIKE = re.compile(r"[0-9a-f]{20,}|01[0-9a-z]{24}|(?<=versions/)\d+")
_KIND_OF_PAGE = 2  # pages that differ in ids and values alone


def crawl(client: Client, start: str = "/") -> dict[str, str]:
    """Return path -> text, titles of elements included; of pages that differ in an id alone, the first few."""
    return {path: visible(page) for path, page in pages_of(client, start).items()}


def pages_of(client: Client, start: str = "/") -> dict[str, str]:
    """Return path -> HTML; of pages that differ in an id alone, the first few."""
    found: dict[str, str] = {}
    seen: dict[str, int] = {}
    left = [start]
    while left:
        path = left.pop(0)
        kind = _UNLIKE.sub("", path.partition("?")[0]) + str(sorted(parse_qs(path.partition("?")[2])))
        if path in found or seen.get(kind, 0) >= _KIND_OF_PAGE:
            continue
        answer = client.page(path)
        assert answer.status_code < 500, (path, answer.text)
        if not answer.headers.get("content-type", "").startswith("text/html"):
            continue
        seen[kind] = seen.get(kind, 0) + 1
        found[path] = answer.text
        for link in re.findall(r'href="([^"]+)"', answer.text):
            to = urlsplit(urljoin(path, html.unescape(link)))
            if not (to.netloc or to.scheme) and not to.path.startswith(("/api/", "/static/")):
                left.append(to.path + (f"?{to.query}" if to.query else ""))
    return found


def visible(page: str) -> str:
    """Return a page's words: its text without scripts and without code to copy, and its titles and labels."""
    page = re.sub(r"<code[^>]*>ms\..*?</code>", "", page, flags=re.DOTALL)
    titles = re.findall(r'(?:title|aria-label)="([^"]*)"', page)
    text = re.sub(r"<[^>]+>", "\n", page.split("<main", 1)[-1])
    return html.unescape("\n".join([text, *titles]))


def reprs(pages: dict[str, str]) -> dict[str, list[str]]:
    """Return path -> lines in which a value stands as Python writes it."""
    found = {path: [line.strip() for line in text.splitlines() if REPRS.search(line)] for path, text in pages.items()}
    return {path: lines for path, lines in found.items() if lines}


def unparsed(pages: dict[str, str]) -> dict[str, str]:
    """Return commands on pages (their HTML) that the command line's own parser refuses -> its message.

    The name of a command alone is no command to be typed.
    """
    found = {
        html.unescape(text)
        for page in pages.values()
        for text in re.findall(r"<code[^>]*>(mainspring [^<]*)</code>", page)
    }
    refused = {}
    for text in found:
        try:
            _parse(shlex.split(text)[1:])
        except click.ClickException as error:
            refused[text] = error.format_message()
    return refused


def _parse(words: list[str]) -> None:
    context, command = click.Context(cli, info_name="mainspring"), cli
    while isinstance(command, click.Group):
        if not words:
            return
        if isinstance(command, Group):
            words = command.completed(words)
        name, command, words = command.resolve_command(context, words)
        if isinstance(command, click.Group) or not words:
            context = click.Context(command, parent=context, info_name=name)
        else:
            command.make_context(name, list(words), parent=context)


class _Outline(HTMLParser):
    """Names and order of a page's parts, as somebody hears them who does not see the page."""

    _VOID = frozenset({"input", "meta", "link", "br", "col", "img", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.problems: list[str] = []
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self._words: list[str] = []
        self._level = 0
        self._labels: set[str] = set()
        self._controls: list[tuple[str, bool, str]] = []
        self.ids: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids.update([given["id"]] if given.get("id") else [])
        if tag == "label" and given.get("for"):
            self._labels.add(given["for"] or "")
        if tag in ("input", "select", "textarea") and given.get("type") != "hidden":
            named = bool(given.get("aria-label")) or any(name == "label" for name, _ in self._open)
            self._controls.append((given.get("id") or "", named, str(given)))
        if tag == "th" and not given.get("scope"):
            self.problems.append("a head of a table without a scope")
        if tag == "svg" and not (
            given.get("aria-hidden") or given.get("aria-label") or given.get("role") == "group" or self._hidden
        ):
            self.problems.append(f"a drawing without a name: {given}")
        if re.fullmatch("h[1-6]", tag):
            level = int(tag[1])
            if level > self._level + 1:
                self.problems.append(f"h{level} after h{self._level}")
            self._level = level
        if tag not in self._VOID:
            self._open.append((tag, given))
            self._words.append("")

    def handle_data(self, data: str) -> None:
        if self._words:
            self._words[-1] += data

    def handle_endtag(self, tag: str) -> None:
        while self._open:
            name, given = self._open.pop()
            words = self._words.pop()
            if self._words:
                self._words[-1] += words
            if name in ("a", "button", "summary", "caption", "h1", "h2", "h3") and not (
                words.strip() or given.get("aria-label")
            ):
                self.problems.append(f"{name} without words: {given}")
            if name == tag:
                break

    @property
    def _hidden(self) -> bool:
        return any(
            given.get("aria-hidden") or given.get("aria-label") or given.get("role") == "img" for _, given in self._open
        )

    def close(self) -> None:
        super().close()
        self.problems += [
            f"a control without a label: {told}"
            for id_, named, told in self._controls
            if not named and id_ not in self._labels
        ]
        self.problems += [f"the id {name} is there {count} times" for name, count in self.ids.items() if count > 1]


def unordered(page: str) -> list[str]:
    """Return what is wrong in a page's structure (WCAG 1.3.1, 2.4.6, 4.1.2): names, heads of tables, headings, ids."""
    outline = _Outline()
    outline.feed(page)
    outline.close()
    tables, captions = page.count("<table"), page.count("<caption")
    return outline.problems + ([f"{tables} tables, {captions} captions"] if tables != captions else [])
