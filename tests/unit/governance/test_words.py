"""People's words: what counts as written, and what of it can be shown."""

from __future__ import annotations

from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.governance.words import EXPECTED, gaps_of, prose, read_words

FILE = """# Late orders

Not in any section.

## contact ##
Bakers

## Intended use

Plan the vans.
### Not for
- people
```
## no heading
```

## Limits
<!-- say
where it is bad -->

## Ethical considerations
TODO

## Funding
None.
"""


def test_sections_are_found_in_their_order() -> None:
    found = read_words(FILE)
    assert [section.title for section in found] == ["Intended use", "Contact", "Funding"]
    assert found[0].text == "Plan the vans.\n### Not for\n- people\n```\n## no heading\n```"
    assert [gap.what.split(" has ")[0] for gap in gaps_of(found, "cards/late.md")] == [
        "Limits",
        "Ethical considerations",
    ]
    assert all(gap.required and "cards/late.md" in gap.fix for gap in gaps_of(found, "cards/late.md"))


@pytest.mark.parametrize("text", ["", "TODO", "to do.", "*TBD*", "...?", "<!-- nothing -->", "FIXME"])
def test_a_promise_is_a_gap(text: str) -> None:
    assert read_words(f"## Limits\n{text}\n") == ()


def test_nothing_is_four_gaps() -> None:
    assert len(gaps_of(read_words(""), "x.md")) == len(EXPECTED)


def test_windows_line_ends_are_line_ends() -> None:
    assert read_words("## Limits\r\nNone known.\r\n")[0].text == "None known."


@given(st.text())
def test_any_text_is_read_and_shown(text: str) -> None:
    read_words(text)
    shown = prose(text)
    for tag in ("p", "ul", "ol", "li", "h3", "pre", "code", "em", "strong", "blockquote", "br"):
        shown = type(shown)(shown.replace(f"<{tag}>", "").replace(f"</{tag}>", ""))
    assert "<" not in shown
    assert ">" not in shown


@given(st.text(alphabet="<>&\"'`*_[]()!#-+~=\\ \n\t1.ax:/", max_size=80))
def test_no_mark_makes_more_than_a_tag_without_attributes(text: str) -> None:
    test_any_text_is_read_and_shown.hypothesis.inner_test(text)


def test_prose_has_paragraphs_lists_and_fences() -> None:
    shown = prose("One\ntwo.\n\n- a\n  more\n- b\n\n### Why\n```js\n<b>\n```\n<script>")
    assert shown.replace("\n", " ") == (
        "<p>One two.</p> <ul> <li>a more</li> <li>b</li> </ul> <h3>Why</h3> <pre><code>&lt;b&gt; </code></pre> "
        "<p>&lt;script&gt;</p> "
    )


def test_prose_has_emphasis_numbered_and_nested_lists() -> None:
    assert prose("1. **not** for `x<y`\n   - never\n2. *b*").replace("\n", "") == (
        "<ol><li><strong>not</strong> for <code>x&lt;y</code><ul><li>never</li></ul></li><li><em>b</em></li></ol>"
    )


@pytest.mark.parametrize("text", ["[a](javascript:b)", "![a](b)", "<https://a.b>", "[a]: /b\n\n[a]", "<b>a</b>"])
def test_a_link_or_a_tag_stays_as_written(text: str) -> None:
    assert unescape(prose(text).removeprefix("<p>").removesuffix("</p>\n")).replace("</p>\n<p>", "\n\n") == text


def test_a_fence_ends_with_its_own_mark() -> None:
    found = read_words("## Limits\n````\n```\n## no heading\n~~~\n````\n## Contact\nBakers\n")
    assert [section.title for section in found] == ["Limits", "Contact"]
