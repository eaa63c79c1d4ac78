// The data of the page, and what is open on it.
const data = JSON.parse(document.getElementById("data").textContent);
const topics = data.topics;
const bySize = topics.map((_, k) => k).sort((a, b) => topics[b].share - topics[a].share || a - b);
const wordNumbers = new Map(data.words.text.map((word, i) => [word, i]));
const documentNumbers = data.documents.numbers && new Map(data.documents.numbers.map((number, i) => [number, i]));

const state = { topic: bySize[0], lambda: 0.6, order: "relevance", word: null, document: null, covariate: 0, sort: "share" };
const painters = []; // functions (changed keys) -> nothing; each draws what it owns

const $ = (id) => document.getElementById(id);
const whole = (value) => value.toLocaleString("en", { maximumFractionDigits: 0 });
const many = (value, one) => `${whole(value)} ${one}${value === 1 ? "" : "s"}`;
const percent = (value, digits = 1) => `${(100 * value).toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })}%`;
const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(100 * value).toFixed(1);

/** An element; strings become text, never HTML, and properties that start with "on" listeners. */
function el(tag, properties = {}, ...children) {
  const svg = ["svg", "g", "circle", "text", "line", "path", "title", "polyline", "polygon"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, set] of Object.entries(value)) node.style.setProperty(key, set);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

const label = (k) => (topics[k].named ? topics[k].name : `Topic ${k}: ${topics[k].name}`);

/** The colour of a topic: its hue is its direction on the map, paler towards the middle. */
function colour(k) {
  const [x, y] = topics[k].point;
  const far = Math.max(...topics.map((t) => Math.hypot(...t.point))) || 1;
  const hue = (Math.atan2(y, x) * 180) / Math.PI + 250;
  return `oklch(var(--topic-light) ${(0.05 + 0.1 * Math.min(1, (1.6 * Math.hypot(x, y)) / far)).toFixed(3)} ${hue.toFixed(0)})`;
}

const pairs = (flat) => Array.from({ length: flat.length / 2 }, (_, i) => [flat[2 * i], flat[2 * i + 1]]);
const documentNumber = (i) => (data.documents.numbers ? data.documents.numbers[i] : i);

/** Change what is open, draw it, and keep it in the address. */
function change(patch, announcement = "") {
  const changed = Object.keys(patch).filter((key) => state[key] !== patch[key]);
  Object.assign(state, patch);
  for (const paint of painters) paint(new Set(changed));
  writeAddress();
  if (announcement) $("status").textContent = announcement;
}

function writeAddress() {
  const values = { topic: state.topic };
  if (state.order === "frex") values.order = "frex";
  if (state.lambda !== 0.6) values.lambda = state.lambda;
  if (state.word !== null) values.word = data.words.text[state.word];
  if (state.document !== null) values.document = documentNumber(state.document);
  if (state.covariate) values.covariate = data.covariates[state.covariate].name;
  const hash = "#" + Object.entries(values).map(([key, value]) => `${key}=${encodeURIComponent(value)}`).join("&");
  try {
    history.replaceState(null, "", hash);
  } catch {
    // Within a notebook's frame there is no address to keep it in.
  }
}

/** What an address asks for; what it names and the page does not have is said. */
function readAddress() {
  const wanted = {}, unknown = [];
  for (const item of location.hash.slice(1).split("&")) {
    const [key, ...rest] = item.split("=");
    let value = rest.join("=");
    try {
      value = decodeURIComponent(value);
    } catch {
      // A stray percent sign stands for itself.
    }
    wanted[key] = value;
  }
  const patch = {};
  const take = (key, known, value) => {
    if (!(key in wanted)) return;
    if (known) patch[key] = value;
    else unknown.push(`${key} ${wanted[key]}`);
  };
  const topic = wanted.topic === "" ? NaN : Number(wanted.topic);
  take("topic", topics[topic] !== undefined, topic);
  const lambda = Math.round(20 * Number(wanted.lambda)) / 20;
  take("lambda", lambda >= 0 && lambda <= 1, lambda);
  take("order", ["relevance", "frex"].includes(wanted.order), wanted.order);
  take("word", wordNumbers.has(wanted.word), wordNumbers.get(wanted.word));
  const number = wanted.document === "" ? NaN : Number(wanted.document);
  const position = documentNumbers ? documentNumbers.get(number) : number;
  take("document", data.documents.titles[position] !== undefined, position);
  const covariate = data.covariates.findIndex((c) => c.name === wanted.covariate);
  take("covariate", covariate >= 0, covariate);
  return [patch, unknown.length ? `This page does not have: ${unknown.join(", ")}.` : ""];
}
