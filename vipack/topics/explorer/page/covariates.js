// Shares of the open topic by covariate, and effects on it, each with its interval.
const HALF_WIDTH = 1.645; // standard errors of a 90% interval

/** A table whose rows are { name, mean, lower, upper, figures }, drawn on one scale that has zero in it. */
function intervalTable(caption, heads, rows, ordered = false) {
  const low = Math.min(0, ...rows.map((row) => row.lower ?? row.mean)), high = Math.max(1e-9, ...rows.map((row) => row.upper ?? row.mean));
  const at = (value) => `${(100 * (value - low)) / (high - low)}%`;
  return el("table", { class: ordered ? "intervals ordered" : "intervals" }, el("caption", { class: "hidden" }, caption),
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
  $("covariates").replaceChildren(
    rows.length ? intervalTable(`${label(k)} by ${covariate.name}`, [covariate.name, "share", "se", "documents"], rows, covariate.ordered) : el("p", {}, "No document has a value."),
    el("p", { class: "quiet small" }, notes.join(" ")));
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
