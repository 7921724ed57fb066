// The member centre: what a person has here, and what they may change. Each part is loaded and fails by itself.

import * as api from "./api.js";
import { $, begin, busy, element, fillHints, onSubmit, quiet, replace, said, showLinks, tell } from "./page.js";
import { has, say, show, text, translate } from "./texts.js";

const HISTORY_PAGE = 50;
const ORDERS_PAGE = 10;
const ME = "/v1/members/me";

begin();
let profile = null;
let etag = null;
let cursor = null;
let ordersCursor = null;
let titles = new Map();

// Profile and settings

async function takeProfile(answer) {
  profile = await answer.json();
  etag = answer.headers.get("ETag");
  const rows = [
    ["username", profile.username], ["phone", profile.phone], ["email", profile.email], ["tier", { text: `tier_${profile.tier}` }],
    ["member_since", { day: profile.registered_at }], ["your_invite_code", profile.invite_code],
    ...(profile.role ? [["role", profile.role]] : []),
  ];
  const row = ([key, value]) => element("div", {}, said("dt", key), show(element("dd", { "data-of": key }), value));
  $("profile").replaceChildren(...rows.map(row));
  say($("hello"), "hello", { username: profile.username });
  $("settings-language").value = profile.language;
  $("settings-marketing").checked = profile.marketing_consent;
  say($("totp-state"), profile.second_factor ? "totp_on" : "totp_off");
  $("totp-enrol").hidden = profile.second_factor;
  $("totp-renew").hidden = $("totp-off").hidden = !profile.second_factor;
  nameForms();
  translate();
}

/** Tells the browser's keeper of passwords whose password a form asks for. */
function nameForms() {
  for (const form of new Set([...document.querySelectorAll("[type='password']")].map((input) => input.form))) {
    form.querySelector("[autocomplete='username']")?.remove();
    form.prepend(element("input", { type: "text", autocomplete: "username", value: profile.username, readonly: true, hidden: true }));
  }
}

const loadProfile = async () => takeProfile(await api.ownAnswer("GET", ME));

onSubmit($("settings-form"), async (form) => {
  try {
    await takeProfile(await api.ownAnswer("PATCH", ME, form, { "If-Match": etag }));
    say($("settings-form").querySelector(".status"), "saved");
  } catch (refusal) {
    if (refusal.status !== 412) throw refusal;
    await loadProfile();
    say($("settings-form").querySelector(".notice"), "changed_meanwhile");
  }
});

onSubmit($("email-form"), async (form) => {
  await api.own("POST", `${ME}/email`, form);
  $("email-form").reset();
  say($("email-form").querySelector(".status"), "email_change_sent");
});

onSubmit($("phone-form"), async ({ phone, current_password, code }) => {
  const [status, field] = [$("phone-form").querySelector(".status"), $("phone-code-field")];
  if (field.hidden) {
    await api.own("POST", `${ME}/phone`, { phone, current_password });
    field.hidden = false;
    $("phone-code").required = true;
    say($("phone-button"), "use_phone");
    say(status, "code_sent", { phone });
    $("phone-code").focus();
    return;
  }
  await api.own("POST", `${ME}/phone/confirm`, { phone, current_password, code: code.trim() });
  $("phone-form").reset();
  $("phone-code").required = false;
  field.hidden = true;
  say($("phone-button"), "send_code");
  say(status, "phone_changed");
  await loadProfile();
});
$("phone").addEventListener("input", () => {
  // Another number needs another code.
  $("phone-code-field").hidden = true;
  $("phone-code").required = false;
  say($("phone-button"), "send_code");
});

// Points

async function loadPoints({ levels }) {
  try {
    const points = await api.own("GET", `${ME}/points?statement=true`);
    show($("available"), points.available);
    show($("pending"), points.pending);
    showStatement(points);
    const earned = points.from_items + points.from_invites;
    // Of the first level none is told: it is before them all.
    const next = levels[levels.findIndex(({ tier }) => tier === profile.tier) + 1];
    $("progress").hidden = !next;
    if (!next) return say($("next-tier"), "top_tier");
    const { tier, points: from } = next;
    $("progress").max = from;
    $("progress").value = Math.min(earned, from);
    const named = { text: `tier_${tier}` };
    if (earned >= from) say($("next-tier"), "tier_earned", { tier: named });
    else say($("next-tier"), "next_tier", { missing: from - earned, tier: named });
  } catch (refusal) {
    if (refusal.code !== "view_disabled") throw refusal;
    $("points").hidden = $("progress").hidden = true;
    say($("next-tier"), "points_off");
  }
}

/** What the points are made of: a line a day on which they become available, and one for invites. */
function showStatement({ statement, from_invites: invites }) {
  const line = (points, what) => element("li", {}, element("strong", {}, (points > 0 ? "+" : "") + points), what);
  const lines = statement.map(({ available_from: day, points, pending }) =>
    line(points, say(element("span", { class: "hint" }), pending ? "statement_pending" : "statement_available", { day: { day } })));
  if (invites) lines.push(line(invites, said("span", "statement_invites", null, { class: "hint" })));
  $("statement").replaceChildren(...lines);
  $("statement-of-points").hidden = lines.length === 0;
}

// Purchases (orders, and what was told as bought without one) and history

/** A page of a view of the member; an empty one where the shop does not keep it. */
const pageOf = (view, limit, from) => api.own("GET", `${ME}/${view}?${new URLSearchParams({ limit, ...(from ? { cursor: from } : {}) })}`)
  .catch((refusal) => {
    if (refusal.code === "view_disabled") return { items: [], next_cursor: null };
    throw refusal;
  });

const day = (at) => show(element("time", { datetime: at }), { day: at });
const product = (item) => element("a", { href: `/?item=${encodeURIComponent(item)}` }, titles.get(item) ?? item);
const showPurchases = () => { $("no-purchases").hidden = $("orders").children.length + $("purchases").children.length > 0; };

async function loadOrders() {
  const page = await pageOf("orders", ORDERS_PAGE, ordersCursor);
  ordersCursor = page.next_cursor;
  const line = ({ item, quantity, net_quantity: kept }) => element("li", {}, element("span", {}, `${quantity} × `, product(item)),
    ...(kept < quantity ? [said("span", "came_back", { count: quantity - kept }, { class: "hint" })] : []));
  const row = (order) => {
    const money = (minor) => ({ money: [minor, order.currency] });
    const paid = order.refunded_minor
      ? said("span", "order_total_refunded", { total: money(order.total_minor), refunded: money(order.refunded_minor) })
      : show(element("span"), money(order.total_minor));
    return element("li", {},
      element("div", { class: "heading" }, said("strong", "order_named", { order: order.order }), said("span", `order_${order.status}`, null, { class: "pill" })),
      element("ul", { class: "rows" }, ...order.lines.map(line)),
      element("span", { class: "hint" }, day(order.placed_at), " · ", paid));
  };
  $("orders").append(...page.items.map(row));
  $("more-orders").hidden = !ordersCursor;
  showPurchases();
}

async function loadHistory() {
  const page = await pageOf("history", HISTORY_PAGE, cursor);
  cursor = page.next_cursor;
  // A kind that this page does not know is shown by its name: it must not cost the rest of the history.
  const told = (kind) => (has(`kind_${kind}`) ? said("span", `kind_${kind}`) : said("span", "kind_other", { kind }));
  const row = (kind) => ({ item, at }) => element("li", {}, product(item),
    element("span", { class: "hint" }, ...(kind ? [told(kind), " · "] : []), day(at)));
  $("purchases").append(...page.items.filter(({ kind }) => kind === "purchase").map(row(null)));
  $("history").append(...page.items.map((entry) => row(entry.kind)(entry)));
  showPurchases();
  $("no-history").hidden = $("history").children.length > 0;
  $("more").hidden = !cursor;
}
const onMore = (button, load) => button.addEventListener("click", () => busy(button, () => load().catch((problem) => tell($("page-notice"), problem))));
onMore($("more"), loadHistory);
onMore($("more-orders"), loadOrders);

// Sessions

async function loadSessions() {
  const { sessions } = await api.own("GET", `${ME}/sessions`);
  const row = ({ id, current, used_at: used, label, address }) => {
    const name = browserName(label) ?? text("unknown_browser");
    const end = current ? said("span", "this_session", null, { class: "pill buy" })
      : said("button", "end", null, { type: "button", "data-t-label": "end_session_label", "data-label-values": JSON.stringify({ label: name }), onclick: (event) => endSession(event, id) });
    return element("li", {}, element("span", {}, name, element("small", { class: "hint" }, ` ${address} · `, said("span", "last_used"), " ", show(element("time", { datetime: used }), { time: used }))), end);
  };
  $("sessions").replaceChildren(...sessions.map(row));
  $("end-others").hidden = sessions.length < 2;
  translate();
}

/** The part of a browser's name for itself that people know. */
function browserName(label) {
  const [, name] = label.match(/(Edg|Firefox|OPR|HeadlessChrome|Chrome|Safari)\//) ?? [];
  const [, system] = label.match(/(Windows|Android|iPhone|iPad|Mac OS X|Linux)/) ?? [];
  return name ? [{ Edg: "Edge", OPR: "Opera", HeadlessChrome: "Chrome" }[name] ?? name, system].filter(Boolean).join(", ") : label || null;
}

const endSession = (event, id) => endSessions(event.currentTarget, `${ME}/sessions/${encodeURIComponent(id)}`);
const endSessions = (button, path) => busy(button, async () => {
  quiet($("sessions-notice"));
  try {
    await api.own("DELETE", path);
    await loadSessions();
    say($("sessions-status"), "ended");
    $("sessions-title").focus(); // the button is gone
  } catch (problem) {
    tell($("sessions-notice"), problem);
  }
});
$("end-others").addEventListener("click", (event) => endSessions(event.currentTarget, `${ME}/sessions?keep_current=true`));

// Password and second factor

onSubmit($("password-form"), async (form) => {
  await api.own("POST", `${ME}/password`, form);
  $("password-form").reset();
  say($("password-form").querySelector(".status"), "password_changed");
  await loadSessions();
});

function showCodes(codes) {
  $("recovery-codes").replaceChildren(...codes.map((code) => element("li", {}, element("code", {}, code))));
  $("recovery").hidden = false;
  $("recovery-title").focus();
}

onSubmit($("totp-begin-form"), async (form) => {
  const { secret, uri, qr_svg: qr } = await api.own("POST", `${ME}/totp`, form);
  $("totp-begin-form").reset();
  $("totp-secret").textContent = secret;
  $("totp-uri").href = uri;
  $("totp-qr").src = `data:image/svg+xml,${encodeURIComponent(qr)}`;
  replace($("totp-begin-form"), $("totp-confirm-form"), $("totp-secret"));
});

onSubmit($("totp-confirm-form"), async ({ code }) => {
  const { recovery_codes: codes } = await api.own("POST", `${ME}/totp/confirm`, { code: code.trim() });
  $("totp-confirm-form").reset();
  $("totp-secret").textContent = "";
  $("totp-uri").removeAttribute("href");
  $("totp-qr").removeAttribute("src");
  replace($("totp-confirm-form"), $("totp-begin-form"));
  await loadProfile();
  await loadSessions();
  showCodes(codes);
});

onSubmit($("recovery-form"), async (form) => {
  const { recovery_codes: codes } = await api.own("POST", `${ME}/recovery-codes`, form);
  $("recovery-form").reset();
  showCodes(codes);
});

onSubmit($("totp-remove-form"), async ({ current_password, code }) => {
  await api.own("DELETE", `${ME}/totp`, { current_password, code: code.trim() });
  $("totp-remove-form").reset();
  $("recovery").hidden = true;
  await loadProfile();
  await loadSessions();
  say($("totp-state"), "totp_removed").focus();
});

onSubmit($("setup-form"), async ({ token }) => {
  await api.own("POST", "/v1/admin/setup", { token: token.trim() });
  // It ended the sessions of the account, this one included.
  leave($("appointed"), $("appointed-title"));
});

/** Shows a last word in place of the account: nobody is signed in any more. */
function leave(section, title) {
  api.forget();
  $("sign-out").hidden = true;
  say($("hello"), "account_title");
  quiet($("page-notice"));
  showLinks();
  replace($("member"), section, title);
}

// The data, and the end

$("download").addEventListener("click", () => busy($("download"), async () => {
  quiet($("download-notice"));
  try {
    const answer = await api.ownAnswer("GET", `${ME}/export`);
    const url = URL.createObjectURL(await answer.blob());
    element("a", { href: url, download: "kindred-export.zip" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
    say($("download-status"), "downloaded");
  } catch (problem) {
    tell($("download-notice"), problem);
  }
}));

onSubmit($("close-form"), async ({ current_password }) => {
  const receipt = await api.own("DELETE", ME, { current_password });
  const by = receipt.views?.raw_erased_by;
  say($("closed-text"), by ? "closed_text" : "closed_text_later", by ? { date: { day: by } } : null);
  leave($("closed"), $("closed-title"));
});

$("sign-out").addEventListener("click", () => busy($("sign-out"), async () => {
  try {
    await api.signOut();
    location.assign("/sign-in");
  } catch (problem) {
    tell($("page-notice"), problem);
  }
}));

// Begin

async function load() {
  if (!(await api.begin())) return api.toSignIn();
  showLinks();
  const catalog = await api.open("GET", "/demo/catalog.json").catch(() => ({ items: [] }));
  titles = new Map(catalog.items.map(({ item, title }) => [item, title]));
  await loadProfile();
  quiet($("page-status"));
  $("sign-out").hidden = $("member").hidden = false;
  // A link to a part of the page opens it.
  const part = location.hash ? $(location.hash.slice(1)) : null;
  if (part?.localName === "details") { part.open = true; part.querySelector("summary").focus(); }
  const failed = (problem) => tell($("page-notice"), problem);
  const rules = api.open("GET", "/v1/registrations/rules");
  rules.then(fillHints, () => {});
  await Promise.all([rules.then(loadPoints).catch(failed), loadOrders().catch(failed), loadHistory().catch(failed), loadSessions().catch(failed)]);
}

load().catch((problem) => {
  quiet($("page-status"));
  tell($("page-notice"), problem);
});
