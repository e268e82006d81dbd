"use strict";
// draws the charts, and sorts the tables of layers by the heading that is pressed
for (const [name, spec] of Object.entries(JSON.parse(document.getElementById("gradnoise-charts").textContent))) {
  vegaEmbed(document.getElementById(name), spec, { renderer: "svg", actions: false });
}
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.querySelectorAll("thead th")];
  headings.forEach((heading, column) => {
    heading.querySelector("button")?.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") !== "descending" && column > 0
        || heading.getAttribute("aria-sort") === "ascending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => Number(row.cells[column].dataset.value);
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort((a, b) => (down ? -1 : 1) * (value(a) - value(b))));
    });
  });
}
