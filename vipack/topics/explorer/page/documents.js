// A document: its topics, and its text or most frequent words.
function documentButton(d, share) {
  return el("button", { type: "button", class: "document", onclick: () => openDocument(d) },
    el("span", { class: "text" }, data.documents.titles[d] || "untitled"),
    el("span", { class: "figure" }, percent(share, 0)),
    el("span", { class: "meter", "aria-hidden": "true" }, el("span", { style: { width: `${100 * share}%` } })));
}

function openDocument(d) {
  change({ document: d, word: null }, `Opened the document ${data.documents.titles[d]}`);
  focusCard("document");
}

function excerpt(d) {
  if (data.documents.texts) return el("blockquote", {}, data.documents.texts[d] || "(no text)");
  const words = pairs(data.documents.words[d]);
  if (!words.length) return el("p", { class: "quiet small" }, "None of its words are on this page.");
  return el("div", { class: "small" }, el("p", { class: "quiet" }, "Its most frequent words:"),
    el("ul", { class: "plain chips" }, ...words.map(([i, times]) => el("li", {},
      el("button", { type: "button", class: "chip", onclick: () => openWord(i) }, data.words.text[i], el("span", { class: "quiet" }, ` ${times}`))))));
}

painters.push((changed) => {
  if (!changed.has("document")) return;
  $("document-card").hidden = state.document === null;
  if (state.document === null) return;
  const d = state.document, rows = pairs(data.documents.topics[d]).map(([k, share]) => [k, share / 1000]);
  showCard("document", data.documents.titles[d] || "untitled", () => closeCard("document"),
    el("p", { class: "quiet small" }, `Document ${documentNumber(d)}, ${many(data.documents.lengths[d], "token")}`),
    el("div", { class: "stack", "aria-hidden": "true" }, ...rows.map(([k, share]) =>
      el("span", { title: `${label(k)}: ${percent(share)}`, style: { "--topic": colour(k), width: `${100 * share}%` } }))),
    shareTable("Topics of this document", rows, 1 - rows.reduce((sum, [, share]) => sum + share, 0)),
    excerpt(d));
});
