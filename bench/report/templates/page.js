// Sorting, filtering, copying, tooltips and the theme. The page is whole without this file.
"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);

  // ---- rows: each is a line and the fold below it, which move and hide together
  const bodies = all("table.board > tbody").map((body) => ({
    body,
    rows: all("tr.row", body).map((line, order) => ({
      line, order, more: line.nextElementSibling,
      text: [line.cells[0].textContent, line.cells[1].textContent, body.dataset.student].join(" ").toLowerCase(),
    })),
  }));

  // ---- sorting: within each group, because rows of different sizes are not compared
  const collator = new Intl.Collator("en", { numeric: true });
  const key = ({ line }, column) => {
    const { dataset, textContent } = line.cells[column];
    return "v" in dataset ? (dataset.v === "" ? null : Number(dataset.v)) : textContent.trim();
  };
  const compare = (one, other, sign) => {
    if (one === null || other === null) return (one === null) - (other === null);  // not measured: always last
    return sign * (typeof one === "number" ? one - other : collator.compare(one, other));
  };
  const sort = (table, column, direction) => {
    const sign = direction === "descending" ? -1 : 1;
    for (const { body, rows } of bodies.filter((one) => one.body.parentNode === table)) {
      const sorted = rows.map((row) => [direction ? key(row, column) : 0, row]);
      sorted.sort(([a, one], [b, other]) => compare(a, b, sign) || one.order - other.order);
      body.append(...sorted.flatMap(([, { line, more }]) => [line, more]));
    }
  };
  for (const head of all("table.board > thead th[data-first]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const first = head.dataset.first;
      const second = first === "ascending" ? "descending" : "ascending";
      const next = { [first]: second, [second]: null }[head.getAttribute("aria-sort")];
      const direction = next === undefined ? first : next;  // the third click: as the page came
      for (const one of all("th[aria-sort]", head.parentNode)) one.removeAttribute("aria-sort");
      if (direction) head.setAttribute("aria-sort", direction);
      sort(head.closest("table"), head.cellIndex, direction);
    });
  }

  // ---- filtering
  const form = byId("filter");
  const count = bodies.reduce((sum, { rows }) => sum + rows.length, 0);
  const filter = () => {
    const { text, method, labels, ipc, student } = Object.fromEntries(new FormData(form));
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (wanted, value) => wanted === "" || wanted === value;
    let shown = 0;
    for (const { body, rows } of bodies) {
      const here = fits(ipc, body.dataset.ipc) && fits(student, body.dataset.student);
      let inside = 0;
      for (const { line, more, text: own } of rows) {
        const kept = here && fits(method, line.dataset.method) && fits(labels, line.dataset.labels)
          && words.every((word) => own.includes(word));
        line.hidden = more.hidden = !kept;
        inside += kept;
      }
      body.hidden = !inside;
      shown += inside;
    }
    for (const table of all("table.board")) table.hidden = [...table.tBodies].every((body) => body.hidden);
    byId("status").textContent = shown === count ? `${count} rows` : `${shown} of ${count} rows`;
    byId("none").hidden = shown > 0;
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));  // the fields are cleared after the event
  byId("all").addEventListener("click", () => form.reset());
  form.hidden = false;
  filter();  // a browser may have kept what was typed before

  // ---- copying
  const copyByHand = (text) => {  // no clipboard where the page is no secure context, or not allowed
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "said";
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  };
  for (const button of all("button.copy")) {
    button.addEventListener("click", async () => {
      const text = byId(button.dataset.from).textContent;
      let copied = true;
      try { await navigator.clipboard.writeText(text); } catch { copied = copyByHand(text); }
      button.firstChild.nodeValue = copied ? "Copied" : "Failed";
      button.focus();
      setTimeout(() => { button.firstChild.nodeValue = "Copy"; }, 1600);
    });
    button.hidden = false;
  }

  // ---- tooltips of figures
  const tip = byId("tip");
  for (const mark of all(".plot [data-tip]")) mark.setAttribute("aria-label", mark.dataset.tip);
  const hint = (event) => {
    const mark = event.target.closest("[data-tip]");
    tip.hidden = !mark;
    if (!mark) return;
    tip.textContent = mark.dataset.tip;
    tip.style.left = `${Math.max(8, Math.min(event.clientX + 12, document.documentElement.clientWidth - tip.offsetWidth - 8))}px`;
    const above = event.clientY - tip.offsetHeight - 12;
    tip.style.top = `${above < 8 ? event.clientY + 16 : above}px`;
  };
  for (const plot of all(".plot")) {
    for (const kind of ["pointermove", "pointerdown"]) plot.addEventListener(kind, hint);  // fingers have no hover
    plot.addEventListener("pointerleave", () => { tip.hidden = true; });
  }

  // ---- theme: the system's until somebody chooses
  const root = document.documentElement;
  const theme = byId("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const name = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  const kept = (act) => { try { return act(); } catch { return null; } };  // storage may be forbidden
  const before = kept(() => localStorage.getItem("distill-bench-theme"));
  if (before === "dark" || before === "light") root.dataset.theme = before;
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    kept(() => localStorage.setItem("distill-bench-theme", root.dataset.theme));
    name();
  });
  system.addEventListener("change", name);
  name();
  theme.hidden = false;
})();
