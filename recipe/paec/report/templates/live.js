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

  function apply(answer) {
    if (answer.reload) {
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
    try {
      const answer = await fetch(`rows?after=${encodeURIComponent(state)}`, { cache: "no-store" });
      if (!answer.ok) throw new Error(String(answer.status));
      apply(await answer.json());
    } catch {
      note.textContent = "The server of this page has ended: start paec watch again.";
    }
    setTimeout(poll, DATA.live.seconds * 1000);
  }

  separate();
  setTimeout(poll, DATA.live.seconds * 1000);
})();
