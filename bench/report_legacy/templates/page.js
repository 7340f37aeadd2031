// Sorting, filtering, copying, tooltips and the theme. The page is whole without this file.
"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const reveal = (node) => { node.hidden = false; };

  // ---- rows: each is a line and the fold-out below it, which move and hide together

  const bodies = all("table.board > tbody").map((body) => ({
    body,
    rows: all("tr.row", body).map((line, order) => ({
      line,
      more: line.nextElementSibling,
      order,
      text: [line.cells[0].textContent, line.cells[1].textContent, body.dataset.student].join(" ").toLowerCase(),
    })),
  }));

  // ---- sorting: within each group, because rows of different sizes are not compared

  const collator = new Intl.Collator("en", { numeric: true });

  const key = (row, column) => {
    const cell = row.line.cells[column];
    return "v" in cell.dataset ? (cell.dataset.v === "" ? null : Number(cell.dataset.v)) : cell.textContent.trim();
  };

  const compare = (one, other, sign) => {
    if (one === null || other === null) return (one === null) - (other === null);  // not measured: always last
    return sign * (typeof one === "number" ? one - other : collator.compare(one, other));
  };

  const sort = (table, column, direction) => {
    const sign = direction === "descending" ? -1 : 1;
    for (const { body, rows } of bodies) {
      if (body.parentNode !== table) continue;
      const sorted = rows.map((row) => [direction ? key(row, column) : 0, row]);
      sorted.sort(([a, one], [b, other]) => compare(a, b, sign) || one.order - other.order);
      body.append(...sorted.flatMap(([, { line, more }]) => [line, more]));
    }
  };

  for (const table of all("table.board")) {
    const heads = all("thead th[data-first]", table);
    for (const head of heads) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const first = head.dataset.first;
        const second = first === "ascending" ? "descending" : "ascending";
        const next = { [first]: second, [second]: null }[head.getAttribute("aria-sort")];
        const direction = next === undefined ? first : next;  // the third click: as the page came
        for (const one of heads) one.removeAttribute("aria-sort");
        if (direction) head.setAttribute("aria-sort", direction);
        sort(table, head.cellIndex, direction);
      });
    }
  }

  // ---- filtering

  const form = document.getElementById("filter");
  const status = document.getElementById("status");
  const none = document.getElementById("none");
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
    status.textContent = shown === count ? `${count} rows` : `${shown} of ${count} rows`;
    none.hidden = shown > 0;
  };

  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));  // the fields are cleared after the event
  document.getElementById("all").addEventListener("click", () => form.reset());
  reveal(form);
  filter();  // a browser may have kept what was typed before

  // ---- copying

  const copyByHand = (text) => {
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "said";
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  };

  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {  // no clipboard where the page is no secure context, or not allowed
      return copyByHand(text);
    }
  };

  for (const button of all("button.copy")) {
    const word = button.firstChild;
    button.addEventListener("click", async () => {
      const copied = await copy(document.getElementById(button.dataset.from).textContent);
      word.nodeValue = copied ? "Copied" : "Failed";
      button.focus();
      setTimeout(() => { word.nodeValue = "Copy"; }, 1600);
    });
    reveal(button);
  }

  // ---- tooltips of figures: ours come at once; screen readers get the text of the title as a label

  const tip = document.getElementById("tip");

  for (const title of all(".plot svg title")) {
    const mark = title.parentNode;
    if (mark.tagName === "svg") continue;
    mark.dataset.tip = title.textContent;
    mark.setAttribute("role", "img");
    mark.setAttribute("aria-label", title.textContent);
    title.remove();
  }

  const hint = (event) => {
    const mark = event.target.closest("[data-tip]");
    tip.hidden = !mark;
    if (!mark) return;
    tip.textContent = mark.dataset.tip;
    const right = document.documentElement.clientWidth - tip.offsetWidth - 8;
    tip.style.left = `${Math.max(8, Math.min(event.clientX + 12, right))}px`;
    const above = event.clientY - tip.offsetHeight - 12;
    tip.style.top = `${above < 8 ? event.clientY + 16 : above}px`;
  };

  for (const plot of all(".plot")) {
    plot.addEventListener("pointermove", hint);
    plot.addEventListener("pointerdown", hint);  // fingers have no hover
    plot.addEventListener("pointerleave", () => { tip.hidden = true; });
  }

  // ---- theme: the system's until somebody chooses

  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const theme = document.getElementById("theme");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
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
  reveal(theme);

  // ---- paper: figures are shown unfolded

  addEventListener("beforeprint", () => all("details.plot").forEach((plot) => { plot.open = true; }));
})();
