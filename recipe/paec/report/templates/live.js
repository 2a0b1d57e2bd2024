// Asks the server of a live page for new steps, and adds them to the charts.

(function live() {
  const group = DATA.groups[0];
  let state = DATA.live.state;
  const note = document.querySelector(".made");

  /** Every metric gets steps of its own: in the page those with the same steps share one list. */
  function separate() {
    for (const column of Object.values(group.columns)) {
      group.axes.push([...group.axes[column[0]]]);
      column[0] = group.axes.length - 1;
    }
  }

  function add(row) {
    if (!STEPS.length || row.step > STEPS[STEPS.length - 1]) STEPS.push(row.step);
    for (const [key, value] of Object.entries(row)) {
      if (key === "step") continue;
      const [axis, values] = group.columns[key];
      group.axes[axis].push(row.step);
      values.push(value);
    }
  }

  /** What the reader has chosen is kept with the page's place in the history while it loads again. */
  function keep() {
    history.replaceState({
      theme: document.documentElement.dataset.theme, smoothing: document.getElementById("smoothing").value,
      metric: document.getElementById("metric").value, windows: [...Chart.windows],
      charts: Chart.all.map((chart) => [chart.spec.id, chart.details.open, [...chart.hidden].map((i) => chart.lines[i].label)]),
    }, "");
  }

  function restore() {
    const kept = history.state;
    if (!kept) return;
    history.replaceState(null, "");
    const button = document.getElementById("theme");
    while (document.documentElement.dataset.theme !== kept.theme) button.click();
    for (const id of ["metric", "smoothing"]) {
      const select = document.getElementById(id);
      if (![...select.options].some((one) => one.value === kept[id])) continue;
      select.value = kept[id];
      select.dispatchEvent(new Event("change"));
    }
    for (const [x, part] of kept.windows) Chart.zoom(x, part);
    for (const [id, open, hidden] of kept.charts) {
      const chart = Chart.all.find((one) => one.spec.id === id);
      if (!chart) continue;
      chart.details.open = open;
      chart.lines.forEach((line, i) => hidden.includes(line.label) && chart.hidden.add(i));
      chart.refresh();
    }
  }

  function apply(answer) {
    if (answer.reload) {
      keep();
      location.reload();
      return;
    }
    state = answer.state;
    note.textContent = answer.made;
    const status = document.querySelector(".status");
    status.className = `status ${answer.status.kind}`;
    status.lastChild.textContent = answer.status.sentence;
    if (!answer.rows.length) return;
    answer.rows.forEach(add);
    document.querySelector(".facts").replaceChildren(...answer.facts.map((fact) => element("div", {},
      element("dt", {}, fact.label), element("dd", {}, element("span", { class: "value" }, fact.value),
        ...(fact.detail ? [element("span", { class: "detail" }, fact.detail)] : [])))));
    const own = new Map(answer.charts.map((spec) => [spec.id, spec]));
    for (const chart of Chart.all) chart.update(own.get(chart.spec.id) ?? chart.spec);
  }

  async function poll() {
    let answer, text;
    try {
      answer = await fetch(`rows?after=${encodeURIComponent(state)}`, { cache: "no-store" });
      text = await answer.text();
    } catch {
      note.textContent = "The server of this page has ended: start paec watch again.";
    }
    try {
      if (text !== undefined && !answer.ok) note.textContent = text.trim();
      else if (text !== undefined) apply(JSON.parse(text));
    } catch (error) {
      note.textContent = `The new steps could not be shown: load this page again (${error.message}).`;
      return;
    }
    setTimeout(poll, DATA.live.seconds * 1000);
  }

  separate();
  restore();
  setTimeout(poll, DATA.live.seconds * 1000);
})();
