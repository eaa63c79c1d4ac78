// The list of topics, and the head of the one that is open.
const items = [];

function drawList() {
  const order = state.sort === "share" ? bySize : topics.map((_, k) => k);
  const largest = topics[bySize[0]].share || 1;
  $("topics").replaceChildren(...order.map((k) => {
    items[k] ??= el("li", {}, el("button", { type: "button", class: "topic-button", style: { "--topic": colour(k) }, onclick: () => openTopic(k) },
      el("span", { class: "number" }, String(k)),
      el("span", { class: "name" }, topics[k].name),
      el("span", { class: "share" }, percent(topics[k].share)),
      el("span", { class: "meter", "aria-hidden": "true" }, el("span", { style: { width: `${(100 * topics[k].share) / largest}%` } }))));
    return items[k];
  }));
}

function openTopic(k, focus = false) {
  change({ topic: k }, `Opened ${label(k)}, ${percent(topics[k].share)} of all tokens`);
  if (focus) $("topic-heading").focus({ preventScroll: true });
  if (innerWidth < 800) $("main").scrollIntoView();
}

/** A button that opens a topic from elsewhere on the page. */
function topicButton(k, text = `${k} · ${topics[k].name}`) {
  return el("button", { type: "button", class: "link", onclick: () => openTopic(k, true) },
    el("span", { class: "swatch", style: { "--topic": colour(k) } }), el("span", { class: "text" }, text));
}

function step(by) {
  const order = state.sort === "share" ? bySize : topics.map((_, k) => k);
  openTopic(order[(order.indexOf(state.topic) + by + order.length) % order.length]);
}

painters.push((changed) => {
  if (changed.has("sort")) drawList();
  if (!changed.has("topic")) return;
  const k = state.topic, topic = topics[k];
  items.forEach((item, j) => {
    if (j === k) item.firstChild.setAttribute("aria-current", "true");
    else item.firstChild.removeAttribute("aria-current");
  });
  // Within its own list only: the page stays where it is.
  const list = $("topics"), top = items[k].offsetTop;
  if (top < list.scrollTop || top + items[k].offsetHeight > list.scrollTop + list.clientHeight) list.scrollTop = top - list.clientHeight / 3;
  document.documentElement.style.setProperty("--open", colour(k));
  $("topic-number").textContent = `Topic ${k} · ${percent(topic.share)} of all tokens`;
  $("topic-heading").textContent = topic.name;
  $("near").replaceChildren();
  if (topic.near.length) $("near").append("Near topics: ", ...topic.near.map((j) => topicButton(j, topics[j].name)));
  $("best").replaceChildren(...topic.documents.map((d) => {
    const share = (pairs(data.documents.topics[d]).find(([j]) => j === k) ?? [k, 0])[1] / 1000;
    return el("li", {}, documentButton(d, share));
  }));
});
