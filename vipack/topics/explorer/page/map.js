// The map: circles whose area is a share of tokens, of the corpus, of a word or of a document.
const WIDTH = 384, MARGIN = 14, LARGEST = 44;
const centres = [], circles = [];
let mapHeight = 0;

/** Where circles lie: one scale in both directions, so that distances keep their meaning. */
function layOut() {
  const points = topics.map((t) => t.point);
  const span = (i) => Math.max(...points.map((p) => p[i])) - Math.min(...points.map((p) => p[i]));
  const border = MARGIN + radii(topics.map((t) => t.share))[bySize[0]];
  const room = WIDTH - 2 * border;
  const scale = Math.min(room / (span(0) || 1), 300 / (span(1) || 1));
  mapHeight = Math.max(180, Math.round(scale * span(1) + 2 * border));
  const middle = (i) => (Math.max(...points.map((p) => p[i])) + Math.min(...points.map((p) => p[i]))) / 2;
  points.forEach(([x, y], k) => (centres[k] = [WIDTH / 2 + scale * (x - middle(0)), mapHeight / 2 - scale * (y - middle(1))]));
}

/** Radii whose squares are proportional to shares, on the largest scale that has room. */
function radii(shares) {
  const scale = Math.min(105, LARGEST / Math.sqrt(Math.max(...shares, 1e-9)));
  return shares.map((share) => scale * Math.sqrt(share));
}

function drawMap() {
  layOut();
  const map = $("map");
  map.setAttribute("viewBox", `0 0 ${WIDTH} ${mapHeight}`);
  const lines = el("g", { class: "axes" },
    el("line", { x1: 0, x2: WIDTH, y1: mapHeight / 2, y2: mapHeight / 2 }),
    el("line", { x1: WIDTH / 2, x2: WIDTH / 2, y1: 0, y2: mapHeight }));
  const sizes = radii(topics.map((t) => t.share));
  const discs = el("g"), names = el("g", { class: "numbers" });
  for (const k of bySize) {
    const [x, y] = centres[k];
    const outline = el("circle", { cx: x, cy: y, r: sizes[k], class: "outline" });
    const disc = el("circle", { cx: x, cy: y, r: sizes[k], class: "disc", style: { fill: colour(k) } });
    const group = el("g", { class: "topic", "data-topic": k, onclick: () => openTopic(k) },
      el("title", {}, `${label(k)} (${percent(topics[k].share)})`), outline, disc);
    discs.append(group);
    names.append(el("text", { x, y: y + 3.5 }, String(k)));
    circles[k] = { group, disc };
  }
  map.replaceChildren(lines, discs, names, el("g", { class: "names" }));
}

/** Shares that the map shows now, and what they are shares of. */
function shown() {
  if (state.word !== null) {
    const shares = topics.map(() => 0);
    for (const [k, share] of pairs(data.words.topics[state.word])) shares[k] = share / 100;
    return [shares, `Area: share of the tokens of “${data.words.text[state.word]}”. Outlines: sizes in the whole corpus.`];
  }
  if (state.document !== null) {
    const shares = topics.map(() => 0);
    for (const [k, share] of pairs(data.documents.topics[state.document])) shares[k] = share / 1000;
    return [shares, `Area: share of the document “${data.documents.titles[state.document]}”. Outlines: sizes in the whole corpus.`];
  }
  const kept = topics.length > 3 ? ` The plane keeps ${percent(data.fraction, 0)} of the squared distances.` : "";
  return [topics.map((t) => t.share), `Area: share of tokens. Near topics use words alike.${kept}`];
}

/** Names of as many topics as have room, the chosen one first. */
function drawNames(shares, sizes) {
  const boxes = [], group = $("map").querySelector(".names");
  const crosses = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
  const base = radii(topics.map((t) => t.share));
  const ordered = [state.topic, ...topics.map((_, k) => k).sort((a, b) => shares[b] - shares[a])];
  const discs = centres.map(([x, y]) => [x - 7, y - 7, x + 7, y + 7]);
  group.replaceChildren();
  for (const k of new Set(ordered)) {
    if (!shares[k] && k !== state.topic) continue;
    const words = topics[k].name.length > 26 ? `${topics[k].name.slice(0, 25)}…` : topics[k].name;
    const half = 2.9 * words.length, r = Math.max(sizes[k], base[k]);
    const x = Math.min(Math.max(centres[k][0], half + 2), WIDTH - half - 2);
    const around = (y) => [x - half, y - 9, x + half, y + 3];
    const free = (y) => around(y)[1] > 0 && around(y)[3] < mapHeight && ![...boxes, ...discs].some((box) => crosses(box, around(y)));
    const heights = [centres[k][1] + r + 11, centres[k][1] - r - 5];
    const y = heights.find(free) ?? (k === state.topic ? Math.min(heights[0], mapHeight - 3) : null);
    if (y === null) continue;
    boxes.push(around(y));
    group.append(el("text", { x, y, class: k === state.topic ? "chosen" : null }, words));
  }
}

painters.push((changed) => {
  if (!["topic", "word", "document"].some((key) => changed.has(key))) return;
  const [shares, caption] = shown(), sizes = radii(shares);
  circles.forEach(({ group, disc }, k) => {
    disc.setAttribute("r", sizes[k]);
    group.classList.toggle("chosen", k === state.topic);
  });
  drawNames(shares, sizes);
  $("map-caption").textContent = caption;
  $("map-reset").hidden = state.word === null && state.document === null;
});
