"use strict";
// Tables: a button in each heading sorts by its column; again, the other way round. Undefined values stay at the end.
function key(row, column) {
  const cell = row.cells[column], text = cell.dataset.value ?? cell.textContent.trim();
  const number = Number.parseFloat(text.replace("+", ""));
  return { text, number: /^[-+]?[0-9]/.test(text) && Number.isFinite(number) ? number : null, empty: text === "–" || text === "" };
}

function compare(a, b) {
  if (a.number !== null && b.number !== null) return a.number - b.number;
  return a.text.localeCompare(b.text, "en", { numeric: true });
}

function sort(button) {
  const heading = button.closest("th"), body = heading.closest("table").tBodies[0];
  const column = heading.cellIndex, isUp = heading.getAttribute("aria-sort") !== "ascending";
  const rows = [...body.rows].map((row) => [key(row, column), row]);
  rows.sort(([a], [b]) => (a.empty - b.empty) || (isUp ? compare(a, b) : compare(b, a)));
  for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", isUp ? "ascending" : "descending");
  body.append(...rows.map(([, row]) => row));
}

for (const button of document.querySelectorAll(".sort")) button.addEventListener("click", () => sort(button));

// Strip plots: the case under the pointer or in focus is named below; arrow keys move along a row.
for (const plot of document.querySelectorAll(".strip")) {
  const told = plot.querySelector(".told");
  for (const event of ["mouseover", "focusin"]) {
    plot.addEventListener(event, ({ target }) => {
      const point = target.closest("a.case");
      if (point) told.textContent = point.getAttribute("aria-label");
    });
  }
  plot.addEventListener("keydown", (event) => {
    const point = event.target.closest("a.case"), step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!point || !step) return;
    event.preventDefault();
    const points = [...point.closest("g").querySelectorAll("a.case")];
    const next = points[points.indexOf(point) + step];
    if (!next) return;
    point.setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  });
  plot.addEventListener("click", (event) => {
    const point = event.target.closest("a.case");
    const row = point && document.getElementById(point.getAttribute("href").slice(1));
    if (!row) return;
    event.preventDefault();
    row.focus({ preventScroll: true });
    row.scrollIntoView({ block: "nearest" });
  });
}

for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", async () => {
    const element = document.getElementById(button.dataset.copies);
    try {
      await navigator.clipboard.writeText(element.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(element); // a page opened as a file may not write to the clipboard
      button.textContent = "Selected: press Ctrl+C";
    }
  });
}
