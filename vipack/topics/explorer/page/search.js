// Search: words by their beginning, then by any of their letters; documents by their title.
const MOST_HITS = 8;
const folded = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
const searched = { words: data.words.text.map(folded), titles: data.documents.titles.map(folded) };

function matches(texts, query, weight) {
  const hits = [];
  texts.forEach((text, i) => {
    const at = text.indexOf(query);
    if (at >= 0) hits.push([text === query ? 0 : at === 0 ? 1 : 2, -weight[i], i]);
  });
  return hits.sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2]).map((hit) => hit[2]);
}

function search(query) {
  const words = matches(searched.words, query, data.words.counts);
  const documents = matches(searched.titles, query, data.documents.lengths);
  return { words, documents };
}

function hideHits() {
  $("hits").hidden = true;
  $("hits").replaceChildren();
}

function showHits() {
  const query = folded($("search").value.trim());
  if (!query) return hideHits();
  const { words, documents } = search(query);
  const hit = (open, i, ...content) => el("li", {}, el("button", { type: "button", class: "hit", onclick: () => { hideHits(); open(i); } }, ...content));
  const group = (title, count, list) => (count ? [el("p", { class: "kicker" }, `${title} (${whole(count)})`), el("ul", { class: "plain" }, ...list)] : []);
  const content = [
    ...group("words", words.length, words.slice(0, MOST_HITS).map((i) =>
      hit(openWord, i, el("span", { class: "text" }, data.words.text[i]), el("span", { class: "quiet figure" }, whole(data.words.counts[i]))))),
    ...group("documents", documents.length, documents.slice(0, MOST_HITS).map((d) =>
      hit(openDocument, d, el("span", { class: "text" }, data.documents.titles[d])))),
  ];
  if (!content.length) content.push(el("p", { class: "quiet" }, `“${$("search").value.trim()}” is in no word or title on this page.`));
  $("hits").replaceChildren(...content);
  $("hits").hidden = false;
  $("status").textContent = words.length + documents.length ? `${many(words.length, "word")}, ${many(documents.length, "document")} found` : "Nothing found";
}

function setUpSearch() {
  const form = $("search-form");
  $("search").addEventListener("input", showHits);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    showHits();
    $("hits").querySelector("button")?.click();
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      hideHits();
      $("search").focus();
    }
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    const stops = [$("search"), ...$("hits").querySelectorAll("button")];
    const next = stops[stops.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1)];
    event.preventDefault();
    next?.focus();
  });
  form.addEventListener("focusout", (event) => {
    if (event.relatedTarget && !form.contains(event.relatedTarget)) hideHits();
  });
  document.addEventListener("click", (event) => {
    if (!form.contains(event.target)) hideHits();
  });
}
