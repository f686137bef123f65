"""A console served in this process, and what a browser must see of each of its pages."""

import asyncio
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from kit.console.chromium import Browser
from kit.console.flights import Project
from kit.depth import DEEP, in_turns
from kit.waiting import free_port
from mainspring.console.app import create_app
from mainspring.console.server import serve
from mainspring.core.settings import Address


def anywhere(project: Project) -> Project:
    """Return the project with a free port for its console."""
    return project.having(settings=replace(project.settings, control=Address("127.0.0.1", free_port())))


@contextmanager
def served(project: Project) -> Iterator[str]:
    """Serve the console on a loop in a thread; give its address."""
    control, ready, loops = project.settings.control, threading.Event(), []

    async def run() -> None:
        stop = asyncio.Event()
        loops.append((asyncio.get_running_loop(), stop))
        app = create_app(project)
        await serve(app, control, stop=stop, started=ready.set, ending=app.state.changes.close)

    thread = threading.Thread(target=asyncio.run, args=(run(),), daemon=True)
    thread.start()
    assert ready.wait(120)
    yield control.url
    loop, stop = loops[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(20)
    assert not thread.is_alive()


def log_in(page: Any, address: str, key: str) -> None:
    page.call("Network.clearBrowserCookies")
    page.go(address)
    page.do(f"document.querySelector('#key').value = {key!r}")
    page.do("document.querySelector('form button').click()")
    page.wait("Page.loadEventFired")


# Texts that stand out too little from what is behind them (WCAG 2.2, 1.4.3: 4.5 to 1).
TOO_FAINT = """(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const over = ([r, g, b, a = 1], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a)];
  const seen = new Map([[null, [255, 255, 255]]]);
  const behind = (node) => {
    if (!seen.has(node))
      seen.set(node, over(parse(getComputedStyle(node).backgroundColor), behind(node.parentElement)));
    return seen.get(node);
  };
  const light = (rgb) => rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const found = [];
  for (const node of document.querySelectorAll('body *:not(svg *)')) {
    const text = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!text || !node.getClientRects().length) continue;
    const back = behind(node), front = over(parse(getComputedStyle(node).color), back);
    const [high, low] = [light(front), light(back)].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) found.push(`${node.outerHTML.slice(0, 90)} ${ratio.toFixed(2)}`);
  }
  return found;
})()"""

# Controls without a name.
NAMELESS = """[...document.querySelectorAll('input:not([type=hidden]):not([hidden]), select')]
  .filter((control) => !control.labels.length)
  .concat([...document.querySelectorAll('a, button')].filter((each) => !each.textContent.trim()))
  .concat([...document.querySelectorAll('table')].filter((table) => !table.caption?.textContent.trim()))
  .map((each) => each.outerHTML.slice(0, 120))"""


# Tables that offer no CSV and JSON.
UNSAVED = """[...document.querySelectorAll('main table')]
  .filter((table) => table.rows.length > 1 && !table.dataset.offered)
  .map((table) => table.outerHTML.slice(0, 120))"""

# Controls of less than 24 by 24 CSS pixels with another within 12 pixels of their middle (WCAG 2.2, 2.5.8), but for
# links within a sentence, a list or a cell.
SMALL = """(() => {
  const area = (each) => each.labels?.[0]?.contains(each) ? each.labels[0] : each;
  const shown = [...document.querySelectorAll('a, button, select, summary, input:not([type=hidden])')]
    .filter((each) => !each.closest('.unseen') && area(each).getClientRects().length)
    .map((each) => [each, area(each).getBoundingClientRect()]);
  const near = (one, box) => {
    const x = (one.left + one.right) / 2, y = (one.top + one.bottom) / 2;
    return Math.hypot(Math.max(box.left - x, 0, x - box.right), Math.max(box.top - y, 0, y - box.bottom)) < 12;
  };
  const alone = 'button, select, summary, input, nav:not(.crumbs) a, a.button, .next';
  return shown.filter(([each, box]) => each.matches(alone) && (box.width < 23.5 || box.height < 23.5)
      && shown.some(([other, there]) => other !== each && near(box, there)))
    .map(([each]) => each.outerHTML.slice(0, 120));
})()"""

# Controls outside the order in which a keyboard reaches them (WCAG 2.2, 2.4.3), and regions that scroll without it.
UNREACHED = """[...document.querySelectorAll('[tabindex]')].filter((each) => each.tabIndex > 0)
  .concat([...document.querySelectorAll('main *')].filter((each) =>
    ['auto', 'scroll'].includes(getComputedStyle(each).overflowX) && each.scrollWidth > each.clientWidth + 1 &&
    each.tabIndex < 0 && !each.querySelector('a, button, input, [tabindex]')))
  .map((each) => each.outerHTML.slice(0, 120))"""

# What is shown and runs out of the card around it, but for what scrolls there.
OUTSIDE = """[...document.querySelectorAll('main .card *:not(svg *)')].filter((each) =>
  !each.closest('.wide, .unseen') && each.getClientRects().length &&
  each.getBoundingClientRect().right > each.closest('.card').getBoundingClientRect().right + 0.5)
  .map((each) => each.outerHTML.slice(0, 90))"""

# Width, and whether dark.
LOOKS = in_turns((1280, 800, 400, 320), (False, True))


def in_order(visitor: Browser, address: str, paths: Iterable[str], *, cards: bool = False) -> None:
    """Each page, on every screen and in either colour scheme, can be read and keeps to itself.

    It fits the screen, its text stands out (WCAG 2.2, 1.4.3), its controls and tables have names, controls are large
    enough and within a keyboard's reach, tables can be saved, no id is there twice, it complains of nothing but an
    answer with 422, which browsers note, and it fetches nothing from anywhere else.

    The gate loads a page once, and then changes the screen; `make test-deep` loads it for each, in both colour schemes.

    Args:
        cards: Also, that nothing runs out of the card around it.
    """
    for looks in [(look,) for look in LOOKS] if DEEP else [LOOKS]:
        page = visitor.page(width=looks[0][0], dark=looks[0][1])  # now, as only the newest page is drawn
        for path in paths:
            page.go(f"{address}{path}")
            for width, dark in looks:
                page.show(width=width, dark=dark)
                page.do("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")  # is drawn
                assert page.do("document.documentElement.scrollWidth") <= width, (path, width, dark)
                assert page.do(TOO_FAINT) == [], (path, width, dark)
                assert not cards or page.do(OUTSIDE) == [], (path, width, dark)
            for wrong in (NAMELESS, UNSAVED, SMALL, UNREACHED):
                found = page.do(wrong)
                assert found == [], (path, found)
            assert page.do("document.querySelectorAll('h1').length") == 1, path
            ids = page.do("[...document.querySelectorAll('[id]')].map((each) => each.id)")
            assert len(set(ids)) == len(ids), path
        assert [line for line in page.complaints if "422" not in line] == []
        assert page.requests
        assert [url for url in page.requests if not url.startswith((f"{address}/", "data:"))] == []
