// The page of the simulated shop: it chooses a product and a member, presses the shop's buttons, and shows what follows.
//
//   button ──POST /demo/…──▶ position        <kindred-list> ──kindred:list──▶ first list that reaches the position = latency
//
// The widget on it is used as any customer would use it; all that this page knows of Kindred comes from the widget's DOM events.

const $ = (id) => document.getElementById(id);
const RATES = [0, 1, 2, 5, 10, 20, 50, 100, 200];
const LIMIT = 8;
const TICKS_SHOWN = 24;
const LIST_WAIT_MS = 2_500; // a list that has not moved by then does not move: rows show at once, bare scores within a second
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

async function get(path) {
  const answer = await fetch(path, { cache: "no-cache" });
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).detail ?? `${path} answered ${answer.status}`);
  return answer.json();
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

const title = (item) => catalog.get(item)?.title ?? item;
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
  const cards = found.map((candidate) => element("li", null, element("button", {
    type: "button", "aria-current": candidate === product ? "true" : null, "data-item": candidate.item, onclick: () => show(candidate.item),
  }, element("img", { src: candidate.image, alt: "", loading: "lazy", width: 120, height: 120 }),
  element("span", null, candidate.title), element("small", null, money(candidate.price)))));
  $("grid").replaceChildren(...(cards.length ? cards : [element("li", { class: "none" }, "Nothing of that name is sold here.")]));
}

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
  $("snippet").textContent = `<script async src="${location.origin}/widget.js"></script>\n<kindred-list item="${item}"\n              key="${shop.key}"></kindred-list>`;
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

/** Ends the wait when a list has come that reaches the action's position and differs from the one before it. */
function settle() {
  if (!waiting?.position) return;
  const { before, position, from, word } = waiting;
  const hit = recent.find((entry) => entry.at >= from && reaches(entry.position, position) && difference(before, entry.body).length);
  if (!hit) return;
  clearTimeout(waiting.timer);
  waiting = null;
  const ms = hit.at - from;
  // A list that came by GET (where no stream gets through) says nothing about how fast the stream is.
  const streamed = hit.source === "stream";
  if (streamed) measure(ms);
  const changes = difference(before, hit.body);
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
  const mine = new Set(orders.filter((order) => COUNTS.has(order.status)).flatMap((order) => order.lines.map((line) => line.item)));
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
  if (shown && (list.hidden || (top < innerHeight - 120 && bottom > 120))) return;
  const arrives = new Promise((done) => {
    setTimeout(done, LIST_WAIT_MS);
    list.addEventListener("kindred:list", done, { once: true });
  });
  $("effect").scrollIntoView({ block: "start" });
  await arrives;
}

/** Runs an action and awaits its effect on the list. */
async function act(step, request, { word, why }) {
  const buttons = [$("view"), $("buy"), $("refund"), $("forget")];
  buttons.forEach((button) => { button.disabled = true; });
  if (word) await watchList();
  const action = { before: shown?.body ?? null, from: performance.now(), position: null, word, why };
  waiting = word ? action : null;
  try {
    const reply = await request();
    action.position = reply.position ?? "0";
    if (word && waiting === action) {
      action.timer = setTimeout(still, LIST_WAIT_MS);
      settle();
    }
    advance(step);
    refreshMember();
    return reply;
  } catch (error) {
    waiting = null;
    tell(["It was not done: "], "failed", [element("li", null, error.message)]);
    return null;
  } finally {
    buttons.forEach((button) => { button.disabled = false; });
    renderOrders();
  }
}

/** Says what happened: a line of texts and elements, and rows beneath it. */
function tell(line, state = "", rows = []) {
  $("effect").className = `effect ${state}`;
  $("effect").replaceChildren(element("p", null, ...line), ...(rows.length ? [element("ul", null, ...rows)] : []));
}

const bold = (text) => element("b", null, text);

const owned = () => orders.some((order) => COUNTS.has(order.status) && order.lines.some((line) => line.item === product.item));

$("view").addEventListener("click", () => act("view", () => post("/demo/view", { member: member.member, item: product.item }), { word: null })
  .then((reply) => reply && tell(["The view is in the log and in the member’s history. This list counts purchases, so it stays as it is."])));

$("buy").addEventListener("click", () => {
  const why = owned() ? `${firstName()} had bought it before, and each buyer counts once.`
    : `What ${firstName()} owns lies below the places shown, or there is nothing yet to pair it with.`;
  return act("buy", () => post("/demo/buy", { member: member.member, item: product.item, quantity: 1 }), { word: "the list had moved:", why });
});

$("refund").addEventListener("click", async () => {
  const order = refundable();
  if (!order) return;
  await show(order.lines[0].item); // where the effect can be seen
  await act("refund", () => post("/demo/refund", { order: order.order }),
    { word: "it was taken back:", why: "The member still owns it by another order, or its pairs lie below the places shown." });
});

$("forget").addEventListener("click", () => {
  $("confirm-title").textContent = `Forget ${member.name}?`;
  $("confirm").returnValue = "no";
  $("confirm").showModal();
});
$("confirm").addEventListener("close", async () => {
  if ($("confirm").returnValue !== "yes") return;
  const gone = member;
  const reply = await act("forget", () => post("/demo/forget", { member: gone.member }),
    { word: "the member had left this list:", why: "The member had no part in the places shown; in every other list it is the same." });
  if (!reply) return;
  shop.members = shop.members.filter((candidate) => candidate !== gone);
  choose(shop.members[0] ?? null);
});


const refundable = () => orders.find((order) => COUNTS.has(order.status)) ?? null;

// The guide

const STEPS = ["view", "buy", "refund", "forget"];
function advance(step) {
  for (const button of document.querySelectorAll(".guide button")) {
    if (button.dataset.step === step) button.classList.add("done");
    const next = STEPS[STEPS.indexOf(step) + 1] ?? null;
    if (button.dataset.step === next) button.setAttribute("aria-current", "step"); else button.removeAttribute("aria-current");
  }
}
for (const button of document.querySelectorAll(".guide button")) button.addEventListener("click", () => $(button.dataset.step).click());
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
    candidate.tier === "normal" ? candidate.name : `${candidate.name} · ${candidate.tier.toUpperCase()}`));
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
  const of = (what) => get(`/demo/${what}/${encodeURIComponent(who.member)}`).catch(() => null);
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
    const kind = order.refunds?.length && order.status !== "refunded" ? "returned" : order.status;
    const more = order.lines.length > 1 ? ` + ${order.lines.length - 1}` : "";
    return element("li", null, element("button", { type: "button", class: "what", onclick: () => show(order.lines[0].item) }, title(order.lines[0].item) + more), pill(kind));
  };
  $("orders").replaceChildren(...orders.slice(0, 5).map(row));
  const last = refundable();
  $("refund").disabled = !last;
  $("refund").title = last ? `Takes back ${title(last.lines[0].item)}` : "There is nothing to take back";
  $("buy").disabled = $("view").disabled = $("forget").disabled = !member;
}

setInterval(refreshMember, POINTS_EVERY_MS);

// The event stream

let arrived = [];
let times = [];
let refreshSoon = 0;
const stream = new EventSource("/demo/stream");
stream.addEventListener("tick", (event) => {
  const tick = JSON.parse(event.data);
  times.push(performance.now());
  arrived.push(tick);
  if (member && tick.member === member.member && !refreshSoon) {
    refreshSoon = setTimeout(() => { refreshSoon = 0; refreshMember(); }, 150);
  }
});

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

const signedIn = localStorage.getItem("kindred:signed-in") !== null;
for (const link of document.querySelectorAll("[data-when]")) link.hidden = (link.dataset.when === "in") !== signedIn;

// Begin

const nearest = RATES.reduce((best, rate, n) => (Math.abs(rate - shop.rate) < Math.abs(RATES[best] - shop.rate) ? n : best), 0);
$("speed").value = nearest;
renderRate(shop.rate);
list.setAttribute("limit", LIMIT);
list.setAttribute("key", shop.key);
$("search").addEventListener("input", renderGrid);
addEventListener("popstate", () => show(new URLSearchParams(location.search).get("item") ?? items[0].item, { push: false }));
renderDepartments();
renderGrid();
await choose(shop.members[0] ?? null);
const asked = new URLSearchParams(location.search).get("item");
if (catalog.has(asked)) show(asked, { push: false });
else {
  await suggest();
}
