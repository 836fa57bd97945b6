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

// Says so where columns are out of sight.
function makeScrolling(box) {
  const hint = box.previousElementSibling.querySelector(".hidden-columns");
  const look = () => {
    const beyond = box.scrollLeft + box.clientWidth < box.scrollWidth - 2;
    box.classList.toggle("beyond", beyond);
    hint.hidden = !beyond;
  };
  box.addEventListener("scroll", look, { passive: true });
  new ResizeObserver(look).observe(box);
}

// Cells as CSV has them: numbers with all their digits, texts in quotes where they need them.
function csvOf(rows) {
  const cell = (text) => (/[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text);
  return rows.map((row) => row.map((value) => cell(String(value ?? ""))).join(",")).join("\n") + "\n";
}

function download(name, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type: "text/csv" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function rowsOf(table) {
  const value = (cell) => cell.dataset.value ?? cell.dataset.text ?? cell.textContent;
  return [...table.rows].map((row) => [...row.cells].map(value));
}

// A command goes to the clipboard; where there is none, it is selected.
function makeCopied(cell) {
  const command = cell.textContent;
  const button = Object.assign(document.createElement("button"), { type: "button", className: "copy", textContent: "copy" });
  cell.dataset.text = command;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(command);
      button.textContent = "copied";
      setTimeout(() => { button.textContent = "copy"; }, 1500);
    } catch {
      getSelection().selectAllChildren(cell.querySelector("code"));
    }
  });
  const code = Object.assign(document.createElement("code"), { textContent: command });
  cell.replaceChildren(button, code);
}

document.querySelectorAll("table").forEach(makeSortable);
document.querySelectorAll(".scroll").forEach(makeScrolling);
document.querySelectorAll("td.code").forEach(makeCopied);
document.querySelectorAll("button.csv").forEach((button) => button.addEventListener("click", () => {
  download(`${button.dataset.table}.csv`, csvOf(rowsOf(document.getElementById(button.dataset.table))));
}));
