// Puts the charts into their places, and the parts of the page that answer to the reader.

(function start() {
  for (const spec of DATA.charts) new (spec.kind === "plane" ? Plane : Chart)(document.getElementById(`chart-${spec.id}`), spec);
  groups();
  explore();
  examples();
  smoothing();
  themes();
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    requestAnimationFrame(() => Chart.all.forEach((chart) => chart.uplot && chart.build()));
  });
  document.documentElement.dataset.ready = "true";
})();

/** One switch for each run, for all charts. */
function groups() {
  const place = document.getElementById("groups");
  if (!place) return;
  DATA.groups.forEach((group, number) => {
    const seeds = group.seeds > 1 ? ` (${group.seeds} seeds)` : "";
    const button = element("button", { type: "button", "aria-pressed": "true", class: `c${group.place % 6}` },
      swatch(Math.floor(group.place / 6) % 3), element("span", {}, group.name + seeds));
    button.addEventListener("click", () => {
      const show = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(show));
      for (const chart of Chart.all) {
        if (show) chart.off.delete(number);
        else chart.off.add(number);
        chart.refresh();
      }
    });
    place.append(button);
  });
}

/** A chart of any metric. */
function explore() {
  const select = document.getElementById("metric");
  if (!select) return;
  const figure = document.getElementById("chart-explore");
  const names = [...new Set(DATA.groups.flatMap((group) => Object.keys(group.columns)))].sort();
  const kinds = new Map();
  for (const name of names.filter((name) => !name.startsWith("report/"))) {
    const kind = name.split("/")[0];
    if (!kinds.has(kind)) kinds.set(kind, element("optgroup", { label: kind }));
    kinds.get(kind).append(element("option", { value: name }, name));
  }
  if (!kinds.size) {
    figure.replaceChildren();
    select.disabled = true;
    return;
  }
  select.append(...kinds.values());
  if (names.includes("actor/entropy")) select.value = "actor/entropy";
  const spec = () => ({
    id: select.value.replaceAll(/[^\w@.-]+/g, "_"), title: select.value, unit: "", note: "", kind: "lines", x: "training step", scale: 1, wide: true,
    series: DATA.groups.flatMap((group, number) => (select.value in group.columns
      ? [{ label: group.name, group: number, key: select.value, colour: group.place % 6, dashes: Math.floor(group.place / 6) % 3 }] : [])),
  });
  const heading = figure.querySelector("h3");
  heading.textContent = select.value;
  const chart = new Chart(figure, spec());
  select.addEventListener("change", () => {
    heading.textContent = select.value;
    chart.show(spec());
  });
}

/** Means over some steps in place of single ones, in every chart. */
function smoothing() {
  const select = document.getElementById("smoothing");
  select.addEventListener("change", () => {
    Chart.smoothing = Number(select.value);
    for (const chart of Chart.all) {
      if (chart.uplot) chart.build();
      else chart.columns();
      chart.read();
    }
  });
}

/** Responses of a step, chosen by the reader. */
function examples() {
  const select = document.getElementById("example");
  if (!select) return;
  const several = DATA.groups.length > 1 || DATA.groups.some((group) => group.seeds > 1);
  DATA.examples.forEach((entry, number) => {
    select.append(element("option", { value: String(number) }, several ? `${entry.run}, step ${entry.step}` : `step ${entry.step}`));
  });
  const show = () => {
    document.getElementById("examples").replaceChildren(...DATA.examples[Number(select.value)].responses.map((response) =>
      element("div", { class: "example" }, element("p", {}, `score ${shown(response.score)}`),
        element("pre", { class: "prompt" }, response.input.trim()), element("pre", {}, response.output))));
  };
  select.addEventListener("change", show);
  show();
}

/** The theme: the system's, until the reader chooses; on paper always the light one. */
function themes() {
  const root = document.documentElement, button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const apply = () => {
    button.setAttribute("aria-pressed", String(dark()));
    COLOURS = palette();
    for (const chart of Chart.all) chart.uplot?.redraw(false);
  };
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    apply();
  });
  system.addEventListener("change", apply);
  let before;
  addEventListener("beforeprint", () => { before = root.dataset.theme; root.dataset.theme = "light"; apply(); Chart.all.forEach((chart) => chart.draw()); });
  addEventListener("afterprint", () => {
    if (before) root.dataset.theme = before;
    else delete root.dataset.theme;
    apply();
  });
  apply();
}
