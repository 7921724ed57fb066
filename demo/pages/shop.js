// The page of the simulated shop: it chooses a product and a member, presses the shop's buttons, and shows what follows.
//
//   button ──POST /demo/…──▶ position        <kindred-list> ──kindred:list──▶ first list that reaches the position, and has moved
//                                                                            where this click moves it = latency
//
// The widget on it is used as any customer would use it; all that this page knows of Kindred comes from the widget's DOM events. Whoever
// signed in shops as oneself, by the access token, beside the simulated members.

import * as api from "/demo/members/api.js";

const $ = (id) => document.getElementById(id);
const RATES = [0, 1, 2, 5, 10, 20, 50, 100, 200];
const LIMIT = 8;
const TICKS_SHOWN = 24;
const LIST_WAIT_MS = 2_500; // a list that has not moved by then does not move: rows show at once, bare scores within a second
const ME = "/v1/members/me";
const POINTS_EVERY_MS = 4_000;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

const shop = await get("/demo/shop.json");
const { items } = await get("/demo/catalog.json");
const shelves = Map.groupBy(items, (product) => product.category.join("/")); // one of each shelf, then the next of each
items.sort((a, b) => place(a) - place(b));
const catalog = new Map(items.map((product) => [product.item, product]));
const list = $("list");
let product = null;
let member = null;
let department = null;
let orders = [];
let shown = null; // the last list: { body, position, at }
let recent = []; // lists that arrived lately, for answers that come after them
let waiting = null; // the action whose effect is awaited
const measured = [];
const STEPS = ["view", "buy", "refund", "forget"]; // the buttons, in the order of the guide

async function get(path) {
  const answer = await fetch(path, { cache: "no-cache" });
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).detail ?? `${path} answered ${answer.status}`);
  return answer.json();
}

/** Presses a button of the shop, as the member who is chosen: a person by the access token, a simulated one by name. */
async function actAs(path, body) {
  return member.self ? api.own("POST", path, body) : post(path, { member: member.member, ...body });
}

async function post(path, body) {
  const answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  const reply = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(reply.detail ?? `${path} answered ${answer.status}`);
  return reply;
}

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name === "onclick") made.addEventListener("click", value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function money({ amount_minor, currency }) {
  const format = new Intl.NumberFormat(navigator.languages, { style: "currency", currency });
  return format.format(amount_minor / 10 ** format.resolvedOptions().maximumFractionDigits);
}

function place(product) {
  return shelves.get(product.category.join("/")).indexOf(product);
}

const title = (item) => catalog.get(item)?.title ?? "a product for members";
const COUNTS = new Set(["paid", "shipped", "completed"]);
const firstName = () => member?.name.split(" ")[0] ?? "The member";

// Positions. To a customer they are opaque; this page is served by the one that made them, so it may read them.

function offsets(position) {
  const parts = !position || position === "0" ? [] : position.split("-");
  return new Map(parts.map((part) => { const [partition, next] = part.split("."); return [partition, Number(next)]; }));
}

function reaches(position, wanted) {
  const have = offsets(position);
  return [...offsets(wanted)].every(([partition, next]) => (have.get(partition) ?? 0) >= next);
}

// Products

function renderGrid() {
  const query = $("search").value.trim().toLowerCase();
  const words = query.split(/\s+/).filter(Boolean);
  const found = items.filter((candidate) => {
    if (department && candidate.category[0] !== department) return false;
    const text = `${candidate.title} ${candidate.category.join(" ")} ${candidate.tags.join(" ")}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
  const cards = found.map((candidate, n) => element("li", null, element("button", {
    type: "button", tabindex: n ? "-1" : null, "aria-current": candidate === product ? "true" : null, "data-item": candidate.item, onclick: () => show(candidate.item),
  }, element("img", { src: candidate.image, alt: "", loading: "lazy", width: 120, height: 120 }),
  element("span", null, candidate.title), element("small", null, money(candidate.price)))));
  $("grid").replaceChildren(...(cards.length ? cards : [element("li", { class: "none" }, "Nothing of that name is sold here.")]));
}

// Two hundred products are one stop of the Tab key; arrow keys walk among them.
$("grid").addEventListener("keydown", (event) => {
  const cards = [...$("grid").querySelectorAll("button")];
  const at = cards.indexOf(document.activeElement);
  if (at < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
  const next = cards.findIndex((card) => card.offsetTop > cards[0].offsetTop);
  const columns = next < 0 ? cards.length : next;
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -at, End: cards.length - 1 - at };
  const to = cards[at + steps[event.key]];
  if (!to) return;
  event.preventDefault();
  to.focus();
});
$("grid").addEventListener("focusin", ({ target }) => {
  for (const card of $("grid").querySelectorAll("[tabindex='0'], button:not([tabindex])")) card.setAttribute("tabindex", "-1");
  target.setAttribute("tabindex", "0");
});

function renderDepartments() {
  const names = [...new Set(items.map((candidate) => candidate.category[0]))];
  const chip = (name, text) => element("button", {
    type: "button", "aria-pressed": String(department === name), onclick: () => { department = name; renderDepartments(); renderGrid(); },
  }, text);
  $("departments").replaceChildren(chip(null, "All"), ...names.map((name) => chip(name, name)));
}

/** Shows a product. The promise holds when its list is there, or nothing came for a while. */
function show(item, { push = true } = {}) {
  if (product?.item === item || !catalog.has(item)) return Promise.resolve();
  product = catalog.get(item);
  waiting = null;
  markButtons();
  if (push) history.pushState(null, "", `/?item=${encodeURIComponent(item)}`);
  $("picture").src = product.image;
  $("path").textContent = product.category.join(" › ");
  $("title").textContent = product.title;
  $("price").textContent = money(product.price);
  $("description").textContent = product.description;
  $("tags").replaceChildren(...product.tags.map((tag) => element("span", null, tag)));
  document.title = `${product.title} · Larch & Lantern`;
  for (const card of $("grid").querySelectorAll("button")) {
    if (card.dataset.item === item) card.setAttribute("aria-current", "true"); else card.removeAttribute("aria-current");
  }
  shown = null;
  recent = [];
  $("no-list").hidden = true;
  list.setAttribute("item", item);
  $("snippet").textContent = `<script async src="${location.origin}/widget.js"></script>\n<kindred-list item="${item}"\n              public-key="${shop.key}"></kindred-list>`;
  tell(["Press ", bold("Buy"), " and watch the list below."]);
  return new Promise((done) => {
    const timer = setTimeout(done, LIST_WAIT_MS);
    list.addEventListener("kindred:list", () => { clearTimeout(timer); done(); }, { once: true });
  });
}

// The list, and what an action did to it

list.addEventListener("kindred:list", ({ detail }) => {
  if (detail.body.item !== product?.item) return;
  const at = performance.now();
  const before = shown?.body ?? null;
  shown = { body: detail.body, position: detail.position, at, source: detail.source, before };
  recent = [...recent.filter((entry) => at - entry.at < LIST_WAIT_MS), shown];
  $("no-list").hidden = detail.body.items.length > 0;
  settle();
});

list.addEventListener("kindred:click", (event) => {
  event.preventDefault(); // stay in the page: the stream on the right goes on
  show(event.detail.entry.item);
  scrollTo({ top: 0, behavior: calm.matches ? "auto" : "smooth" });
});

/** What differs between two bodies, by item. What only fills a short list is popular, not bought together: it does not count. */
function difference(before, after) {
  const pairs = (body) => (body?.items ?? []).filter((entry) => entry.co_count);
  const places = (body) => new Map(pairs(body).map((entry, n) => [entry.item, { rank: n + 1, count: entry.co_count, title: entry.title }]));
  const [old, now] = [places(before), places(after)];
  const changes = [];
  for (const [item, { rank, count, title }] of now) {
    const was = old.get(item);
    if (!was || was.count !== count) changes.push({ item, title, from: was?.count ?? null, to: count, rankFrom: was?.rank ?? null, rank });
  }
  for (const [item, { rank, count, title }] of old) {
    if (!now.has(item)) changes.push({ item, title, from: count, to: null, rankFrom: rank, rank: null });
  }
  return changes;
}

/**
 * Ends the wait when a list has come that reaches the action's position and has moved where this action moves it. Others buy meanwhile, so
 * what else has changed is neither measured nor shown.
 */
function settle() {
  if (!waiting?.position) return;
  const { before, position, from, word, moves } = waiting;
  const caused = (body) => difference(before, body).filter(({ item }) => moves.has(item));
  const hit = recent.find((entry) => entry.at >= from && reaches(entry.position, position) && caused(entry.body).length);
  if (!hit) return;
  clearTimeout(waiting.timer);
  waiting = null;
  const ms = hit.at - from;
  // A list that came by GET (where no stream gets through) says nothing about how fast the stream is.
  const streamed = hit.source === "stream";
  if (streamed) measure(ms);
  const changes = caused(hit.body);
  const entry = ({ title: name, item, from: old, to, rankFrom, rank }) => {
    const up = to !== null && (old === null || to > old);
    const count = to === null ? "leaves" : old === null ? `enters with ${to}` : `${old} → ${to} buyers`;
    const place = rank !== null && rankFrom !== null && rank !== rankFrom ? `, place ${rankFrom} → ${rank}` : "";
    return element("li", null, `${name ?? title(item)}: `, element("i", { class: up ? null : "down" }, count + place));
  };
  tell(streamed ? [bold(`${figure(ms)} ms`), ` after the click ${word}`] : [`By the next look ${word}`], "moved", changes.slice(0, 8).map(entry));
}

function still() {
  if (!waiting) return;
  const { why } = waiting;
  waiting = null;
  const more = member && element("button", { type: "button", onclick: suggest }, `Show something that would move for ${firstName()}`);
  tell([`This list did not move. ${why} `, more]);
}

/** Shows a product that the member lacks and whose list holds what the member owns: buying it moves that list. */
async function suggest() {
  const mine = owned();
  const similar = (item, limit) => get(`/v1/items/${encodeURIComponent(item)}/similar?limit=${limit}&key=${encodeURIComponent(shop.key)}`)
    .then((body) => body.items.filter((entry) => entry.co_count && catalog.has(entry.item)), () => []);
  const lists = await Promise.all([...mine].slice(0, 6).map((item) => similar(item, 12)));
  const votes = new Map();
  for (const { item, co_count: weight } of lists.flat()) if (!mine.has(item)) votes.set(item, (votes.get(item) ?? 0) + weight);
  const candidates = [...votes].sort((a, b) => b[1] - a[1]).slice(0, 12).map(([item]) => item);
  const moved = await Promise.all(candidates.map(async (item) => (await similar(item, LIMIT)).filter((entry) => mine.has(entry.item)).length));
  const best = candidates[moved.indexOf(Math.max(...moved))] ?? (product ? null : items[0].item);
  if (best) await show(best);
}

/** Brings the list on the screen and up to date: off it the widget rests, and there would be nothing to compare with. */
async function watchList() {
  const { top, bottom } = list.getBoundingClientRect();
  if (shown && (list.matches(":state(empty)") || (top < innerHeight - 120 && bottom > 120))) return;
  const arrives = new Promise((done) => {
    setTimeout(done, LIST_WAIT_MS);
    list.addEventListener("kindred:list", done, { once: true });
  });
  $("effect").scrollIntoView({ block: "start" });
  await arrives;
}

/** Switches the buttons of actions off and on. They stay where the keyboard is: a disabled one would lose the focus. */
function setBusy(busy) {
  for (const name of STEPS) $(name).toggleAttribute("data-busy", busy);
  markButtons();
}

/** Runs an action and awaits its effect on the list. `moves` are the items whose places in the shown list it can change. */
async function act(step, request, { word, why, moves = new Set() }) {
  setBusy(true);
  if (word) await watchList();
  clearTimeout(waiting?.timer);
  const action = { before: shown?.body ?? null, from: performance.now(), position: null, word, why, moves };
  waiting = word && moves.size ? action : null;
  if (word) tell(["Sent. Waiting for the list …"]);
  try {
    const reply = await request();
    action.position = reply.position ?? null;
    if (waiting === action) {
      action.timer = setTimeout(still, LIST_WAIT_MS);
      settle();
    } else if (word) { waiting = action; still(); }
    advance(step);
    refreshMember();
    return reply;
  } catch (error) {
    waiting = null;
    tell(["It was not done: "], "failed", [element("li", null, error.message)]);
    return null;
  } finally {
    setBusy(false);
    renderOrders();
  }
}

/** Says what happened: a line of texts and elements, and rows beneath it. */
function tell(line, state = "", rows = []) {
  $("effect").className = `effect ${state}`;
  $("effect").replaceChildren(element("p", null, ...line), ...(rows.length ? [element("ul", null, ...rows)] : []));
}

const bold = (text) => element("b", null, text);

/** What the member has bought and not brought back; by all orders, or without one of them. */
function owned(without = null) {
  const counting = orders.filter((order) => order !== without && COUNTS.has(order.status));
  return new Set(counting.flatMap((order) => order.lines.filter(({ net_quantity: net }) => net !== 0).map(({ item }) => item)));
}

/** The list of the shown product moves by the member's part in it: all else that the member owns, if the product is among it. */
const partIn = (mine) => (mine.has(product.item) ? new Set([...mine].filter((item) => item !== product.item)) : new Set());

/** Has a button do something, unless it is switched off. */
const onPress = (name, work) => $(name).addEventListener("click", () => { if ($(name).getAttribute("aria-disabled") !== "true") work(); });

onPress("view", () => act("view", () => actAs("/demo/view", { item: product.item }), { word: null })
  .then((reply) => reply && tell(["The view is in the log and in the member’s history. This list counts purchases, so it stays as it is."])));

onPress("buy", () => {
  const mine = owned();
  const again = mine.has(product.item);
  const why = again ? `${firstName()} had bought it before, and each buyer counts once.`
    : `What ${firstName()} owns is below the places shown, or there is nothing yet to pair it with.`;
  const moves = again ? new Set() : mine;
  return act("buy", () => actAs("/demo/buy", { item: product.item, quantity: 1 }), { word: "the list had moved:", why, moves });
});

onPress("refund", async () => {
  const order = refundable();
  if (!order) return;
  const [before, after] = [owned(), owned(order)];
  const gone = order.lines.find(({ item }) => catalog.has(item) && !after.has(item))?.item;
  const place = gone ?? order.lines.find(({ item }) => catalog.has(item))?.item;
  if (place) await show(place); // where the effect can be seen
  const moves = gone ? partIn(before) : new Set();
  const refund = { order: order.order };
  await act("refund", () => (member.self ? api.own("POST", "/demo/refund", refund) : post("/demo/refund", refund)),
    { word: "it was taken back:", why: "The member still owns it by another order, or its pairs are below the places shown.", moves });
});

onPress("forget", () => {
  // A person closes the account, for which a password is asked.
  if (member.self) return location.assign("/account#close-account");
  $("confirm-title").textContent = `Forget ${member.name}?`;
  $("confirm").returnValue = "no";
  $("confirm").showModal();
});
$("confirm").addEventListener("close", async () => {
  if ($("confirm").returnValue !== "yes") return;
  const gone = member;
  const reply = await act("forget", () => post("/demo/forget", { member: gone.member }),
    { word: "the member had left this list:", why: "The member had no part in the places shown. The member has left every other list, too.", moves: partIn(owned()) });
  if (!reply) return;
  shop.members = shop.members.filter((candidate) => candidate !== gone);
  choose(shop.members[0] ?? null);
});


const refundable = () => orders.find((order) => COUNTS.has(order.status)) ?? null;

// The guide

function advance(step) {
  for (const button of document.querySelectorAll(".guide button")) {
    if (button.dataset.step === step) button.classList.add("done");
    const next = STEPS[STEPS.indexOf(step) + 1] ?? null;
    if (button.dataset.step === next) button.setAttribute("aria-current", "step"); else button.removeAttribute("aria-current");
  }
}
for (const button of document.querySelectorAll(".guide button")) {
  button.addEventListener("click", () => {
    $(button.dataset.step).click();
    if (button.dataset.step === "forget") return; // its question has the focus
    $(button.dataset.step).focus(); // where the same can be done again, beside what it did
  });
}
document.querySelector(".guide button").setAttribute("aria-current", "step");

// The meter

const figure = (value) => (value < 10 ? value.toFixed(1) : Math.round(value).toString());

function measure(ms) {
  measured.push(ms);
  if (measured.length > 40) measured.shift();
  const sorted = [...measured].sort((a, b) => a - b);
  $("last").textContent = figure(ms);
  $("median").textContent = figure(sorted[Math.floor((sorted.length - 1) / 2)]);
  const top = Math.max(20, ...measured);
  const step = 120 / Math.max(1, measured.length - 1);
  const points = measured.map((value, n) => `${(n * step).toFixed(1)},${(38 - 34 * (value / top)).toFixed(1)}`);
  if (points.length === 1) points.push(`120,${points[0].split(",")[1]}`);
  const draw = (part, d) => {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("class", part);
    path.setAttribute("d", d);
    return path;
  };
  $("spark").replaceChildren(draw("area", `M0,40L${points.join("L")}L120,40Z`), draw("line", `M${points.join("L")}`));
}

// The member

function choose(next) {
  member = next;
  orders = [];
  const options = shop.members.map((candidate) => element("option", { value: candidate.member, selected: candidate === member },
    candidate.self ? `${candidate.name} (you)` : candidate.tier === "normal" ? candidate.name : `${candidate.name} · ${candidate.tier.toUpperCase()}`));
  $("member").replaceChildren(...options);
  $("avatar").textContent = member ? member.name.split(" ").map((word) => word[0]).join("").slice(0, 2) : "–";
  for (const figure of ["available", "pending"]) { $(figure).textContent = "–"; delete $(figure).dataset.value; }
  $("remembered").replaceChildren();
  renderOrders();
  return refreshMember();
}

$("member").addEventListener("change", async () => {
  await choose(shop.members.find((candidate) => candidate.member === $("member").value));
  await suggest();
});

let refreshing = false;
async function refreshMember() {
  if (!member || refreshing || document.hidden) return;
  refreshing = true;
  const who = member;
  const own = (what) => api.own("GET", `${ME}/${what}`).then((body) => (what === "orders" ? { orders: body.items } : body));
  const of = (what) => (who.self ? own(what) : get(`/demo/${what}/${encodeURIComponent(who.member)}`)).catch(() => null);
  const [points, book, history] = await Promise.all([of("points"), of("orders"), of("history")]);
  refreshing = false;
  if (who !== member) return refreshMember();
  if (points) { count($("available"), points.available); count($("pending"), points.pending); }
  if (book) { orders = book.orders; renderOrders(); }
  const latest = history?.items?.reduce((best, entry) => (!best || entry.at > best.at ? entry : best), null);
  $("remembered").replaceChildren(...(latest ? ["Last in the history: ", pill(latest.kind), ` ${title(latest.item)}`] : []));
}

/** Counts a figure up or down to its new value. */
function count(figure, value) {
  const from = Number(figure.dataset.value ?? value);
  figure.dataset.value = value;
  const write = (number) => { figure.textContent = new Intl.NumberFormat(navigator.languages).format(Math.round(number)); };
  if (from === value || calm.matches) return write(value);
  figure.parentElement.classList.add("changed");
  setTimeout(() => figure.parentElement.classList.remove("changed"), 1_600);
  const begun = performance.now();
  const step = (time) => {
    if (Number(figure.dataset.value) !== value) return; // a newer value is on its way
    const share = Math.min(1, (time - begun) / 600);
    write(from + (value - from) * (1 - (1 - share) ** 3));
    if (share < 1) requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
}

const BACK = new Set(["refunded", "returned", "cancelled", "erased"]);
const BOUGHT = new Set(["placed", "paid", "shipped", "completed", "purchase"]);
const pill = (kind) => element("span", { class: `pill ${BACK.has(kind) ? "back" : BOUGHT.has(kind) ? "buy" : kind === "cart" || kind === "click" ? "warm" : ""}` }, kind);

function renderOrders() {
  const row = (order) => {
    const kind = (order.refunds?.length || order.refunded_minor) && order.status !== "refunded" ? "returned" : order.status;
    const more = order.lines.length > 1 ? ` + ${order.lines.length - 1}` : "";
    return element("li", null, element("button", { type: "button", class: "what", onclick: () => show(order.lines[0].item) }, title(order.lines[0].item) + more), pill(kind));
  };
  $("orders").replaceChildren(...orders.slice(0, 5).map(row));
  const last = refundable();
  $("refund").title = last ? `Takes back ${title(last.lines[0].item)}` : "There is nothing to take back";
  $("forget").textContent = member?.self ? "Close my account" : "Forget me";
  markButtons();
}

function markButtons() {
  for (const name of STEPS) {
    $(name).disabled = !member || !product;
    const off = $(name).hasAttribute("data-busy") || (name === "refund" && !refundable());
    if (off) $(name).setAttribute("aria-disabled", "true"); else $(name).removeAttribute("aria-disabled");
  }
}

setInterval(refreshMember, POINTS_EVERY_MS);

// The event stream

let arrived = [];
let times = [];
let refreshSoon = 0;
let stream = null;

function openStream() {
  if (stream) return;
  stream = new EventSource("/demo/stream");
  $("elsewhere").hidden = true;
  stream.addEventListener("tick", (event) => {
    const tick = JSON.parse(event.data);
    times.push(performance.now());
    arrived.push(tick);
    if (member && tick.member === member.member && !refreshSoon) {
      refreshSoon = setTimeout(() => { refreshSoon = 0; refreshMember(); }, 150);
    }
  });
}

function closeStream() {
  stream?.close();
  stream = null;
}

/**
 * One window of the browser shows the stream, and none that nobody sees: under HTTP/1.1 all windows together have six connections to the
 * server. The next window takes over when this one is hidden or closed.
 */
let showing = null;
function followStream() {
  if (document.hidden || showing) return;
  const released = new Promise((release) => { showing = release; });
  const begin = () => { openStream(); return released.then(closeStream); };
  if (!navigator.locks) return void begin();
  $("elsewhere").hidden = false;
  navigator.locks.request("kindred-demo-stream", begin);
}
document.addEventListener("visibilitychange", () => {
  if (document.hidden) { showing?.(); showing = null; } else { followStream(); refreshMember(); }
});
followStream();

// People read a few lines a second; what comes faster is drawn in one go.
setInterval(() => {
  const now = performance.now();
  times = times.filter((time) => now - time < 3_000);
  $("rate").textContent = `${(times.length / 3).toFixed(times.length < 30 ? 1 : 0)} / s`;
  if (!arrived.length) return;
  const rows = arrived.splice(0).slice(-TICKS_SHOWN).reverse().map((tick) => {
    const text = tick.item && catalog.has(tick.item) ? element("button", { type: "button", tabindex: "-1", onclick: () => show(tick.item) }, tick.text) : element("span", null, tick.text);
    return element("li", { class: member && tick.member === member.member ? "own" : null }, pill(tick.kind), text);
  });
  $("ticks").prepend(...rows);
  while ($("ticks").children.length > TICKS_SHOWN) $("ticks").lastElementChild.remove();
}, 180);

// The speed

function renderRate(rate) {
  $("speed-text").textContent = rate ? `${rate} / s` : "paused";
  $("speed").setAttribute("aria-valuetext", rate ? `${rate} events a second` : "paused");
}
$("speed").addEventListener("input", () => renderRate(RATES[$("speed").value]));
$("speed").addEventListener("change", async () => {
  const reply = await post("/demo/speed", { rate: RATES[$("speed").value] }).catch((error) => { tell(["It was not done: "], "failed", [element("li", null, error.message)]); });
  if (reply) renderRate(reply.rate);
});

// The links to the account: whether somebody is signed in is a hint that the pages of members leave.

/** Whoever signed in, as a member of this page; null for everybody else. */
async function person() {
  if (!api.hinted() || !(await api.begin())) return null;
  const { member: id, username: name, tier } = await api.own("GET", ME);
  return { member: id, name, tier, self: true };
}

const self = await person().catch(() => null);
if (self) shop.members.unshift(self);
for (const link of document.querySelectorAll("[data-when]")) link.hidden = (link.dataset.when === "in") !== api.hinted();

// Begin

const nearest = RATES.reduce((best, rate, n) => (Math.abs(rate - shop.rate) < Math.abs(RATES[best] - shop.rate) ? n : best), 0);
$("speed").value = nearest;
renderRate(shop.rate);
list.setAttribute("limit", LIMIT);
list.publicKey = shop.key;
$("search").addEventListener("input", renderGrid);
addEventListener("popstate", () => show(new URLSearchParams(location.search).get("item") ?? items[0].item, { push: false }));
renderDepartments();
renderGrid();
await choose(shop.members[0] ?? null);
const asked = new URLSearchParams(location.search).get("item");
if (catalog.has(asked)) show(asked, { push: false });
else {
  await suggest();
  if (asked) tell([`There is no product “${asked.slice(0, 60)}” here. This is another one.`]);
}
