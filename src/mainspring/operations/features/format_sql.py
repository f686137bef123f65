"""SQL on several lines, for people: a clause a line, a query inside a query indented. Nothing else is changed."""

from __future__ import annotations

import re

_INDENT = "    "
# Quoted names and texts are one token, so that nothing in them is taken for a clause.
_TOKEN = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|\(\s*(?=SELECT\b)|[()]|;\s*"""
    r"""|\b(?:(?:ASOF\s+|LEFT\s+|SEMI\s+|ANTI\s+|INNER\s+|CROSS\s+)*JOIN|FROM|WHERE|GROUP\s+BY|ORDER\s+BY|QUALIFY"""
    r"""|UNION\s+ALL(?:\s+BY\s+NAME)?|LIMIT)\b"""
)


def laid_out(sql: str) -> str:
    """Return statements with line breaks before their clauses and around queries inside them."""
    out: list[str] = []
    queries: list[bool] = []  # of each open parenthesis: whether a query stands in it
    place = 0
    for token in _TOKEN.finditer(sql):
        out.append(sql[place : token.start()])
        place = token.end()
        text = token[0]
        depth = sum(queries)
        if text.startswith("(") and len(text.strip()) == 1:
            queries.append(sql[place:].startswith("SELECT"))
            out.append("(" + ("\n" + _INDENT * (depth + 1) if queries[-1] else text[1:]))
        elif text == ")":
            out.append("\n" + _INDENT * (depth - 1) + ")" if queries and queries.pop() else ")")
        elif text.startswith(";"):
            out.append(";\n\n" if sql[place:].strip() else ";")
        elif text[0] in "'\"" or (queries and not queries[-1]):
            out.append(text)
        else:
            _strip_end(out)
            out.append("\n" + _INDENT * depth + " ".join(text.split()))
    return "".join([*out, sql[place:]]).strip()


def _strip_end(out: list[str]) -> None:
    if out:
        out[-1] = out[-1].rstrip(" ")
