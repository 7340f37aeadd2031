// Sorting, filtering, copying, tooltips and the theme. The page is whole without this file.
"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);
  const bodies = all("table.board > tbody").map((body) => ({ body, rows: all("tr.row", body) }));

  // ---- sorting: within each group, because rows of different sizes are not compared; folds go with their rows
  const collator = new Intl.Collator("en", { numeric: true });
  const key = (row, column) => row.cells[column].dataset.v ?? row.cells[column].textContent.trim();
  const compare = (one, other, sign) => (one === "") - (other === "")  // not measured: always last
    || sign * (one - other || collator.compare(one, other));
  for (const head of all("table.board > thead th[data-first]")) {
    head.innerHTML = `<button type="button">${head.innerHTML}</button>`;
    head.firstChild.addEventListener("click", () => {
      const column = head.cellIndex;
      const { first } = head.dataset;
      const turns = [null, first, first === "ascending" ? "descending" : "ascending"];  // null: as the page came
      const direction = turns[(turns.indexOf(head.getAttribute("aria-sort")) + 1) % turns.length];
      for (const one of head.parentNode.cells) one.removeAttribute("aria-sort");
      if (direction) head.setAttribute("aria-sort", direction);
      const sign = direction === "descending" ? -1 : 1;
      for (const { body, rows } of bodies.filter((one) => one.body.parentNode === head.closest("table"))) {
        const sorted = [...rows];
        if (direction) sorted.sort((one, other) => compare(key(one, column), key(other, column), sign));
        body.append(...sorted.flatMap((row) => [row, row.nextElementSibling]));
      }
    });
  }

  // ---- filtering
  const form = byId("filter");
  const filter = () => {
    const { text, ...wanted } = Object.fromEntries(new FormData(form));
    const words = text.toLowerCase().split(/\s+/);
    for (const { body, rows } of bodies) {
      for (const row of rows) {
        const facts = { ...row.dataset, ...body.dataset };
        const own = `${row.cells[0].textContent} ${row.cells[1].textContent} ${facts.student}`.toLowerCase();
        const kept = Object.entries(wanted).every(([name, value]) => value === "" || value === facts[name])
          && words.every((word) => own.includes(word));
        row.hidden = row.nextElementSibling.hidden = !kept;
      }
      body.hidden = rows.every((row) => row.hidden);
    }
    for (const table of all("table.board")) table.hidden = [...table.tBodies].every((body) => body.hidden);
    const rows = all("tr.row");
    const shown = rows.filter((row) => !row.hidden).length;
    byId("status").textContent = `${shown === rows.length ? "" : `${shown} of `}${rows.length} rows`;
    byId("none").hidden = shown > 0;
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));  // the fields are cleared after the event
  byId("all").addEventListener("click", () => form.reset());
  filter();  // a browser may have kept what was typed before

  // ---- copying
  const copyByHand = (text) => {  // no clipboard where the page is no secure context, or not allowed
    const area = Object.assign(document.createElement("textarea"), { value: text, className: "said" });
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  };
  for (const button of all("button.copy")) {
    button.addEventListener("click", async () => {
      const text = button.closest("tr").nextElementSibling.querySelector("pre").textContent;
      let copied = true;
      try { await navigator.clipboard.writeText(text); } catch { copied = copyByHand(text); }
      button.firstChild.nodeValue = copied ? "Copied" : "Failed";
      button.focus();
      setTimeout(() => { button.firstChild.nodeValue = "Copy"; }, 1600);
    });
  }

  // ---- tooltips of figures
  const tip = byId("tip");
  for (const mark of all(".plot [data-tip]")) mark.setAttribute("aria-label", mark.dataset.tip);
  const hint = ({ target, clientX, clientY }) => {
    const mark = target.closest?.(".plot [data-tip]");
    tip.hidden = !mark;
    if (!mark) return;
    tip.textContent = mark.dataset.tip;
    const above = clientY - tip.offsetHeight - 12;
    tip.style.top = `${above < 8 ? clientY + 16 : above}px`;
    tip.style.left = `${Math.max(8, Math.min(clientX + 12, document.body.clientWidth - tip.offsetWidth - 8))}px`;
  };
  for (const kind of ["pointermove", "pointerdown"]) document.addEventListener(kind, hint);  // fingers have no hover

  // ---- theme: the system's until somebody chooses
  const { dataset } = document.documentElement;
  const theme = byId("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const kept = (act) => { try { return act(); } catch { return null; } };  // storage may be forbidden
  const show = () => {
    theme.textContent = (dataset.theme ?? (system.matches ? "dark" : "light")) === "dark" ? "Light" : "Dark";
  };
  const before = kept(() => localStorage.getItem("distill-bench-theme"));
  if (["dark", "light"].includes(before)) dataset.theme = before;
  theme.addEventListener("click", () => {
    dataset.theme = theme.textContent.toLowerCase();
    kept(() => localStorage.setItem("distill-bench-theme", dataset.theme));
    show();
  });
  system.addEventListener("change", show);
  show();
  for (const control of [form, theme, ...all("button.copy")]) control.hidden = false;
})();
