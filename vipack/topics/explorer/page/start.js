// Draw everything once, then follow the reader.
const corpus = data.corpus;
$("facts").textContent = [many(topics.length, "topic"), many(corpus.documents, "document"), many(corpus.words, "word"), many(corpus.tokens, "token")].join(" · ");
$("source").textContent = `Corpus: ${[corpus.source, corpus.licence].filter(Boolean).join("; ")}. Drawn by vipack.`;

drawMap();
drawList();
setUpCovariates();
setUpSearch();

$("sort").addEventListener("change", (event) => change({ sort: event.target.value }));
$("lambda").addEventListener("input", (event) => change({ lambda: Number(event.target.value) }));
for (const choice of document.querySelectorAll("input[name=order]")) choice.addEventListener("change", () => change({ order: choice.value }));
$("previous").addEventListener("click", () => step(-1));
$("next").addEventListener("click", () => step(1));
$("map-reset").addEventListener("click", () => change({ word: null, document: null }, "The map shows the whole corpus"));
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("main").focus();
});
addEventListener("hashchange", () => {
  const [patch, problem] = readAddress();
  change({ word: null, document: null, ...patch });
  notice(problem);
  showAsked(patch);
});
addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.target.matches("input, select")) {
    event.preventDefault();
    $("search").focus();
  }
});

function showAsked(patch) {
  if ("word" in patch) showInView("word");
  else if ("document" in patch) showInView("document");
}

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

const [asked, problem] = readAddress();
Object.assign(state, asked);
for (const paint of painters) paint(new Set(Object.keys(state)));
notice(problem);
showAsked(asked);
