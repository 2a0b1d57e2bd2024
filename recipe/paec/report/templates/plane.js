// A chart whose x axis is a value too: for each run a path over its validations, which ends in a large dot.

class Plane extends Chart {
  show(spec) {
    super.show(spec);
    const [x, y] = spec.axes;
    this.plot.setAttribute("aria-label", `${y} over ${x} (${spec.unit}), a path over the validations: ${this.lines.map((line) => line.label).join(", ")}. Arrow keys read the values.`);
    this.figure.classList.add("square");
  }

  /** uPlot's columns, by which it scales the axes: all points in the order of x, each in the column of its line.
   *  What is read (`xs`) are steps here. */
  columns() {
    this.xs = [...new Set(this.spec.series.flatMap((entry) => entry.steps))].sort((a, b) => a - b);
    const points = this.lines.flatMap((line, number) => line.x.map((x, i) => ({ x, y: line.y[i], number }))).sort((a, b) => a.x - b.x);
    const drawn = this.lines.map((line, number) => points.map((point) => (point.number === number ? point.y : undefined)));
    return [points.map((point) => point.x), ...drawn];
  }

  build() {
    this.uplot?.destroy();
    const width = Math.max(this.plot.clientWidth || this.figure.clientWidth, 220);
    const axis = { font: FONT, labelFont: FONT, stroke: () => COLOURS.soft, ticks: { show: false }, labelGap: 0, grid: { stroke: () => COLOURS.line, width: 1 }, values: (u, splits) => splits.map((v) => tick(v)) };
    const [x, y] = this.spec.axes.map((name) => `${name}, ${this.spec.unit}`);
    const range = (u, low, high) => this.range(low, high);
    this.uplot = new uPlot({
      width, height: Math.min(width, 520),
      legend: { show: false },
      padding: [14, 18, 0, 0],
      cursor: { show: false },
      scales: { x: { time: false, range }, y: { range } },
      axes: [{ ...axis, label: x, labelSize: 20, size: 26 }, { ...axis, label: y, labelSize: 18, size: 44 }],
      series: [{}, ...this.lines.map((line, number) => ({ show: !this.isHidden(number), paths: () => null, points: { show: false } }))],
      hooks: { draw: [(u) => this.write(u)] },
    }, this.columns(), this.plot);
    this.uplot.over.addEventListener("mousemove", (event) => this.point(event.offsetX, event.offsetY));
    this.uplot.over.addEventListener("mouseleave", () => this.leave());
    this.again();
  }

  /** [step, x, y] of the validations of a line. */
  points(number) {
    const line = this.lines[number];
    return this.isHidden(number) ? [] : this.spec.series[number].steps.map((step, i) => [step, line.x[i], line.y[i]]);
  }

  /** Draw the paths, a ring at the step that is read, and names at their ends. */
  write(u) {
    const ratio = u.pxRatio ?? devicePixelRatio, context = u.ctx;
    const ends = [];
    const dot = ([x, y], radius, colour) => {
      context.beginPath();
      context.arc(x, y, radius * ratio, 0, 2 * Math.PI);
      context.fillStyle = colour;
      context.fill();
    };
    context.save();
    context.lineJoin = "round";
    this.lines.forEach((line, number) => {
      const points = this.points(number).map(([step, x, y]) => [u.valToPos(x, "x", true), u.valToPos(y, "y", true), step]);
      if (!points.length) return;
      const colour = COLOURS.lines[line.colour];
      context.beginPath();
      points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
      Object.assign(context, { strokeStyle: colour, lineWidth: 1.6 * ratio });
      context.setLineDash(DASHES[line.dashes].map((length) => length * ratio));
      context.stroke();
      context.setLineDash([]);
      points.forEach((point) => dot(point, 2.3, colour));
      const end = points[points.length - 1];
      dot(end, 7, COLOURS.paper);
      dot(end, 5.5, colour);
      ends.push({ line, x: end[0], y: end[1] });
      for (const point of points.filter(([, , step]) => step === this.xs[this.at])) {
        dot(point, 6.5, COLOURS.ink);
        dot(point, 4.5, colour);
      }
    });
    Object.assign(context, { font: FONT.replace("12px", `${12 * ratio}px`), textBaseline: "middle", lineWidth: 4 * ratio, strokeStyle: COLOURS.paper });
    const write = (text, x, y, colour) => {
      context.fillStyle = colour;
      context.strokeText(text, x, y);
      context.fillText(text, x, y);
    };
    const [step, x, y] = this.lines.flatMap((line, number) => this.points(number).slice(0, 1)).sort((a, b) => a[0] - b[0] || b[2] - a[2])[0] ?? [];
    context.textAlign = "center";
    if (step !== undefined) write(`step ${step}`, u.valToPos(x, "x", true), u.valToPos(y, "y", true) - 12 * ratio, COLOURS.soft);
    if (ends.length > 1 && u.bbox.width >= 340 * ratio) this.names(u, ends, ratio, write);
    context.restore();
  }

  /** Names beside the ends of the paths, moved apart where they would overlap. */
  names(u, ends, ratio, write) {
    const context = u.ctx, gap = 15 * ratio, { left, width, top } = u.bbox;
    ends.sort((a, b) => a.y - b.y);
    let last = top - gap / 2;
    for (const { line, x, y } of ends) {
      const at = (last = Math.max(y, last + gap));
      const fits = x + 11 * ratio + context.measureText(line.label).width < left + width;
      context.textAlign = fits ? "left" : "right";
      write(line.label, x + (fits ? 11 : -11) * ratio, at, COLOURS.texts[line.colour]);
    }
  }

  /** Read the validation that is nearest to a place of the chart. */
  point(left, top) {
    const u = this.uplot;
    let nearest = [30, null]; // pixels
    this.lines.forEach((line, number) => {
      for (const [step, x, y] of this.points(number)) {
        const distance = Math.hypot(u.valToPos(x, "x") - left, u.valToPos(y, "y") - top);
        if (distance < nearest[0]) nearest = [distance, this.xs.indexOf(step)];
      }
    });
    this.read(nearest[1]);
    u.redraw(false);
  }

  /** Show the values at a validation; null: at the last one of each run. */
  read(index = null) {
    if (!this.numbers) return;
    this.at = index;
    this.place = index === null ? undefined : this.xs[index];
    this.numbers.forEach((number, i) => { number.textContent = this.text(i, index); });
    const [x, y] = this.spec.axes;
    this.readout.textContent = `${x}, ${y}: ${index === null ? "last validations" : `training step ${this.xs[index]}`}`;
  }

  /** A line's two values at a validation. */
  text(number, index) {
    const { x, y } = this.lines[number];
    const i = index === null ? x.length - 1 : this.spec.series[number].steps.indexOf(this.xs[index]);
    return i < 0 ? "–" : `${x[i].toFixed(1)}, ${y[i].toFixed(1)}`;
  }

  go(index) {
    this.read(index);
    this.uplot.redraw(false);
  }

  spoken(index) {
    const values = this.lines.map((line, number) => (this.isHidden(number) ? "" : `${line.label} ${this.text(number, index)}`));
    return `training step ${this.xs[index]}, ${this.spec.axes.join(" and ")}: ${values.filter(Boolean).join("; ")}`;
  }

  leave() {
    this.read(null);
    this.uplot?.redraw(false);
  }

  rows() {
    const header = ["training step", ...this.lines.flatMap((line) => this.spec.axes.map((name) => `${line.label}, ${name}`))];
    const rows = this.xs.map((step) => [step, ...this.lines.flatMap((line, number) => {
      const i = this.spec.series[number].steps.indexOf(step);
      return i < 0 ? [null, null] : [line.x[i], line.y[i]];
    })]);
    return [header, rows];
  }
}
