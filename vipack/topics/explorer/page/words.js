// Words of the open topic in an order of choice, and the topics of a word.
function rankedWords() {
  const topic = topics[state.topic];
  const rows = topic.words.map((word, i) => ({ word, log: topic.logs[i], tokens: topic.tokens[i] }));
  if (state.order === "frex") {
    const byWord = new Map(rows.map((row) => [row.word, row]));
    return topic.frex.map((word) => byWord.get(word));
  }
  for (const row of rows) {
    const lift = row.log - Math.log(data.words.counts[row.word] / data.corpus.tokens);
    row.score = state.lambda * row.log + (1 - state.lambda) * lift;
  }
  return rows.sort((a, b) => b.score - a.score).slice(0, data.shown);
}

function drawWords() {
  const rows = rankedWords();
  const largest = Math.max(1, ...rows.map((row) => data.words.counts[row.word]));
  const line = (row) => {
    const text = data.words.text[row.word], count = data.words.counts[row.word];
    return el("tr", { "data-word": row.word },
      el("th", { scope: "row" }, el("button", { type: "button", class: "word", onclick: () => openWord(row.word) }, text)),
      el("td", { class: "bar", "aria-hidden": "true" },
        el("span", { class: "overall", style: { width: `${(100 * count) / largest}%` } }),
        el("span", { class: "within", style: { width: `${(100 * row.tokens) / largest}%` } })),
      el("td", { class: "figure" }, whole(row.tokens)),
      el("td", { class: "figure quiet" }, whole(count)));
  };
  $("words").replaceChildren(el("table", { class: "words" },
    el("caption", { class: "hidden" }, `Words of ${label(state.topic)}, ${state.order === "frex" ? "by FREX" : `by relevance at λ = ${state.lambda}`}`),
    el("thead", {}, el("tr", {},
      el("th", { scope: "col" }, "Word"),
      el("td", { "aria-hidden": "true", class: "legend" },
        el("span", { class: "key within" }), "this topic ", el("span", { class: "key overall" }), "all topics"),
      el("th", { scope: "col", class: "figure" }, "here"),
      el("th", { scope: "col", class: "figure" }, "all"))),
    el("tbody", {}, ...rows.map(line))));
}

let openerOf = {}; // where focus returns when a card is closed

function showCard(id, title, close, ...content) {
  const card = $(`${id}-card`);
  card.hidden = false;
  card.replaceChildren(
    el("div", { class: "row" },
      el("p", { class: "kicker" }, id),
      el("button", { type: "button", class: "close", "aria-label": `Close the ${id}`, onclick: close }, "×")),
    el("h3", { id: `${id}-heading`, tabindex: -1 }, title), ...content);
}

function focusCard(id) {
  if (!$(`${id}-card`).contains(document.activeElement)) openerOf[id] = document.activeElement;
  $(`${id}-heading`).focus({ preventScroll: true });
  showInView(id);
}

function showInView(id) {
  const box = $(`${id}-card`).getBoundingClientRect();
  if (box.top < 0 || box.top > innerHeight / 2) $(`${id}-card`).scrollIntoView();
}

function closeCard(id) {
  change({ [id]: null }, `Closed the ${id}`);
  const opener = openerOf[id];
  (opener && opener.isConnected && opener !== document.body ? opener : $("topic-heading")).focus();
}

/** A table of topics with the share of each as a bar. */
function shareTable(caption, rows, rest, digits = 1) {
  const largest = Math.max(...rows.map(([, share]) => share), 0.01);
  return el("table", { class: "shares" }, el("caption", { class: "hidden" }, caption),
    el("tbody", {}, ...rows.map(([k, share]) => el("tr", { style: { "--topic": colour(k) } },
      el("th", { scope: "row" }, topicButton(k)),
      el("td", { class: "bar", "aria-hidden": "true" }, el("span", { class: "within", style: { width: `${(100 * share) / largest}%` } })),
      el("td", { class: "figure" }, percent(share, share < 0.1 ? digits : 0)))),
      rest > 0.005 ? el("tr", { class: "quiet" }, el("th", { scope: "row" }, "other topics"), el("td"), el("td", { class: "figure" }, percent(rest, 0))) : null));
}

function openWord(i) {
  const [first] = pairs(data.words.topics[i]);
  change({ word: i }, `Opened the word ${data.words.text[i]}${first ? `: ${first[1]}% of its tokens in ${label(first[0])}` : ""}`);
  focusCard("word");
}

painters.push((changed) => {
  if (["topic", "lambda", "order"].some((key) => changed.has(key))) {
    drawWords();
    $("lambda").value = state.lambda;
    $("lambda-value").textContent = state.lambda.toFixed(2);
    $("lambda").disabled = state.order === "frex";
    document.querySelector(`input[name=order][value=${state.order}]`).checked = true;
  }
  for (const row of document.querySelectorAll("#words [data-word]")) row.classList.toggle("chosen", Number(row.dataset.word) === state.word);
  if (!changed.has("word")) return;
  $("word-card").hidden = state.word === null;
  if (state.word === null) return;
  const i = state.word, rows = pairs(data.words.topics[i]).map(([k, share]) => [k, share / 100]);
  showCard("word", data.words.text[i], () => closeCard("word"),
    el("p", { class: "quiet small" }, `${many(data.words.counts[i], "token")} in ${many(data.words.documents[i], "document")}; topics that use it:`),
    shareTable("Topics of this word", rows, 1 - rows.reduce((sum, [, share]) => sum + share, 0), 0));
});
