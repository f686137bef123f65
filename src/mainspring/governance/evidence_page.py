"""Rendering of a report of evidence as one signed, self-contained HTML file."""

from __future__ import annotations

from collections.abc import Iterator

from mainspring.core.html import Markup, code, text
from mainspring.core.time import format_instant
from mainspring.governance.evidence import Control, Measured, Report, State
from mainspring.governance.markup import document, facts, section
from mainspring.security.signing import SigningKey, signed_text

_MARKS = {
    State.HOLDS: "good", State.PARTLY: "some", State.OFF: "bad", State.FAILS: "bad", State.OPEN: "bad",
    State.IDLE: "none", State.YOURS: "none",
}  # fmt: skip
_STYLE = """
:root { --some: #92400e; } @media (prefers-color-scheme: dark) { :root { --some: #fcd34d; } }
.state { font-size: .78rem; font-weight: 600; white-space: nowrap; color: var(--dim); }
.state { border: 1px solid currentColor; border-radius: 1rem; padding: .05rem .6rem; }
.state.good { color: var(--good); } .state.some { color: var(--some); } .state.bad { color: var(--bad); }
.counts { display: flex; flex-wrap: wrap; gap: .4rem 1.4rem; list-style: none; padding: 0; margin: 1.2rem 0; }
.counts b { font-size: 1.3rem; font-variant-numeric: tabular-nums; margin-right: .4rem; }
article { border: 1px solid var(--line); border-radius: .5rem; padding: .8rem 1rem; margin: .8rem 0; }
article { break-inside: avoid; }
article header { display: flex; gap: .3rem .8rem; align-items: baseline; flex-wrap: wrap; }
article header b { margin-right: auto; } article header span:first-child { color: var(--dim); min-width: 7rem; }
article ul { list-style: none; padding: 0; margin: .6rem 0 0; }
article li { padding: .35rem 0; border-top: 1px solid var(--line); display: grid; }
article li { grid-template-columns: 1fr auto; gap: 0 .8rem; align-items: start; }
article p { margin: .5rem 0 0; color: var(--dim); font-size: .92rem; }
code { font-size: .85em; overflow-wrap: anywhere; }
@media (max-width: 40rem) { article header b { flex-basis: 100%; } article li { grid-template-columns: 1fr; } }
article .state { justify-self: start; }
"""


def page(report: Report, key: SigningKey) -> str:
    """Return the report as an HTML document, whose last line is a signature of everything before it."""
    body = document(_title(report), _body(report), _STYLE)
    return signed_text(body, key.sign)


def _title(report: Report) -> str:
    return f"Evidence for {report.framework.name}: {report.project}"


def _body(report: Report) -> Iterator[Markup]:
    of = report.framework
    yield Markup(f"<h1>{text(_title(report))}</h1>")
    yield Markup(f'<p class="note">{text(of.title)}. {text(of.scope)}</p>')
    counts = "".join(f"<li><b>{count}</b>{_state(state)}</li>" for state, count in report.counts.items())
    yield Markup(f'<ul class="counts">{counts}</ul>')
    yield facts(
        [
            ("Measured", format_instant(report.at)),
            ("Profile", report.profile),
            ("Mainspring", report.version),
            ("Installation's key", code(report.installation)),
        ]
    )
    yield section("Controls", *(_control(report, control) for control in of.controls))
    yield section(
        "How to read it",
        Markup(
            "<p>A control is served by measures. Each was looked at in this installation at the instant above: "
            "<i>in force</i>, <i>partly</i>, <i>off</i> by a choice, <i>fails</i> where it should hold, <i>open</i> "
            "where Mainspring has nothing, or there was nothing to measure. The test beside a measure is in "
            "Mainspring's repository, and fails without it. <i>Yours</i> is what no software does. The report is no "
            "certificate.</p>"
        ),
    )


def _control(report: Report, control: Control) -> Markup:
    measures = "".join(map(_measure, (report.measured[name] for name in control.measures)))
    return Markup(
        f"<article><header><span>{text(control.ref)}</span><b>{text(control.about)}</b>{_state(report.state(control))}"
        f"</header>{f'<ul>{measures}</ul>' if measures else ''}<p>Yours: {text(control.remains)}</p></article>"
    )


def _measure(found: Measured) -> Markup:
    measure = found.measure
    off = f" Off by: {_coded(measure.off_by)}." if measure.off_by else ""
    test = f"<small>{code(measure.test)}</small>" if measure.test else ""
    return Markup(
        f"<li><div>{text(measure.what)}<small>{text(found.found)}{off}</small>{test}</div>{_state(found.state)}</li>"
    )


def _coded(value: str) -> Markup:
    """Return a text in which what stands between backticks is code."""
    return Markup("".join(code(part) if place % 2 else text(part) for place, part in enumerate(value.split("`"))))


def _state(state: State) -> Markup:
    return Markup(f'<span class="state {_MARKS[state]}">{text(state)}</span>')
