// The data of the page.

const DATA = JSON.parse(document.getElementById("data").textContent);
// Every recorded training step.
const STEPS = [...new Set(DATA.groups.flatMap((group) => group.axes.flat()))].sort((a, b) => a - b);
const DASHES = [[], [8, 5], [2, 4]];
const FILLS = [0.72, 0.36, 0.18]; // opacity of areas: where the colours are used up, they come again paler

/** {label, x, y, low, high} of a line of a chart, in the unit of the chart. */
function lineOf(entry, scale) {
  const times = (values) => values && values.map((value) => (value === null ? null : value * scale));
  const about = { label: entry.label, group: entry.group, colour: entry.colour, dashes: entry.dashes, points: entry.points };
  if (entry.xs) return { ...about, x: entry.xs, y: times(entry.ys), low: times(entry.lows), high: times(entry.highs) };
  const group = DATA.groups[entry.group];
  const [axis, y, low, high] = group.columns[entry.key];
  return { ...about, x: group.axes[axis], y: times(y), low: times(low), high: times(high) };
}

/** Trailing means over as many values; where a value is missing, so is its mean. */
function smoothed(values, count) {
  return values.map((value, i) => {
    if (value === null) return null;
    const known = values.slice(Math.max(0, i - count + 1), i + 1).filter((one) => one !== null);
    return known.reduce((sum, one) => sum + one, 0) / known.length;
  });
}

/** Lines one above the other: each from the sum of those before it to that plus its own values. */
function stacked(lines) {
  const sums = new Map();
  return lines.map((line) => {
    const low = line.x.map((x) => sums.get(x) ?? 0);
    const high = line.x.map((x, i) => low[i] + (line.y[i] ?? 0));
    line.x.forEach((x, i) => sums.set(x, high[i]));
    return { ...line, low, high };
  });
}

/** Colours of the current theme, as the canvas needs them. */
function palette() {
  const probe = element("span", { class: "hidden" });
  document.body.append(probe);
  const resolved = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const indices = [0, 1, 2, 3, 4, 5, 6, 7];
  const found = {
    lines: indices.map((i) => resolved(`c${i}`)),
    texts: indices.map((i) => resolved(`t${i}`)),
    ...Object.fromEntries(["ink", "soft", "line", "faint", "paper"].map((name) => [name, resolved(name)])),
  };
  probe.remove();
  return found;
}

/** A colour of `palette` with another opacity. */
function faded(colour, alpha) {
  const numbers = colour.match(/[\d.]+/g).slice(0, 3).join(", ");
  return `rgba(${numbers}, ${alpha})`;
}
