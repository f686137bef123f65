/* Draws the charts. Without it the same charts stand in the page as SVG, with a table behind each. */
(() => {
  "use strict";
  const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
  const clock = (more) => new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", timeZone: "UTC", ...more });
  const minute = clock({}), second = clock({ second: "2-digit" }), millisecond = clock({ second: "2-digit", fractionalSecondDigits: 3 });
  const count = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
  const figure = (digits) => new Intl.NumberFormat("en-US", { maximumSignificantDigits: digits });
  const DAY = 86400;
  const DASHES = [[], [7, 4], [2, 4], [9, 3, 2, 3]];

  // A value as text, with so many digits more than it has by itself.
  const units = {
    count: (v) => count.format(v),
    ms: (v, more = 0) => (v < 1 && v > 0 ? `${+(v * 1000).toFixed(more)} µs` : v < 1000 ? `${+v.toPrecision(3 + more)} ms` : `${+(v / 1000).toPrecision(3 + more)} s`),
    score: (v, more = 0) => v.toFixed(3 + more),
    share: (v, more = 0) => `${+(v * 100).toFixed((v < 0.1 ? 1 : 0) + more)}%`,
    number: (v, more = 0) => (v !== 0 && (Math.abs(v) < 1e-4 || Math.abs(v) >= 1e12) ? v.toExponential(1 + more) : figure(4 + more).format(v)),
  };

  // The first way of writing the values in which no two are alike, or the last.
  const apart = (values, ways) => {
    const written = ways.map((way) => () => values.map(way));
    const told = written.find((texts) => new Set(texts()).size === values.length);
    return (told || written[written.length - 1])();
  };
  const MORE = [0, 1, 2, 3, 4, 5, 6, 7, 8];
  const numbered = (unit, values) => apart(values, MORE.map((more) => (v) => units[unit](v, more)));

  // How wide the widest label is at most, in pixels.
  const wide = (texts) => 7 * Math.max(0, ...texts.flatMap((text) => text.split("\n")).map((line) => line.length));

  // Labels of instants. The day, or the year, stands in a second line, where it is not that of the label before.
  function dated(chart, instants) {
    const span = chart.x[chart.x.length - 1] - chart.x[0];
    const above = (upper, lower) => (at) => `${upper.format(at)}\n${lower(at)}`;
    const year = (at) => String(new Date(at).getUTCFullYear()), date = (at) => day.format(at);
    const ways = chart.width < DAY && span < 2 * DAY
      ? [(at) => minute.format(at), (at) => second.format(at), above(minute, date), above(second, date), above(millisecond, date)]
      : [date, above(day, year), above(minute, date), above(second, date)];
    let before = "";
    return apart(instants, ways).map((text) => {
      const [upper, lower] = text.split("\n"), same = lower === before;
      before = lower;
      return lower === undefined || same ? upper : text;
    });
  }

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  // Bars that stand on each other are drawn as totals, the tallest first.
  function columns(chart) {
    const values = chart.lines.map((line) => line.y);
    if (!chart.stacked) return { order: chart.lines.map((_, i) => i), drawn: values };
    const totals = values.map((_, i) => values[i].map((v, at) => (v === null ? null : values.slice(0, i + 1).reduce((sum, each) => sum + each[at], 0))));
    const order = chart.lines.map((_, i) => i).reverse();
    return { order, drawn: order.map((i) => totals[i]) };
  }

  // uPlot leaves no room beside the first and last bar by itself.
  function range(chart) {
    const half = chart.width / 2;
    return [chart.x[0] - half, chart.x[chart.x.length - 1] + half];
  }

  function marks(chart) {
    return (u) => {
      const { ctx } = u, { left: start, top, width, height } = u.bbox;
      const write = (text, x, y) => {  // readable where a line crosses it
        ctx.save();
        ctx.setLineDash([]);
        ctx.strokeStyle = colour("card");
        ctx.lineWidth = 4 * devicePixelRatio;
        ctx.strokeText(text, x, y);
        ctx.restore();
        ctx.fillText(text, x, y);
      };
      ctx.save();
      ctx.font = `${11 * devicePixelRatio}px ${getComputedStyle(document.body).fontFamily}`;
      if (chart.level) {
        const y = Math.round(u.valToPos(chart.level.y, "y", true));
        ctx.strokeStyle = ctx.fillStyle = colour("soft");
        ctx.setLineDash([2 * devicePixelRatio, 4 * devicePixelRatio]);
        ctx.beginPath();
        ctx.moveTo(start, y);
        ctx.lineTo(start + width, y);
        ctx.stroke();
        ctx.textAlign = "right";
        write(chart.level.text, start + width, y - 5 * devicePixelRatio);
      }
      ctx.strokeStyle = ctx.fillStyle = colour("brass");
      for (const mark of chart.marks) {
        const x = Math.round(u.valToPos(mark.x, "x", true));
        ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
        ctx.beginPath();
        ctx.moveTo(x, top);
        ctx.lineTo(x, top + height);
        ctx.stroke();
        const left = x + 5 * devicePixelRatio + ctx.measureText(mark.text).width > start + width;
        ctx.textAlign = left ? "right" : "left";
        write(mark.text, x + (left ? -5 : 5) * devicePixelRatio, top + 10 * devicePixelRatio);
      }
      ctx.restore();
    };
  }

  function tip(chart, place) {
    const box = document.createElement("div");
    box.className = "tip";
    box.hidden = true;
    const label = (at) => {
      if (chart.axis === "step") return chart.width > 1 ? `${chart.step}s ${count.format(chart.x[at])} – ${count.format(chart.x[at] + chart.width - 1)}` : `${chart.step} ${count.format(chart.x[at])}`;
      const from = new Date((chart.x[at] - chart.width / 2) * 1000), to = new Date((chart.x[at] + chart.width / 2) * 1000);
      const whole = chart.width % DAY === 0, exact = chart.width < 1 ? millisecond : chart.width < 60 ? second : minute;
      return whole ? `${day.format(from)} – ${day.format(to)}` : `${day.format(from)}, ${exact.format(from)} – ${exact.format(to)}`;
    };
    return {
      init: (u) => u.over.append(box),
      setCursor: (u) => {
        const at = u.cursor.idx;
        box.hidden = at === null || at === undefined;
        if (box.hidden) return;
        box.replaceChildren(label(at));
        for (const line of chart.kind === "bands" ? chart.lines.toReversed() : chart.lines) {
          const value = document.createElement("b");
          value.textContent = line.y[at] === null ? "–" : units[chart.unit](line.y[at]);
          box.append(document.createElement("br"), `${line.name} `, value);
        }
        const x = u.valToPos(chart.x[at], "x"), flip = x > place.clientWidth / 2;
        box.style.transform = `translate(${Math.round(flip ? x - box.offsetWidth - 12 : x + 12)}px, 4px)`;
      },
    };
  }

  // Dragging over a chart leads to the same page with that time. The rest of the choice stays.
  function narrow(u, path) {
    const { left, width } = u.select;
    if (width < 8) return;
    const to = new URLSearchParams(location.search), at = (x) => new Date(Math.round(u.posToVal(x, "x") * 1000)).toISOString();
    ["range", "endpoint"].forEach((name) => to.delete(name));
    to.set("since", at(left));
    to.set("until", at(left + width));
    location.assign(`${path}?${to}`);
  }

  // One label a window, under its middle, naming its start; every second, third... where there is no room.
  function under(chart, width, label) {
    const every = Math.max(1, Math.ceil((chart.x.length * Math.max(64, label + 14)) / width));
    return chart.x.filter((_, at) => (chart.x.length - 1 - at) % every === 0);
  }

  function draw(place, chart) {
    const steps = chart.axis === "step", begins = (at) => at.map((x) => (x - chart.width / 2) * 1000);
    const label = steps ? 0 : wide(dated(chart, begins(chart.x)));
    const { order, drawn } = columns(chart);
    const brush = steps ? undefined : place.closest("[data-brush]")?.dataset.brush;
    const bars = chart.kind === "bars", bands = chart.kind === "bands", middle = (chart.lines.length - 1) / 2;
    const axis = { stroke: colour("soft"), font: `12px ${getComputedStyle(document.body).fontFamily}`, ticks: { show: false } };
    const options = {
      width: place.clientWidth,
      height: place.clientHeight,
      padding: [10, steps ? 10 : Math.max(20, label / 2), 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: brush !== undefined, y: false, setScale: false, dist: 8 }, points: { show: !bars, size: 7 } },
      scales: {
        x: { time: !steps, range: range(chart) },
        y: { range: (_u, low, high) => {
          const most = chart.most !== null && high <= chart.most ? chart.most : Infinity;
          if (chart.zero) return [0, Math.min(most, high > 0 ? high * 1.1 : 1)];
          if (chart.level) [low, high] = [Math.min(low, chart.level.y), Math.max(high, chart.level.y)];
          const room = (high - low) * 0.25 || Math.abs(high) * 0.1 || 1;
          return [low - room, Math.min(most, high + room)];
        } },
      },
      axes: [
        steps ? { ...axis, grid: { show: false }, size: 26, values: (_u, at) => at.map((v) => (v % 1 ? "" : count.format(v))) }
        : { ...axis, grid: { show: false }, size: (_u, texts) => ((texts || []).some((text) => text.includes("\n")) ? 40 : 26), splits: (u) => under(chart, u.width, label), values: (_u, at) => dated(chart, begins(at)) },
        { ...axis, grid: { stroke: colour("line"), width: 1 }, size: (_u, texts) => Math.max(58, wide(texts || []) + 14), space: 36, values: (_u, at) => (chart.unit === "count" ? at.map((v) => (v % 1 ? "" : count.format(v))) : numbered(chart.unit, at)) },
      ],
      series: [
        {},
        ...order.map((i) => {
          const line = chart.lines[i], ink = colour(line.tone);
          if (bands && i !== middle) return { label: line.name, stroke: "transparent", width: 0, points: { show: false } };
          return bars
            ? { label: line.name, stroke: ink, fill: ink, width: 0, points: { show: false }, paths: uPlot.paths.bars({ size: [0.62, 60], radius: 0.12 }) }
            : { label: line.name, stroke: ink, width: 2, spanGaps: steps, dash: DASHES[line.dash], points: { show: chart.x.length < 60, size: 5, fill: ink } };
        }),
      ],
      bands: bands ? [...Array(middle).keys()].map((i) => ({ series: [chart.lines.length - i, i + 1], fill: colour(chart.lines[i].tone) })) : [],
      tzDate: (at) => uPlot.tzDate(new Date(at * 1000), "Etc/UTC"),
      plugins: [{ hooks: { ...tip(chart, place), draw: marks(chart), ...(brush === undefined ? {} : { setSelect: (u) => narrow(u, brush) }) } }],
    };
    return new uPlot(options, [chart.x, ...drawn], place);
  }

  function start(place) {
    const chart = JSON.parse(place.dataset.chart);
    place.classList.add("drawn");
    let plot = draw(place, chart);
    new ResizeObserver(() => plot.setSize({ width: place.clientWidth, height: place.clientHeight })).observe(place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      plot.destroy();
      plot = draw(place, chart);
    });
  }

  // As the server wrote it: drawing a chart or a local time changes a part, and that is no news.
  const written = new WeakMap();
  for (const part of document.querySelectorAll("[data-live]")) written.set(part, part.outerHTML);
  const drawn = (root) => root.querySelectorAll(".plot[data-chart]").forEach(start);
  drawn(document);

  // Parts of a page that go on: fetched again, and replaced where they have changed and nobody is at work in them.
  const EVERY_MS = 3000;
  const busy = (part) => part.contains(document.activeElement) || part.querySelector("details[open]") !== null;
  async function refresh() {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      const now = fresh.getElementById(part.id);
      if (!now || busy(part) || now.outerHTML === (written.get(part) ?? part.outerHTML)) continue;
      const next = document.importNode(now, true);
      written.set(next, next.outerHTML);
      part.replaceWith(next);
      drawn(next);
    }
  }
  // An event says that something changed. Without events, as behind some proxies, and for what has none, as the curves of
  // a run, the page is fetched every few seconds. A hidden tab and a paused page ask for nothing.
  let due = false, fetching = false, paused = false, polling = false, events = null;
  async function follow() {
    due = true;
    if (fetching || paused || document.hidden) return;
    fetching = true;
    while (due && !paused) {
      due = false;
      await refresh().catch(() => {});
      await new Promise((done) => setTimeout(done, 700));
    }
    fetching = false;
  }
  const often = () => document.querySelector('[data-live="often"]') !== null;
  function poll() {
    if (polling) return;
    polling = true;
    setInterval(follow, EVERY_MS);
  }
  function listen() {
    events?.close();
    events = null;
    if (paused || document.hidden) return;
    events = new EventSource("/events");
    events.addEventListener("change", follow);
    events.addEventListener("error", ({ target }) => { if (target.readyState === EventSource.CLOSED) poll(); });
  }
  function again() {
    listen();
    if (!paused && !document.hidden) follow();
  }
  if (document.querySelector("[data-live]")) {
    listen();
    if (often()) poll();
    document.addEventListener("visibilitychange", again);
    const button = document.createElement("button");
    const said = () => { button.textContent = paused ? "Updates are paused" : "Updates by itself"; button.setAttribute("aria-pressed", String(paused)); };
    Object.assign(button, { type: "button", id: "pause", title: "Pause the updates of this page, or go on", onclick: () => { paused = !paused; said(); again(); } });
    said();
    document.querySelector("footer.foot")?.append(" · ", button);
  }
})();
