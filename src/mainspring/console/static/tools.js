/* What is on every page: the palette of Ctrl+K, times in the local zone, tables as CSV and JSON. Pages do without it. */
(() => {
  "use strict";
  const make = (tag, properties = {}, ...inside) => {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...inside);
    return node;
  };

  // Times. The server writes UTC; here they are written again in the chosen zone.
  const ZONE = "mainspring.local-times";
  const stored = () => { try { return localStorage.getItem(ZONE) === "yes"; } catch { return false; } };
  function written(text, at) {
    const exact = text.match(/:\d\d:\d\d(\.\d+)?/), options = { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZoneName: "short" };
    if (exact) options.second = "2-digit";
    if (exact && exact[1]) options.fractionalSecondDigits = 3;
    return new Intl.DateTimeFormat("en-GB", options).format(at);
  }
  function zoned(root = document) {
    const local = stored();
    for (const time of root.querySelectorAll("time[datetime]")) {
      time.dataset.utc ??= time.textContent;
      if (time.dataset.utc.endsWith("UTC")) time.textContent = local ? written(time.dataset.utc, new Date(time.dateTime)) : time.dataset.utc;
    }
    const button = document.getElementById("zone");
    if (button) {
      button.textContent = local ? `times of ${Intl.DateTimeFormat().resolvedOptions().timeZone}, charts in UTC` : "all times are UTC";
      button.title = local ? "Show UTC" : "Show local times";
      button.setAttribute("aria-pressed", String(local));
    }
  }
  function turnZone() {
    try { localStorage.setItem(ZONE, stored() ? "no" : "yes"); } catch { return; }
    zoned();
  }

  // Tables. A cell with a time gives the exact instant, whatever is shown.
  const cell = (node) => {
    const time = node.querySelector("time[datetime]");
    if (time && node.textContent.trim() === time.textContent.trim()) return time.dateTime;
    const text = node.innerText.replace(/\s+/g, " ").trim();
    return text === "–" ? "" : text;
  };
  const rowsOf = (table) => [...table.rows].filter((row) => row.cells.length).map((row) => [...row.cells].map(cell));
  const quoted = (text) => {
    const safe = /^[=+\-@\t\r]/.test(text) && !/^[+-]?[\d.,\s]+(%|sd|[a-zµ]{1,3})?$/i.test(text) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const csv = (rows) => rows.map((row) => row.map(quoted).join(",")).join("\r\n") + "\r\n";
  const json = ([head, ...rows]) => JSON.stringify(rows.map((row) => Object.fromEntries(head.map((name, at) => [name || `column ${at + 1}`, row[at] ?? ""]))), null, 1);
  function save(name, kind, text) {
    const link = make("a", { href: URL.createObjectURL(new Blob([text], { type: kind })), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
  function offer(table) {
    if (table.dataset.offered || !table.caption || table.rows.length < 2) return;
    table.dataset.offered = "yes";
    const title = table.caption.textContent.trim(), name = title.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 60) || "table";
    const button = (text, act) => make("button", { type: "button", onclick: act, title: `${title}: the rows shown, as ${text}` }, text);
    const said = make("span", { className: "soft", role: "status" });
    const tools = make("p", { className: "table-tools" },
      button("CSV", () => save(`${name}.csv`, "text/csv", csv(rowsOf(table)))),
      button("JSON", () => save(`${name}.json`, "application/json", json(rowsOf(table)))),
      button("Copy", async () => { await navigator.clipboard.writeText(csv(rowsOf(table)).replaceAll("\r\n", "\n")); said.textContent = "copied"; }), said);
    const around = table.closest(".wide");
    if (around) around.append(tools); else table.after(tools);
  }

  // Commands and code: a button for each that copies it.
  function offerCopy(code) {
    if (code.dataset.offered || !navigator.clipboard) return;
    code.dataset.offered = "yes";
    const text = [code.dataset.before, code.textContent.trim()].filter(Boolean).join("\n\n"), said = make("span", { className: "soft", role: "status" });
    code.after(" ", make("button", { type: "button", className: "copying", title: `Copy: ${text}`, onclick: async () => { await navigator.clipboard.writeText(text); said.textContent = " copied"; } }, "Copy"), said);
  }

  // The palette.
  const pages = () => [...document.querySelectorAll("nav.sections a")].map((link) => ({ kind: "page", name: link.textContent.trim(), address: link.getAttribute("href"), note: "" }));
  const commands = [{ kind: "command", name: "Switch between local times and UTC", note: "", act: turnZone }];
  let palette = null;
  function built() {
    const input = make("input", { type: "text", id: "palette-words", autocomplete: "off", spellcheck: false, placeholder: "A model, version, feature, run, prediction…" });
    const list = make("ul", { id: "palette-hits" }), said = make("p", { className: "unseen", role: "status" });
    for (const [name, value] of Object.entries({ role: "combobox", "aria-expanded": "true", "aria-controls": "palette-hits", "aria-label": "Find" })) input.setAttribute(name, value);
    list.setAttribute("role", "listbox");
    list.setAttribute("aria-label", "Results");
    const dialog = make("dialog", { className: "palette" }, input, list, said);
    dialog.setAttribute("aria-label", "Find anything");
    document.body.append(dialog);
    let hits = [], at = 0, turn = 0;
    const choose = (place) => {
      at = Math.max(0, Math.min(hits.length - 1, place));
      [...list.children].forEach((item, each) => item.setAttribute("aria-selected", String(each === at)));
      list.children[at]?.scrollIntoView({ block: "nearest" });
      if (hits.length) input.setAttribute("aria-activedescendant", `hit-${at}`); else input.removeAttribute("aria-activedescendant");
    };
    const go = (hit) => {
      dialog.close();
      if (hit.act) hit.act(); else location.assign(hit.address);
    };
    const show = (found) => {
      hits = found;
      list.replaceChildren(...found.map((hit, place) => {
        const item = make("li", { id: `hit-${place}`, onclick: () => go(hit) }, make("span", { className: "kind" }, hit.kind), make("b", {}, hit.name), make("span", { className: "soft" }, hit.note || ""));
        item.setAttribute("role", "option");
        return item;
      }));
      said.textContent = `${found.length} results`;
      choose(0);
    };
    const local = (words) => [...pages(), ...commands].filter((each) => words.every((word) => each.name.toLowerCase().includes(word)));
    const look = async () => {
      const mine = ++turn, words = input.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
      if (!words.length) { show(local([])); return; }
      await new Promise((done) => setTimeout(done, 120));
      if (mine !== turn) return;
      const answer = await fetch(`/api/find?q=${encodeURIComponent(input.value.trim())}`, { headers: { accept: "application/json" } });
      const found = answer.ok ? (await answer.json()).found : [];
      if (mine === turn) show([...local(words), ...found]);
    };
    input.oninput = () => { look().catch(() => {}); };
    input.onkeydown = (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (step) { event.preventDefault(); choose(at + step); }
      if (event.key === "Enter") { event.preventDefault(); if (hits[at]) go(hits[at]); else location.assign(`/find?q=${encodeURIComponent(input.value)}`); }
    };
    dialog.onclick = (event) => { if (event.target === dialog) dialog.close(); };
    return { dialog, open: (words) => { input.value = words; dialog.showModal(); input.focus(); look().catch(() => {}); } };
  }
  function open(words = "") {
    palette ??= built();
    if (!palette.dialog.open) palette.open(words);
  }
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, select, textarea");
    if ((event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey)) || (event.key === "/" && !typing && !event.ctrlKey)) {
      event.preventDefault();
      open();
    }
  });

  const foot = document.getElementById("zone-place");
  if (foot) foot.replaceChildren(make("button", { type: "button", id: "zone", onclick: turnZone }));
  const arranged = () => { document.querySelectorAll("main table").forEach(offer); document.querySelectorAll("code.copy").forEach(offerCopy); };
  zoned();
  arranged();
  // Parts of a live page are replaced as it goes on.
  new MutationObserver((changes) => {
    if (changes.some((change) => [...change.addedNodes].some((node) => node.nodeType === 1 && (node.matches("[data-live], table") || node.querySelector("time, table"))))) { zoned(); arranged(); }
  }).observe(document.getElementById("content"), { childList: true, subtree: true });
})();
