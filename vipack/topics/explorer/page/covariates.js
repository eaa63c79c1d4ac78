// Shares of the open topic by covariate, and effects on it, each with its interval.
const HALF_WIDTH = 1.645; // standard errors of a 90% interval
const LEAST_POINTS = 4; // of a line
let figuresOpen = false;

/** A table whose rows are { name, mean, lower, upper, figures }, drawn on one scale that has zero in it. */
function intervalTable(caption, heads, rows) {
  const low = Math.min(0, ...rows.map((row) => row.lower ?? row.mean)), high = Math.max(1e-9, ...rows.map((row) => row.upper ?? row.mean));
  const at = (value) => `${(100 * (value - low)) / (high - low)}%`;
  return el("table", { class: "intervals" }, el("caption", { class: "hidden" }, caption),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, heads[0]), el("td", { "aria-hidden": "true" }),
      ...heads.slice(1).map((head) => el("th", { scope: "col", class: "figure" }, head)))),
    el("tbody", {}, ...rows.map((row) => el("tr", {},
      el("th", { scope: "row" }, row.name),
      el("td", { class: "bar", "aria-hidden": "true" }, el("div", { class: "track" },
        el("span", { class: "zero", style: { left: at(0) } }),
        row.lower != null ? el("span", { class: "whisker", style: { left: at(row.lower), width: `${(100 * (row.upper - row.lower)) / (high - low)}%` } }) : null,
        row.mean != null ? el("span", { class: "dot", style: { left: at(row.mean) } }) : null)),
      ...row.figures.map((figure) => el("td", { class: "figure" }, figure))))));
}

/** A line through the levels of an ordered covariate, with a band between lower and upper ends. */
function profile(name, rows) {
  const high = Math.max(1e-9, ...rows.map((row) => row.upper ?? row.mean));
  const across = (i) => (100 * (i + 0.5)) / rows.length;
  const up = (value) => 100 - (100 * value) / high;
  const upper = rows.map((row, i) => `${across(i)},${up(row.upper ?? row.mean)}`);
  const lower = rows.map((row, i) => `${across(i)},${up(row.lower ?? row.mean)}`).reverse();
  const every = Math.ceil(rows.length / 4);
  return el("figure", { role: "img", "aria-label": `${name}: from ${percent(rows[0].mean)} at ${rows[0].name} to ${percent(rows.at(-1).mean)} at ${rows.at(-1).name}` },
    el("div", { class: "plot" },
      el("span", { class: "top-label" }, percent(high)), el("span", { class: "bottom-label" }, "0%"),
      el("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none" },
        el("polygon", { points: [...upper, ...lower].join(" ") }),
        el("polyline", { points: rows.map((row, i) => `${across(i)},${up(row.mean)}`).join(" ") })),
      ...rows.map((row, i) => el("span", { class: "dot", title: `${row.name}: ${row.figures[0]}`, style: { left: `${across(i)}%`, top: `calc(${up(row.mean)}% - 5.5px)` } }))),
    el("div", { class: "levels" }, ...rows.map((row, i) => el("span", {}, i % every ? "" : row.name))));
}

function drawCovariate() {
  const covariate = data.covariates[state.covariate], k = state.topic;
  const rows = covariate.levels.map((name, i) => {
    const mean = covariate.means[i][k], error = covariate.errors[i][k];
    return {
      name, mean,
      lower: error == null ? null : Math.max(0, mean - HALF_WIDTH * error),
      upper: error == null ? null : Math.min(1, mean + HALF_WIDTH * error),
      figures: [mean == null ? "–" : percent(mean), error == null ? "–" : (100 * error).toFixed(1), whole(covariate.counts[i])],
    };
  });
  const notes = ["Mean shares over documents, with intervals of ±1.645 standard errors (90%). The errors are those of the documents' estimated shares, as if these were known."];
  if (covariate.missing) notes.push(`${many(covariate.missing, "document")} without a value.`);
  if (covariate.leftOut) notes.push(`${many(covariate.leftOut, "rarer level")} left out.`);
  const table = intervalTable(`${label(k)} by ${covariate.name}`, [covariate.name, "share", "se", "documents"], rows);
  const drawn = covariate.ordered && rows.length >= LEAST_POINTS
    ? [profile(`${label(k)} by ${covariate.name}`, rows), el("details", { class: "small", open: figuresOpen, ontoggle: (event) => (figuresOpen = event.target.open) }, el("summary", {}, "Figures"), table)]
    : [rows.length ? table : el("p", {}, "No document has a value.")];
  $("covariates").replaceChildren(...drawn, el("p", { class: "quiet small" }, notes.join(" ")));
}

function drawEffects() {
  const rows = data.effects.filter(([k]) => k === state.topic).map(([, name, mean, lower, upper]) => (
    { name, mean, lower, upper, figures: [signed(mean), `${signed(lower)} to ${signed(upper)}`] }));
  $("effects").replaceChildren(rows.length
    ? intervalTable(`Effects on ${label(state.topic)}`, ["term", "effect", "interval"], rows)
    : el("p", { class: "quiet" }, "None were given for this topic."),
    el("p", { class: "quiet small" }, "In percentage points of the topic's share, with the intervals that were given."));
}

function setUpCovariates() {
  $("covariates-card").hidden = !data.covariates.length;
  $("effects-card").hidden = !data.effects.length;
  $("covariate").replaceChildren(...data.covariates.map((c, i) => el("option", { value: i }, c.name)));
  $("covariate").addEventListener("change", (event) => change({ covariate: Number(event.target.value) }));
}

painters.push((changed) => {
  if (data.effects.length && changed.has("topic")) drawEffects();
  if (!data.covariates.length || !(changed.has("topic") || changed.has("covariate"))) return;
  $("covariate").value = state.covariate;
  drawCovariate();
});
