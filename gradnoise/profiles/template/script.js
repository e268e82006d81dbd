"use strict";
// draws the charts, and sorts the tables of layers by the heading that is pressed
const specs = JSON.parse(document.getElementById("gradnoise-charts").textContent);
const drawn = Object.entries(specs).map(([name, spec]) => {
  const place = document.getElementById(name);
  const description = place.getAttribute("aria-label"); // which Vega would replace by its own
  return vegaEmbed(place, { ...spec, description }, { renderer: "svg", actions: false });
});
Promise.all(drawn).then(() => { document.body.dataset.drawn = drawn.length; });

for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.querySelectorAll("thead th")];
  headings.forEach((heading, column) => {
    heading.querySelector("button")?.addEventListener("click", () => {
      const before = heading.getAttribute("aria-sort") ?? (column ? "ascending" : "descending");
      const order = before === "ascending" ? "descending" : "ascending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const value = (row) => Number(row.cells[column].dataset.value);
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort((a, b) => sign * (value(a) - value(b))));
    });
  });
}
