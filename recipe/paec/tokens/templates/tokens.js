// The token page: responses, their tokens coloured by what a method does to them, and the numbers behind it.

const DATA = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const SELECTED = 1e-3; // a weight that differs by less from that without the method counts as equal
const DIFFERENT = 1e-2; // nats: log-probs that differ by less count as equal; their rounding alone makes up to 0.008
const STATE = { method: 0, source: 0, response: 0, beside: "", token: 0, pane: 0 };
const PANES = [];

// ---- numbers ----------------------------------------------------------------------------------------------------------

const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer;

/** Every number of 16 bits, decoded once. */
const HALVES = Float32Array.from({ length: 65536 }, (_, bits) => {
  const sign = bits >> 15 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return exponent ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024) : sign * 2 ** -24 * fraction;
});
const halves = (text) => Float32Array.from(new Uint16Array(bytes(text)), (bits) => HALVES[bits]);

const KEPT = new Map();
/** A column, decoded at first use. */
function column(name, make) {
  if (!KEPT.has(name)) KEPT.set(name, make());
  return KEPT.get(name);
}
const detail = (name) => column(name, () => (name === "nucleus_size" ? new Float32Array(bytes(DATA.columns[name])) : halves(DATA.columns[name])));
const weights = (method) => column(`weights ${method}`, () => (DATA.methods[method].weights === null ? null : halves(DATA.methods[method].weights)));
const scores = (method) => column(`scores ${method}`, () => (DATA.methods[method].scores === null ? null : halves(DATA.methods[method].scores)));

const WORDS = new Uint32Array(bytes(DATA.texts));
const STARTS = DATA.responses.map(() => 0);
DATA.responses.slice(0, -1).forEach((response, i) => { STARTS[i + 1] = STARTS[i] + response.length; });
const textOf = (response, i) => DATA.words[WORDS[STARTS[response] + i]];

/** The reading of a response under a policy, -1 if it has none. */
const readingOf = (response, source) => DATA.readings.findIndex((one) => one.response === response && one.source === source);
const lengthOf = (reading) => DATA.responses[DATA.readings[reading].response].length;

/** The weight of a token less that without the method; NaN if it is not known. */
function excess(method, reading, i) {
  const values = weights(method);
  return values ? values[DATA.readings[reading].start + i] - DATA.methods[method].neutral : NaN;
}

/** Whether it is a method; the other choice is the difference between vLLM's log-probs and the actor's. */
const isMethod = (method) => DATA.methods[method].quantity === "weight";
const DIFFERENCE = DATA.methods.findIndex((_, i) => !isMethod(i));
const leastOf = (method) => (isMethod(method) ? SELECTED : DIFFERENT);

/** The excess that has the full colour: 1 for a mask, else the largest on the page. */
function largest(method) {
  return column(`largest ${method}`, () => {
    const values = weights(method), { neutral } = DATA.methods[method];
    let most = 0;
    for (const value of values ?? []) if (!Number.isNaN(value)) most = Math.max(most, Math.abs(value - neutral));
    return isMethod(method) && neutral === 0 && most > 0 && most <= 1 ? 1 : most;
  });
}

/** Mean size of the excess over the tokens of a response that have one; null without any. */
function massOf(method, reading) {
  return column(`mass ${method} ${reading}`, () => {
    let sum = 0, known = 0;
    const length = lengthOf(reading);
    for (let i = 0; i < length; i += 1) {
      const size = Math.abs(excess(method, reading, i));
      if (!Number.isNaN(size)) { sum += size; known += 1; }
    }
    return known ? sum / known : null;
  });
}

const percent = (value) => (value === null ? "–" : `${(100 * value).toFixed(1)} %`);

/** A number with three significant digits; `shown` would give those from 1 on a fourth. */
function number(value) {
  if (Number.isNaN(value) || value === undefined) return "–";
  const rounded = Number(value.toPrecision(3)), size = Math.abs(rounded);
  return size > 1 && !Number.isInteger(rounded) ? rounded.toFixed(size < 10 ? 2 : 1).replace("-", "−") : shown(rounded);
}

// ---- responses --------------------------------------------------------------------------------------------------------

const isRight = (response) => response.score === 1;

function nameOf(response) {
  const match = /^(\d+)-(\d+)_(\d+)_(\d+)$/.exec(response.key);
  if (match) return `prompt ${Number(match[2]) + 1}, response ${Number(match[3]) + 1}`;
  const own = /^validation-(.+)-(\d+)_(\d+)_\d+$/.exec(response.key);
  if (own) return `${own[1]} ${own[2]}, response ${Number(own[3]) + 1}`;
  const text = /^text-(\d+)_/.exec(response.key);
  return text ? `text ${Number(text[1]) + 1}` : response.key;
}
const longName = (response) => (response.step === null ? nameOf(response) : `step ${response.step}, ${nameOf(response)}`);

/** Numbers of the responses that the filters leave. */
function listed() {
  const kind = byId("score").value, least = isMethod(STATE.method) ? Number(byId("mass").value) / 100 : 0;
  return DATA.responses.map((_, i) => i).filter((i) => {
    const reading = readingOf(i, STATE.source);
    if (reading < 0) return false;
    if (kind && isRight(DATA.responses[i]) !== (kind === "right")) return false;
    return least === 0 || (massOf(STATE.method, reading) ?? 0) >= least;
  });
}

function list() {
  const found = listed();
  byId("count").textContent = `${found.length} of ${DATA.responses.length}`;
  byId("responses").replaceChildren(...found.map((i) => {
    const response = DATA.responses[i];
    const score = response.score === null ? element("span") : element("span", { class: isRight(response) ? "right" : "wrong" }, isRight(response) ? "right" : `wrong (${shown(response.score)})`);
    const button = element("button", { type: "button", "aria-current": String(i === STATE.response) },
      element("span", {}, longName(response)), score,
      element("small", {}, `${response.length} tokens, ${massShown(massOf(STATE.method, readingOf(i, STATE.source)))}`));
    button.addEventListener("click", () => { STATE.token = 0; choose(i); });
    return element("li", {}, button);
  }));
  return found;
}

const massShown = (mass) => (isMethod(STATE.method) ? `mask mass ${percent(mass)}` : `apart by ${number(mass ?? NaN)} nats`);

/** Show a response. */
function choose(response) {
  STATE.response = response;
  for (const button of byId("responses").querySelectorAll("button")) button.setAttribute("aria-current", "false");
  const at = listed().indexOf(response);
  if (at >= 0) byId("responses").children[at].firstChild.setAttribute("aria-current", "true");
  besides();
  panes();
}

/** What can be shown beside the response: other policies, and other responses to its prompt. */
function besides() {
  const select = byId("beside"), own = DATA.responses[STATE.response];
  const options = [element("option", { value: "" }, "nothing")];
  DATA.sources.forEach((source, number) => {
    const reading = readingOf(STATE.response, number);
    if (number !== STATE.source && reading >= 0) options.push(element("option", { value: String(reading) }, `the same, ${source.label}`));
  });
  DATA.readings.forEach((reading, number) => {
    const other = DATA.responses[reading.response];
    if (reading.response === STATE.response || (other.group !== own.group && other.prompt !== own.prompt)) return;
    const policy = DATA.sources.length > 1 ? `, ${DATA.sources[reading.source].label}` : "";
    options.push(element("option", { value: String(number) }, `${longName(other)}${policy}`));
  });
  select.replaceChildren(...options);
  select.disabled = options.length === 1;
  select.value = STATE.beside;
  if (select.selectedIndex < 0) { STATE.beside = ""; select.value = ""; }
}

// ---- tokens -----------------------------------------------------------------------------------------------------------

/** Draw the chosen response, and the reading beside it. */
function panes() {
  PANES.length = 0;
  const reading = readingOf(STATE.response, STATE.source);
  const shownReadings = reading < 0 ? [] : [reading, ...(STATE.beside === "" ? [] : [Number(STATE.beside)])];
  byId("panes").replaceChildren(...shownReadings.map((number, place) => pane(number, place)));
  colour();
  at(Math.min(STATE.token, Math.max(0, reading < 0 ? 0 : lengthOf(reading) - 1)), 0, false);
}

function pane(reading, place) {
  const { response, source } = DATA.readings[reading];
  const about = DATA.responses[response];
  const text = element("div", {
    class: "text", tabindex: "0", role: "listbox", "aria-label": `Tokens of ${longName(about)}, ${DATA.sources[source].label}. Arrow keys read them.`,
    "aria-keyshortcuts": "ArrowLeft ArrowRight ArrowUp ArrowDown Home End",
  });
  const spans = [];
  for (let i = 0; i < about.length; i += 1) {
    const word = textOf(response, i);
    const span = document.createElement("span");
    span.className = `t${word.includes("\n") ? " nl" : ""}${word === "" ? " empty" : ""}`;
    span.id = `t${place}-${i}`;
    span.setAttribute("role", "option");
    span.textContent = word;
    spans.push(span);
  }
  text.append(...spans);
  const indexOf = (event) => spans.indexOf(event.target.closest(".t"));
  text.addEventListener("mouseover", (event) => { const i = indexOf(event); if (i >= 0) at(i, place, false); });
  text.addEventListener("click", (event) => { const i = indexOf(event); if (i >= 0) at(i, place, true); });
  text.addEventListener("keydown", (event) => key(event, PANES[place]));
  PANES.push({ reading, text, spans, place });
  const prompt = element("details", {}, element("summary", {}, "Prompt"), element("pre", { class: "prompt" }, about.prompt));
  return element("div", { class: "pane" }, element("h3", {}, `${longName(about)} · ${DATA.sources[source].label}`), prompt, text);
}

/** Colour the tokens by the method. */
function colour() {
  const most = largest(STATE.method);
  for (const { reading, spans } of PANES) {
    spans.forEach((span, i) => {
      const over = excess(STATE.method, reading, i);
      const none = Number.isNaN(over) || most === 0 || (!isMethod(STATE.method) && Math.abs(over) <= DIFFERENT);
      const share = none ? 0 : Math.min(1, Math.abs(over) / most);
      span.style.setProperty("--w", share.toFixed(4));
      span.classList.toggle("down", over < 0);
      span.setAttribute("aria-label", `${textShown(span.textContent)}${share > SELECTED ? `, ${DATA.methods[STATE.method].quantity} ${number(over + DATA.methods[STATE.method].neutral)}` : ""}`);
    });
  }
}

/** A token's text for labels: spaces and line breaks are named where nothing else is there. */
function textShown(text) {
  if (text.trim() !== "") return text.trim();
  return text === "" ? "empty" : text.includes("\n") ? "line break" : "space";
}

/** Whether both panes show the same response, under two policies. */
const sameTwice = () => PANES.length > 1 && DATA.readings[PANES[0].reading].response === DATA.readings[PANES[1].reading].response;

/** Move to a token of a pane; in the other one to the same, if it is the same response. */
function at(i, place, speak) {
  STATE.token = i;
  STATE.pane = place;
  const same = sameTwice();
  for (const one of PANES) {
    const before = one.text.querySelector(".at");
    before?.removeAttribute("aria-selected");
    before?.classList.remove("at");
    const span = same || one.place === place ? one.spans[i] : undefined;
    if (!span) {
      one.text.removeAttribute("aria-activedescendant");
      continue;
    }
    span.classList.add("at");
    span.setAttribute("aria-selected", "true");
    one.text.setAttribute("aria-activedescendant", span.id);
  }
  details();
  if (speak) say();
}

/** Read with the keyboard. */
function key(event, { reading, spans, place }) {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key], jump = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  const from = sameTwice() || STATE.pane === place ? STATE.token : 0;
  let to = { Home: 0, End: spans.length - 1 }[event.key];
  if (step) to = Math.min(spans.length - 1, Math.max(0, from + step));
  if (jump) {
    to = from + jump;
    while (to >= 0 && to < spans.length && !(Math.abs(excess(STATE.method, reading, to)) > leastOf(STATE.method))) to += jump;
    if (to < 0 || to >= spans.length) to = from;
  }
  if (to === undefined || !spans.length) return;
  event.preventDefault();
  at(to, place, true);
  spans[to].scrollIntoView({ block: "nearest" });
}

const FIELDS = [
  ["probability", (reading, i) => Math.exp(detail("log_prob")[DATA.readings[reading].start + i])],
  ["entropy, nats", (reading, i) => detail("entropy")[DATA.readings[reading].start + i]],
  ["nucleus entropy, nats", (reading, i) => detail("nucleus_entropy")[DATA.readings[reading].start + i]],
  ["normalised nucleus entropy", (reading, i) => detail("normalized_entropy")[DATA.readings[reading].start + i]],
  ["competition", (reading, i) => detail("competition")[DATA.readings[reading].start + i]],
  ["nucleus size", (reading, i) => detail("nucleus_size")[DATA.readings[reading].start + i]],
  ["nucleus mass", (reading, i) => detail("nucleus_mass")[DATA.readings[reading].start + i]],
  ["vLLM minus actor, nats", (reading, i) => (DIFFERENCE < 0 ? NaN : weights(DIFFERENCE)[DATA.readings[reading].start + i])],
  ["weight", (reading, i) => (isMethod(STATE.method) && weights(STATE.method) ? weights(STATE.method)[DATA.readings[reading].start + i] : NaN)],
  ["score", (reading, i) => (scores(STATE.method) ? scores(STATE.method)[DATA.readings[reading].start + i] : NaN)],
  ["threshold", (reading) => DATA.methods[STATE.method].thresholds[reading] ?? NaN],
  ["advantage", (reading) => DATA.responses[DATA.readings[reading].response].advantage ?? NaN],
];

/** The numbers of the current token, under both policies if the same response is shown twice. */
function details() {
  const place = byId("token"), same = sameTwice();
  if (!PANES[STATE.pane]?.spans.length) return place.replaceChildren(element("p", { class: "note" }, "No token."));
  const i = STATE.token, readings = (same ? PANES : [PANES[STATE.pane]]).map((one) => one.reading);
  const head = same ? [element("thead", {}, element("tr", {}, element("td"), ...readings.map((r) => element("th", { scope: "col" }, DATA.sources[DATA.readings[r].source].label))))] : [];
  const rows = FIELDS.map(([label, value]) => {
    const values = readings.map((reading) => value(reading, i));
    if (values.every(Number.isNaN) && ["vLLM minus actor, nats", "score", "threshold", "advantage"].includes(label)) return null;
    if (label === "weight" && !isMethod(STATE.method)) return null;
    return element("tr", {}, element("th", { scope: "row" }, label), ...values.map((one) => element("td", {}, number(one))));
  }).filter(Boolean);
  const word = textOf(DATA.readings[readings[0]].response, i);
  place.replaceChildren(
    element("p", { class: "text-of" }, JSON.stringify(word)),
    element("p", { class: "note" }, `token ${i + 1} of ${lengthOf(readings[0])}`),
    element("table", { "aria-label": "Numbers of the token" }, ...head, element("tbody", {}, ...rows)),
    ...readings.map((reading) => candidates(reading, i)).filter(Boolean),
  );
}

/** The most likely tokens at a place. */
function candidates(reading, i) {
  const { source, start } = DATA.readings[reading];
  const own = DATA.candidates[source];
  if (!own) return null;
  const words = column(`words ${source}`, () => new Uint32Array(bytes(own.words)));
  const logProbs = column(`candidates ${source}`, () => halves(own.log_probs));
  const first = DATA.readings.find((one) => one.source === source).start;
  const width = logProbs.length / DATA.readings.filter((one) => one.source === source).reduce((sum, one) => sum + DATA.responses[one.response].length, 0);
  const rows = [];
  for (let k = 0; k < width; k += 1) {
    const place = (start - first + i) * width + k;
    if (Number.isNaN(logProbs[place])) continue;
    rows.push(element("tr", {}, element("td", { class: "piece" }, JSON.stringify(DATA.words[words[place]])), element("td", {}, percent(Math.exp(logProbs[place])))));
  }
  return element("table", { class: "candidates" }, element("caption", {}, `Candidates, ${DATA.sources[source].label}`), element("tbody", {}, ...rows));
}

/** Tell a screen reader about the current token. */
function say() {
  const { reading } = PANES[STATE.pane], i = STATE.token;
  const values = FIELDS.map(([label, value]) => [label, value(reading, i)]).filter(([, value]) => !Number.isNaN(value));
  byId("spoken").textContent = `${textShown(textOf(DATA.readings[reading].response, i))}, token ${i + 1}: ${values.map(([label, value]) => `${label} ${number(value)}`).join(", ")}`;
}

// ---- over all responses -----------------------------------------------------------------------------------------------

function overview() {
  const sums = new Array(10).fill(0), words = new Map();
  let all = 0;
  for (const response of listed()) {
    const reading = readingOf(response, STATE.source), length = lengthOf(reading);
    for (let i = 0; i < length; i += 1) {
      const size = Math.abs(excess(STATE.method, reading, i));
      if (Number.isNaN(size)) continue;
      const word = textOf(response, i);
      const own = words.get(word) ?? words.set(word, { times: 0, selected: 0, mass: 0 }).get(word);
      own.times += 1;
      if (size > leastOf(STATE.method)) { own.selected += 1; own.mass += size; spread(sums, i, length, size); all += size; }
    }
  }
  places(sums.map((sum) => (all ? sum / all : 0)));
  const rows = [...words].filter(([, own]) => own.selected).sort((a, b) => b[1].selected - a[1].selected || b[1].mass - a[1].mass || (a[0] < b[0] ? -1 : 1)).slice(0, 30);
  const heads = ["token", "selected", "occurs", "share", "mean weight where selected"].map((text) => element("th", { scope: "col" }, text));
  const { neutral } = DATA.methods[STATE.method];
  byId("often").replaceChildren(element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...rows.map(([word, own]) =>
    element("tr", {}, element("th", { scope: "row" }, JSON.stringify(word)), ...[String(own.selected), String(own.times), percent(own.selected / own.times), number(own.mass / own.selected)].map((text) => element("td", {}, text))))));
  byId("often").querySelector("th:last-child").textContent = neutral ? `mean distance from ${neutral} where selected` : `mean ${isMethod(STATE.method) ? "weight" : "size of the difference"} where selected`;
}

/** Add a token's mass to the tenths of its response that it covers, to each by its part of the token. */
function spread(sums, i, length, size) {
  const from = (10 * i) / length, to = (10 * (i + 1)) / length;
  for (let tenth = Math.floor(from); tenth < Math.min(to, 10); tenth += 1) {
    sums[tenth] += (size * (Math.min(to, tenth + 1) - Math.max(from, tenth))) / (to - from);
  }
}

/** Bars: the share of the mass in each tenth of a response. */
function places(shares) {
  const space = "http://www.w3.org/2000/svg", wide = 440, high = 130, most = Math.max(...shares, 0.2);
  const drawn = (name, attributes, text) => {
    const made = document.createElementNS(space, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const svg = drawn("svg", { viewBox: `0 0 ${wide} ${high + 34}`, role: "img", "aria-label": `Share of ${byId("places-of").textContent} by tenth of the response: ${shares.map((share) => percent(share)).join(", ")}` });
  shares.forEach((share, i) => {
    const height = (share / most) * high, left = (i * wide) / 10;
    svg.append(drawn("rect", { x: left + 3, y: 16 + high - height, width: wide / 10 - 6, height, rx: 2 }),
      drawn("text", { x: left + wide / 20, y: 12 + high - height }, `${Math.round(100 * share)} %`),
      drawn("text", { x: left + wide / 20, y: high + 30 }, `${10 * i}–${10 * i + 10}`));
  });
  byId("places").replaceChildren(svg);
}

// ---- the page ---------------------------------------------------------------------------------------------------------

/** Everything that depends on the method or the policy. */
function refresh() {
  const method = DATA.methods[STATE.method], reason = method.reasons[STATE.source];
  const known = !reason;
  byId("about").textContent = `${method.name}: ${method.about}`;
  byId("reason").hidden = known;
  byId("reason").textContent = known ? "" : `${method.name} has no ${isMethod(STATE.method) ? "weights" : "values"} for these tokens: it ${reason}.`;
  byId("mass").disabled = !isMethod(STATE.method);
  byId("places-of").textContent = isMethod(STATE.method) ? "the mask's mass" : "the differences above 0.01 nats";
  byId("often-where").textContent = isMethod(STATE.method) ? "its weight differs from that without the method" : "the two differ by more than 0.01 nats";
  const most = largest(STATE.method), least = leastOf(STATE.method), signs = { up: false, down: false };
  for (const value of known ? weights(STATE.method) : []) {
    if (value - method.neutral > least) signs.up = true;
    if (value - method.neutral < -least) signs.down = true;
  }
  const end = (sign) => number(method.neutral + sign * most);
  byId("legend").replaceChildren(...(known ? [
    element("span", {}, method.meaning),
    ...(signs.down ? [element("span", {}, element("i", { class: "down" }), `${method.neutral} to ${end(-1)}`)] : []),
    ...(signs.up ? [element("span", {}, element("i", {}), `${method.neutral} to ${end(1)}`)] : []),
    ...(signs.up || signs.down ? [] : [element("span", {}, "no token differs")]),
    ...(isMethod(STATE.method) && DATA.sources[STATE.source].note ? [element("span", {}, DATA.sources[STATE.source].note)] : []),
  ] : []));
  filter();
}

/** Everything that depends on the filters. */
function filter() {
  byId("mass-value").textContent = `${byId("mass").value} %`;
  const found = list();
  if (found.length && !found.includes(STATE.response)) { STATE.token = 0; choose(found[0]); }
  else { besides(); panes(); }
  overview();
}

/** The theme: the system's, until the reader chooses. */
function themes() {
  const root = document.documentElement, button = byId("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const apply = () => button.setAttribute("aria-pressed", String(dark()));
  button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; apply(); });
  system.addEventListener("change", apply);
  apply();
}

(function start() {
  const groups = [["Methods", (one, i) => isMethod(i) && one.weights !== null], ["Without weights here", (one) => one.weights === null], ["Rollout", (one, i) => !isMethod(i)]];
  byId("method").append(...groups.map(([label, has]) => {
    const options = DATA.methods.map((one, i) => (has(one, i) ? element("option", { value: String(i) }, one.name) : null)).filter(Boolean);
    return options.length ? element("optgroup", { label }, ...options) : null;
  }).filter(Boolean));
  STATE.method = Math.max(0, DATA.methods.findIndex((one) => one.weights !== null));
  byId("method").value = String(STATE.method);
  byId("source").append(...DATA.sources.map((one, i) => element("option", { value: String(i) }, one.label)));
  byId("source-choice").hidden = DATA.sources.length < 2;
  byId("method").addEventListener("change", (event) => { STATE.method = Number(event.target.value); refresh(); });
  byId("source").addEventListener("change", (event) => { STATE.source = Number(event.target.value); refresh(); });
  byId("beside").addEventListener("change", (event) => { STATE.beside = event.target.value; panes(); });
  byId("score").addEventListener("change", filter);
  byId("mass").addEventListener("input", filter);
  if (DATA.responses.every((one) => one.score === null)) byId("score").disabled = true;
  themes();
  refresh();
  document.documentElement.dataset.ready = "true";
})();
