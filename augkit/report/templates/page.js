"use strict";
// What every page does: colours, charts in them, tables that sort and copy. Pages add to it in their block `script`.
const page = (() => {
  const root = document.documentElement, system = matchMedia("(prefers-color-scheme: dark)");
  const themes = ["system", "light", "dark"], button = document.getElementById("theme");
  const say = (words) => { document.getElementById("said").textContent = words; };
  let theme = "system";
  try { theme = localStorage.getItem("augkit-theme") || theme; } catch { /* a page from disk may have no storage */ }

  const color = (name) => `var(${name})`; // not its value: what is printed is light, and there is no time to draw then
  function draw() {
    const ink = color("--ink"), soft = color("--soft"), line = color("--line");
    const words = { labelColor: soft, titleColor: ink, labelFontSize: 11, titleFontSize: 12, titleFontWeight: "normal" };
    const config = {
      background: "transparent", view: { stroke: line }, title: { color: ink, subtitleColor: soft, fontSize: 13 },
      axis: { ...words, gridColor: line, domainColor: line, tickColor: line }, legend: words,
      header: { ...words, labelColor: ink }, text: { color: ink }, rule: { color: soft }, range: { heatmap: { scheme: "viridis" } },
    };
    for (const figure of document.querySelectorAll("figure.chart")) {
      const place = figure.querySelector(".vega"), spec = JSON.parse(figure.querySelector("script").textContent);
      const { config: own = {}, ...drawn } = spec, label = place.getAttribute("aria-label");
      vegaEmbed(place, { ...drawn, description: label }, {
        config: { ...own, ...config }, renderer: "svg", actions: false, tooltip: { theme: root.dataset.theme },
      }).then(() => { figure.dataset.drawn = root.dataset.theme; }).catch((error) => console.error(error));
    }
  }
  function paint() {
    root.dataset.theme = theme === "system" ? (system.matches ? "dark" : "light") : theme;
    button.textContent = `Colours: ${theme}`;
    draw();
  }
  button.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    try { localStorage.setItem("augkit-theme", theme); } catch { /* it lasts as long as the page then */ }
    paint();
    say(`Colours: ${theme}`);
  });
  system.addEventListener("change", paint);

  const value = (cell) => cell?.dataset.value ?? cell?.textContent.trim() ?? "";
  const number = (text) => (/^[+\-−]?[\d.]/.test(text) ? parseFloat(text.replace("−", "-").replace(/,(?=\d{3})/g, "")) : NaN);
  function sort(table, heading, column) {
    const up = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1, body = table.tBodies[0];
    const rows = [...body.rows].map((row, place) => ({ row, place, text: value(row.cells[column]) }));
    const known = rows.map((one) => one.text).filter((text) => text && text !== "–");
    const numbers = known.filter((text) => !isNaN(number(text))).length; // "failed" stays last in a column of numbers
    const numeric = numbers > 0 && (numbers === known.length || heading.classList.contains("n"));
    rows.sort((a, b) => {
      const order = numeric ? number(a.text) - number(b.text) : a.text.localeCompare(b.text, undefined, { numeric: true });
      return numeric && isNaN(order) ? isNaN(number(a.text)) - isNaN(number(b.text)) : up * order || a.place - b.place;
    });
    body.append(...rows.map((one) => one.row));
    for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", up > 0 ? "ascending" : "descending");
    say(`Sorted by ${heading.textContent.trim()}, ${up > 0 ? "ascending" : "descending"}`);
  }
  async function copy(table) {
    const text = [...table.rows].map((row) => [...row.cells].map((cell) => cell.innerText.trim().replace(/\s+/g, " ")).join("\t")).join("\n");
    try { await navigator.clipboard.writeText(text); } catch {
      const area = document.body.appendChild(document.createElement("textarea"));
      area.value = text; area.select(); document.execCommand("copy"); area.remove();
    }
    say("Copied, with tabs between the columns");
  }
  for (const table of document.querySelectorAll("table.sortable")) {
    for (const [column, heading] of [...table.tHead.rows[0].cells].entries()) {
      const sorter = document.createElement("button");
      sorter.type = "button"; sorter.append(...heading.childNodes); heading.append(sorter);
      sorter.addEventListener("click", () => sort(table, heading, column));
    }
  }
  for (const bar of document.querySelectorAll(".table > .bar")) {
    const copier = document.createElement("button");
    copier.type = "button"; copier.className = "plain"; copier.textContent = "Copy table";
    copier.addEventListener("click", () => copy(bar.parentElement.querySelector("table")));
    bar.append(copier);
  }
  paint();
  return { say, paint };
})();
