"use strict";
// Extras: the page says everything without them. Columns of plain tables sort at a click, and the
// list of evaluations can be narrowed by words.
function number(text) {
  const found = text.replace(/\u2212/g, "-").replace(/,/g, "").match(/^\s*[<+]?\s*(-?\d+(\.\d+)?)/);
  return found ? parseFloat(found[1]) : null;
}
function order(column, falling) {
  return (one, other) => {
    const [a, b] = [one, other].map((row) => row.cells[column].textContent.trim());
    const [x, y] = [number(a), number(b)];
    const both = x !== null && y !== null;
    const ahead = both ? x - y : a.localeCompare(b, "en", {numeric: true});
    return falling ? -ahead : ahead;
  };
}
for (const table of document.querySelectorAll("table")) {
  const [body] = table.tBodies;
  if (table.tBodies.length !== 1 || body.rows.length < 3 || table.querySelector("[rowspan]")) continue;
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((one) => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const last = [...body.rows].filter((row) => row.classList.contains("floor") || row.classList.contains("sum"));
      const rest = [...body.rows].filter((row) => !last.includes(row));
      body.append(...rest.sort(order(column, falling)), ...last);
      for (const row of body.rows) row.classList.remove("block");
    });
  });
}
const runs = document.querySelector("table.keys");
if (runs) {
  const label = document.createElement("label");
  const field = document.createElement("input");
  field.type = "search";
  label.append("Only evaluations with ", field);
  runs.parentNode.before(label);
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/);
    for (const row of runs.tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
}
// A link into a folded part opens it.
function unfold() {
  const place = location.hash && document.getElementById(location.hash.slice(1));
  if (!place) return;
  for (let at = place; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  place.scrollIntoView();
}
addEventListener("hashchange", unfold);
unfold();
