"use strict";

// A click sorts upwards, another one downwards; what has no value stays below.
function makeSortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, i) => head.addEventListener("click", () => {
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heads.forEach((h) => h.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    const numeric = head.classList.contains("num");
    const value = (row) => (numeric ? parseFloat(row.cells[i].dataset.value) : row.cells[i].textContent);
    const missing = (v) => (numeric ? Number.isNaN(v) : v === "-" || v === "");
    const rows = [...table.tBodies[0].rows].map((row) => [value(row), row]);
    const order = (a, b) => sign * (numeric ? a - b : a.localeCompare(b, "en", { numeric: true }));
    rows.sort(([a], [b]) => missing(a) - missing(b) || (missing(a) ? 0 : order(a, b)));
    table.tBodies[0].append(...rows.map(([, row]) => row));
  }));
}

document.querySelectorAll("table").forEach(makeSortable);
