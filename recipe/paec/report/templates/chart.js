// One chart: lines with bands or stacked areas by uPlot, names at their ends, a legend with the values under the
// cursor, arrow keys, and the numbers as a table or CSV.

const FONT = '12px "Source Sans 3", "Inter", system-ui, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif';
let COLOURS = palette();

class Chart {
  static all = [];
  static smoothing = 1; // values in the mean that is drawn
  static windows = new Map(); // x axis -> the part of it that the reader has chosen
  static near = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((one) => one.isIntersecting)) Chart.all.find((chart) => chart.plot === entry.target)?.draw();
  }, { rootMargin: "800px" });

  /** Show a part of an x axis in every chart that has it; null: all of it. */
  static zoom(x, part) {
    if (part) Chart.windows.set(x, part);
    else Chart.windows.delete(x);
    for (const chart of Chart.all.filter((one) => one.spec.x === x)) {
      chart.whole.hidden = !part;
      if (chart.uplot) chart.uplot.setScale("x", chart.domain());
    }
  }

  /** The part of the x axis that is shown: for training steps the same in every chart. */
  domain() {
    const xs = this.spec.x === "training step" ? STEPS : this.xs;
    const [min, max] = Chart.windows.get(this.spec.x) ?? [xs[0], xs[xs.length - 1]];
    return min === max ? { min: min - 1, max: max + 1 } : { min, max };
  }

  /** Draw the chart unless it is drawn. */
  draw() {
    Chart.near.unobserve(this.plot);
    if (!this.uplot) this.build();
  }

  constructor(figure, spec) {
    this.figure = figure;
    this.hidden = new Set();
    this.off = new Set();
    this.plot = element("div", {
      class: "plot", tabindex: "0", role: "group", "aria-roledescription": "line chart",
      "aria-keyshortcuts": "ArrowLeft ArrowRight Home End Escape",
    });
    this.legend = element("ul", { class: "legend" });
    this.readout = element("p", { class: "readout" });
    this.details = element("details", {}, element("summary", {}, "Table"));
    this.details.addEventListener("toggle", () => this.table());
    this.csv = element("button", { type: "button" }, "CSV");
    this.csv.addEventListener("click", () => this.save());
    this.whole = element("button", { type: "button", hidden: "" }, "All steps");
    this.whole.addEventListener("click", () => Chart.zoom(this.spec.x, null));
    figure.append(this.legend, this.plot, element("div", { class: "more" }, this.readout, this.whole, this.details, this.csv));
    this.plot.addEventListener("keydown", (event) => this.key(event));
    this.plot.addEventListener("blur", () => this.leave());
    this.show(spec);
    Chart.all.push(this);
  }

  /** Draw another chart in this place. */
  show(spec) {
    this.spec = spec;
    const lines = spec.series.map((entry) => lineOf(entry, spec.scale));
    this.lines = spec.kind === "stack" ? stacked(lines) : lines;
    const unit = spec.unit ? ` (${spec.unit})` : "";
    this.plot.setAttribute("aria-label", `${spec.title}${unit} over ${spec.x}: ${lines.map((l) => l.label).join(", ")}. Arrow keys read the values.`);
    this.columns();
    this.list();
    this.table();
    if (this.uplot) this.build();
    else Chart.near.observe(this.plot);
  }

  /** Draw again with values that have come since; the lines stay the same. */
  update(spec = this.spec) {
    if (spec.series.length !== this.lines.length || spec.series.some((entry, i) => entry.label !== this.lines[i].label)) {
      this.show(spec);
      return;
    }
    this.spec = spec;
    const lines = spec.series.map((entry) => lineOf(entry, spec.scale));
    this.lines = spec.kind === "stack" ? stacked(lines) : lines;
    this.columns();
    if (this.uplot) this.build();
    else this.read(null);
    this.table();
  }

  /** uPlot's columns: x, then for each line its values and, with a band, its bounds. */
  columns() {
    const xs = [...new Set(this.lines.flatMap((line) => line.x))].sort((a, b) => a - b);
    const at = new Map(xs.map((x, i) => [x, i]));
    const spread = (x, values) => {
      const column = new Array(xs.length).fill(undefined); // undefined: not recorded there, null: a gap
      x.forEach((place, i) => { column[at.get(place)] = values[i]; });
      return column;
    };
    this.xs = xs;
    const smooth = (line) => (this.isSmooth(line) ? smoothed(line.y, Chart.smoothing) : line.y);
    this.values = this.lines.map((line) => spread(line.x, smooth(line)));
    const drawn = [], bands = [], series = [];
    const stack = this.spec.kind === "stack";
    this.lines.forEach((line, number) => {
      const colour = () => COLOURS.lines[line.colour];
      const shown = !this.isHidden(number);
      const alone = line.x.length === 1;
      if (line.low && !line.points) {
        const from = series.length + 1;
        for (const bound of [line.high, line.low]) {
          drawn.push(spread(line.x, bound));
          series.push({ show: shown, stroke: () => "transparent", width: 0, points: { show: alone && stack }, line: number, bound: true });
        }
        bands.push({ series: [from, from + 1], fill: () => faded(colour(), stack ? FILLS[line.dashes] : 0.16) });
      }
      if (this.isSmooth(line)) {
        drawn.push(spread(line.x, line.y));
        series.push({ show: shown, stroke: () => faded(colour(), 0.25), width: 1, points: { show: false }, line: number });
      }
      drawn.push(stack ? spread(line.x, line.high) : this.values[number]);
      series.push({
        show: shown, stroke: stack ? () => COLOURS.paper : colour, width: stack ? 0.8 : line.points ? 0 : 1.8, dash: stack ? [] : DASHES[line.dashes],
        points: { show: !stack && (line.points || (line.x.length <= 40 && this.sparse(line))), size: 5, fill: colour, stroke: colour }, line: number,
      });
    });
    return { data: [xs, ...drawn], series, bands };
  }

  /** Whether a line has far fewer points than the chart has steps, so that they are shown. */
  sparse(line) {
    return line.x.length === 1 || this.xs.length > 2 * line.x.length || line.x.length <= 12;
  }

  /** Whether a line is drawn as a mean: one over training steps, with more values than a few windows. */
  isSmooth(line) {
    return Chart.smoothing > 1 && !line.points && this.spec.kind !== "stack" && this.spec.x === "training step" && line.x.length > 3 * Chart.smoothing;
  }

  isHidden(number) {
    return this.hidden.has(number) || this.off.has(this.lines[number].group);
  }

  build() {
    const place = this.place; // what the reader reads stays
    this.uplot?.destroy();
    const { data, series, bands } = this.columns();
    const width = Math.max(this.plot.clientWidth || this.figure.clientWidth, 220);
    const stack = this.spec.kind === "stack";
    this.names = this.namesAtEnds(width);
    const axis = { font: FONT, labelFont: FONT, stroke: () => COLOURS.soft, ticks: { show: false }, labelGap: 0 };
    this.uplot = new uPlot({
      width, height: this.spec.wide ? Math.min(360, Math.max(260, width * 0.42)) : this.spec.small ? 190 : 250,
      legend: { show: false },
      padding: [10, Math.max(this.names.room + 14, this.halfOfLastTick()), 0, 0],
      cursor: {
        y: false, sync: { key: this.spec.x }, drag: { x: true, y: false, setScale: false },
        move: (u, left, top) => (left < 0 ? [left, top] : [u.valToPos(u.data[0][u.posToIdx(left)], "x"), top]),
        points: stack ? { show: false } : { size: 7, width: 0, fill: (u, i) => (series[i - 1].bound ? "transparent" : COLOURS.lines[this.lines[series[i - 1].line].colour]) },
      },
      scales: {
        x: this.spec.log ? { time: false, distr: 3, log: 2 } : { time: false, range: () => { const { min, max } = this.domain(); return [min, max]; } },
        y: { range: (u, low, high) => this.range(low, high) },
      },
      axes: [
        { ...axis, label: this.spec.x, labelSize: 20, size: 26, grid: { show: false }, incrs: this.spec.log ? undefined : [1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000, 2000, 5000, 1e4, 1e5],
          ...(this.spec.log ? { splits: () => this.xs, values: (u, splits) => splits.map(String), filter: (u, splits) => splits } : {}) },
        { ...axis, label: this.spec.unit || undefined, labelSize: 18, size: (u, values) => 16 + 7 * Math.max(1, ...(values || []).map((v) => (v || "").length)),
          grid: { stroke: () => COLOURS.line, width: 1 }, values: (u, splits) => splits.map((v) => tick(v)) },
      ],
      series: [{}, ...series],
      bands,
      hooks: {
        setCursor: [(u) => this.read(u.cursor.idx)],
        draw: [(u) => this.write(u)],
        ready: [(u) => this.stay(u, place)],
        setSelect: [(u) => this.choose(u)],
      },
    }, data, this.plot);
    this.read(null);
  }

  /** Read at a place of the x axis again, if it is still there. */
  stay(u, place) {
    const index = this.xs.indexOf(place);
    if (index < 0) return;
    u.setCursor({ left: u.valToPos(place, "x"), top: u.over.clientHeight / 2 }, false, false);
    this.read(index);
  }

  /** The reader has drawn over a part of the chart. */
  choose(u) {
    const { left, width } = u.select;
    if (width < 6) return;
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    Chart.zoom(this.spec.x, [u.posToVal(left, "x"), u.posToVal(left + width, "x")]);
  }

  /** The vertical range: the values with some air; a share that stays near 0 or 100 % is not blown up. */
  range(low, high) {
    if (this.spec.kind === "stack") return [0, 100];
    if (low === null || high === null) return [0, 1];
    const size = Math.max(Math.abs(low), Math.abs(high));
    const air = (high - low) * 0.08 || size * 0.1 || 0.5;
    const positive = low >= 0;
    let [from, to] = [low - air, high + air];
    if (positive && (from < 0 || low < 0.35 * high)) from = 0;
    if (this.spec.unit === "%" && high <= 100 && to > 100) to = 100 + Math.min(air, 2);
    return [from, to];
  }

  /** Half the width of the greatest number that the x axis may have, which stands at its end. */
  halfOfLastTick() {
    const context = document.createElement("canvas").getContext("2d");
    context.font = FONT;
    return Math.ceil(context.measureText(this.domain().max.toLocaleString()).width / 2) + 2;
  }

  /** Whose names are written at the ends of the lines, and the room that they need. */
  namesAtEnds(width) {
    const texts = this.lines.map((line, number) => (this.isHidden(number) ? "" : line.label));
    const context = document.createElement("canvas").getContext("2d");
    context.font = FONT;
    const room = Math.max(0, ...texts.map((text) => context.measureText(text).width)) + 8;
    const fits = width >= 420 && room <= width * 0.3 && texts.filter(Boolean).length <= 9;
    return { show: fits && texts.filter(Boolean).length > 1, room: fits && texts.filter(Boolean).length > 1 ? room : 0 };
  }

  /** Write the names, moved apart where they would overlap. */
  write(u) {
    if (!this.names.show) return;
    const ratio = u.pxRatio ?? devicePixelRatio;
    const { left, top, width, height } = u.bbox;
    const gap = 14 * ratio;
    const ends = [];
    this.lines.forEach((line, number) => {
      if (this.isHidden(number)) return;
      const inside = line.x.map((x, i) => i).filter((i) => line.y[i] !== null && line.x[i] >= u.scales.x.min && line.x[i] <= u.scales.x.max);
      if (!inside.length) return;
      const i = inside[inside.length - 1];
      const value = this.spec.kind === "stack" ? (line.low[i] + line.high[i]) / 2 : line.y[i];
      if (this.spec.kind === "stack" && line.high[i] - line.low[i] < 2) return;
      ends.push({ line, y: u.valToPos(value, "y", true) });
    });
    ends.sort((a, b) => a.y - b.y);
    ends.forEach((end, i) => { end.at = i ? Math.max(end.y, ends[i - 1].at + gap) : Math.max(end.y, top + gap / 2); });
    for (let i = ends.length - 1; i >= 0; i--) {
      ends[i].at = Math.min(ends[i].at, i === ends.length - 1 ? top + height - gap / 3 : ends[i + 1].at - gap);
    }
    u.ctx.save();
    u.ctx.font = FONT.replace("12px", `${12 * ratio}px`);
    u.ctx.textBaseline = "middle";
    u.ctx.textAlign = "left";
    for (const { line, at } of ends) {
      u.ctx.fillStyle = COLOURS.texts[line.colour];
      u.ctx.fillText(line.label, left + width + 8 * ratio, at);
    }
    u.ctx.restore();
  }

  /** The legend: a switch for each line, with its value. */
  list() {
    this.numbers = [];
    const focus = [...this.legend.children].findIndex((entry) => entry.contains(document.activeElement));
    this.legend.replaceChildren(...this.lines.map((line, number) => {
      const value = element("span", { class: "number" });
      this.numbers.push(value);
      const button = element("button", { type: "button", "aria-pressed": String(!this.isHidden(number)), class: `c${line.colour}` },
        this.spec.kind === "stack" ? swatch(0, FILLS[line.dashes]) : swatch(line.dashes), element("span", {}, line.label), value);
      button.addEventListener("click", () => this.toggle(number));
      return element("li", {}, button);
    }));
    this.legend.children[focus]?.firstChild.focus({ preventScroll: true });
    this.again();
  }

  /** Read at the same place again, if it is still there. */
  again() {
    const at = this.xs.indexOf(this.place);
    this.read(at < 0 ? null : at);
  }

  toggle(number) {
    if (this.hidden.has(number)) this.hidden.delete(number);
    else this.hidden.add(number);
    this.refresh();
  }

  refresh() {
    if (this.uplot) this.build();
    this.lines.forEach((line, number) => {
      this.legend.children[number].firstChild.setAttribute("aria-pressed", String(!this.isHidden(number)));
    });
  }

  /** Show the values at a place of the x axis; null: the last value of each line. */
  read(index = null) {
    if (!this.numbers) return;
    const steps = this.spec.x === "training step";
    this.lines.forEach((line, number) => {
      const values = this.values[number], at = index ?? values.findLastIndex((value) => typeof value === "number");
      const earlier = index === null && at >= 0 && this.xs[at] !== this.xs[this.xs.length - 1] ? ` (step ${this.xs[at]})` : "";
      this.numbers[number].textContent = index === null && !steps ? "" : shown(values[at]) + earlier;
    });
    const none = index === null;
    const last = this.xs[this.xs.length - 1], end = last === STEPS[STEPS.length - 1] ? "" : ` (step ${last})`;
    const place = none ? (steps ? `last values${end}` : "") : `${this.spec.x} ${shown(this.xs[index])}`;
    this.readout.textContent = this.lines.some((line) => this.isSmooth(line)) ? `${place}, means of ${Chart.smoothing} steps` : place;
    this.at = index;
    this.place = none ? undefined : this.xs[index];
  }

  /** Read with the keyboard. */
  key(event) {
    const last = this.xs.length - 1;
    const at = this.at ?? (event.key === "ArrowRight" ? -1 : last + 1);
    const to = { ArrowLeft: Math.max(0, at - 1), ArrowRight: Math.min(last, at + 1), Home: 0, End: last }[event.key];
    if (event.key === "Escape") this.leave();
    if (to === undefined) return;
    event.preventDefault();
    this.draw();
    this.go(to);
    document.getElementById("spoken").textContent = this.spoken(to);
  }

  /** Mark a place of the x axis, and read there. */
  go(index) {
    const u = this.uplot;
    u.setCursor({ left: u.valToPos(this.xs[index], "x"), top: u.over.clientHeight / 2 });
    this.read(index);
  }

  /** What is said of a place. */
  spoken(index) {
    const values = this.lines.map((line, n) => (this.isHidden(n) ? "" : `${line.label} ${shown(this.values[n][index])}`));
    return `${this.spec.x} ${shown(this.xs[index])}: ${values.filter(Boolean).join(", ")}`;
  }

  leave() {
    this.uplot?.setCursor({ left: -10, top: -10 });
    this.read(null);
  }

  /** [header, rows] of the numbers behind the chart. */
  rows() {
    const bounded = (line) => line.low && this.spec.kind !== "stack";
    const header = [this.spec.x, ...this.lines.flatMap((line) => (bounded(line) ? [line.label, `${line.label}, least`, `${line.label}, greatest`] : [line.label]))];
    const places = this.lines.map((line) => new Map(line.x.map((x, i) => [x, i])));
    const rows = this.xs.map((x) => [x, ...this.lines.flatMap((line, number) => {
      const i = places[number].get(x);
      const value = i === undefined ? null : line.y[i];
      return bounded(line) ? [value, i === undefined ? null : line.low[i], i === undefined ? null : line.high[i]] : [value];
    })]);
    return [header, rows];
  }

  /** The table, made when it is asked for; its elements stay, so that the focus and the place in it do. */
  table() {
    this.csv.setAttribute("aria-label", `Save ${this.spec.title} as CSV`);
    if (!this.details.open) return;
    if (!this.region) {
      this.region = element("div", { class: "scroll", tabindex: "0", role: "region" }, element("table"));
      this.details.append(this.region);
    }
    const [header, rows] = this.rows();
    const head = element("tr", {}, ...header.map((text) => element("th", { scope: "col" }, text)));
    const body = rows.map((row) => element("tr", {}, element("th", { scope: "row" }, shown(row[0])),
      ...row.slice(1).map((value) => element("td", {}, value === null ? "–" : String(Number(value.toPrecision(7)))))));
    const caption = element("caption", {}, this.spec.unit ? `${this.spec.title}, ${this.spec.unit}` : this.spec.title);
    this.region.setAttribute("aria-label", `Table: ${this.spec.title}`);
    this.region.firstChild.replaceChildren(caption, element("thead", {}, head), element("tbody", {}, ...body));
  }

  /** The numbers as a CSV file. */
  save() {
    const [header, rows] = this.rows();
    const quoted = (cell) => (typeof cell === "string" ? `"${cell.replaceAll('"', '""')}"` : cell ?? "");
    const text = [header, ...rows].map((row) => row.map(quoted).join(",")).join("\n") + "\n";
    const address = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    element("a", { href: address, download: `${this.spec.id}.csv` }).click();
    URL.revokeObjectURL(address);
  }
}

/** A short sample of a line. */
function swatch(dashes, opacity = 1) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [key, value] of Object.entries({ width: 22, height: 6, "aria-hidden": "true" })) svg.setAttribute(key, value);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  const attributes = { x1: 0, x2: 22, y1: 3, y2: 3, class: "swatch", "stroke-opacity": opacity, "stroke-dasharray": DASHES[dashes].map((n) => n * 0.8).join(" ") };
  for (const [key, value] of Object.entries(attributes)) line.setAttribute(key, value);
  svg.append(line);
  return svg;
}

/** A number on an axis. */
function tick(value) {
  if (value === null) return "";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e6 || size < 1e-4)) return value.toExponential().replace("e-", "e−").replace("e+", "e");
  return String(Number(value.toPrecision(6))).replace("-", "−");
}
