// Sorting, filtering, copying and the theme. The page is whole without this file.
"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);
  const bodies = all(".board > tbody").map((body) => ({ body, rows: all("tr.row", body) }));

  // on narrow screens rows are cards, whose cells say their headings
  for (const row of all(".board tr.row, .prose tbody tr")) {
    for (const cell of row.cells) cell.dataset.h = row.closest("table").tHead.rows[0].cells[cell.cellIndex].textContent;
  }

  // ---- sorting: within each group, because rows of different sizes are not compared; folds go with their rows
  const collator = new Intl.Collator("en", { numeric: true });
  const key = (row, column) => row.cells[column].dataset.v;
  const compare = (one, other, sign) => (one === "") - (other === "")  // not measured: always last
    || sign * (one - other || collator.compare(one, other));
  for (const head of all(".board > thead th.sorts")) {
    head.innerHTML = `<button type="button">${head.innerHTML}</button>`;
    head.firstChild.addEventListener("click", () => {
      const column = head.cellIndex;
      const turns = [null, "ascending", "descending"];  // null: as the page came
      const direction = turns[(turns.indexOf(head.getAttribute("aria-sort")) + 1) % 3];
      for (const one of head.parentNode.cells) one.removeAttribute("aria-sort");
      if (direction) head.setAttribute("aria-sort", direction);
      const sign = direction === "descending" ? -1 : 1;
      for (const { body, rows } of bodies.filter((one) => one.body.parentNode === head.closest("table"))) {
        const sorted = direction ? rows.toSorted((a, b) => compare(key(a, column), key(b, column), sign)) : rows;
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
        const own = Object.values(row.dataset).join(" ").toLowerCase();
        const kept = Object.entries(wanted).every(([name, value]) => value === "" || value === row.dataset[name]);
        row.hidden = row.nextElementSibling.hidden = !(kept && words.every((word) => own.includes(word)));
      }
      body.hidden = rows.every((row) => row.hidden);
    }
    for (const table of all(".board")) table.hidden = [...table.tBodies].every((body) => body.hidden);
    const rows = bodies.flatMap((one) => one.rows);
    const shown = rows.filter((row) => !row.hidden).length;
    byId("status").textContent = `${shown === rows.length ? "" : `${shown} of `}${rows.length} rows`;
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));  // the fields are cleared after the event
  filter();  // a browser may have kept what was typed before

  // ---- copying; where it is not allowed, the command is shown and selected
  for (const button of all("button.copy")) {
    button.addEventListener("click", async () => {
      const fold = button.closest("tr").nextElementSibling;
      const text = fold.querySelector("pre");
      try {
        await navigator.clipboard.writeText(text.textContent);
        button.firstChild.nodeValue = "Copied";
      } catch {
        fold.querySelector("details").open = true;
        getSelection().selectAllChildren(text);
        button.firstChild.nodeValue = "Select";
      }
      setTimeout(() => { button.firstChild.nodeValue = "Copy"; }, 1600);
    });
  }

  // ---- theme: the system's until somebody chooses
  const root = document.documentElement.style;
  const theme = byId("theme");
  theme.addEventListener("click", () => {
    const dark = (root.colorScheme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "")) === "dark";
    root.colorScheme = dark ? "light" : "dark";
  });
  for (const control of [form, theme, ...all("button.copy")]) control.hidden = false;
})();
