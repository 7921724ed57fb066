// What is sold, to look through: a category, a tag, an item; each person sees what their level may.
//
//   signed in? view, favourite, buy as oneself (POST /demo/…)
//   signed in? access token : the key of the shop's widget ──▶ categories, tags, items, item, similar     ?category= ?tag= ?sort= ?item=

import { Refusal, begin as beginSession, hinted, open, own } from "./api.js";
import { $, begin, busy, element, quiet, said, showLinks, tell } from "./page.js";
import { say, show } from "./texts.js";

const asked = new URLSearchParams(location.search);
begin();

const shop = await open("GET", "/demo/shop.json");
const member = hinted() && (await beginSession()) ? await own("GET", "/v1/members/me") : null;
showLinks();

/** Reads as whoever is here. */
const read = (path) => (member ? own("GET", path) : open("GET", path, undefined, { Authorization: `Bearer ${shop.key}` }));

/** The address of this page with one thing asked otherwise, and what does not fit to it left out. */
function address(changes) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries({ sort: asked.get("sort"), ...changes })) if (value) query.set(name, value);
  return `/browse?${query}`;
}

/** Shows a price, in whichever language is chosen. */
const priced = (to, { amount_minor: minor, currency }) => show(to, { money: [minor, currency] });

/** Who an item is for, where that is not everybody. */
const badge = (visibility) => (visibility && visibility !== "public" ? said("span", `for_${visibility}`, null, { class: "badge" }) : null);

const card = (item) => element("li", {}, element("a", { href: address({ item: item.item }) },
  element("img", { src: item.image, alt: "", width: "160", height: "160", loading: "lazy" }),
  element("span", {}, item.title ?? item.item),
  item.price ? priced(element("small"), item.price) : null,
  badge(item.visibility)));

async function narrow() {
  const [{ categories }, { tags }] = await Promise.all([read("/v1/categories"), read("/v1/tags?limit=24")]);
  const entry = (href, label, count, current, depth) => element("li", { "data-depth": depth },
    element("a", { href, "aria-current": current ? "page" : null }, label), element("small", {}, ` ${count}`));
  const open = asked.get("category") ?? "";
  // The widest, and what lies on the way to the one that is open and just below it.
  const shown = categories.filter(({ category }) => {
    const wider = category.split("/").slice(0, -1).join("/");
    return !wider || open === wider || open.startsWith(`${wider}/`);
  });
  $("categories").replaceChildren(...shown.map(({ category, label, items }) => entry(address({ category }), label, items, category === open, category.split("/").length)));
  $("tags").replaceChildren(...tags.map(({ tag, items }) => entry(address({ tag }), tag, items, tag === asked.get("tag"), 1)));
}

async function shelf() {
  let cursor = null;
  const page = async () => {
    const query = new URLSearchParams({ limit: "24" });
    for (const name of ["category", "tag", "sort"]) if (asked.get(name)) query.set(name, asked.get(name));
    if (cursor) query.set("cursor", cursor);
    const found = await read(`/v1/items?${query}`);
    const first = found.items.map(card);
    $("items").append(...first);
    if (found.total) say($("count"), "items_found", { count: found.total }); else say($("count"), "nothing_found");
    cursor = found.next_cursor;
    $("more").hidden = !cursor;
    return first[0];
  };
  $("sort").value = asked.get("sort") ?? "popular";
  $("sort").addEventListener("change", () => location.assign(address({ category: asked.get("category"), tag: asked.get("tag"), sort: $("sort").value })));
  // Whoever goes by the keyboard goes on with what came.
  $("more").addEventListener("click", async () => { (await page().catch(refused))?.querySelector("a").focus(); });
  const what = asked.get("category")?.split("/").at(-1) ?? asked.get("tag");
  if (what && asked.get("category") && !(await isCategory(asked.get("category")))) {
    $("found").hidden = true;
    return say($("notice"), "category_unknown", { name: what });
  }
  if (what) { delete $("title").dataset.t; $("title").textContent = what; document.title = what; }
  await page();
}

const isCategory = async (path) => (await read("/v1/categories")).categories.some(({ category }) => category === path);

async function product(item) {
  const path = `/v1/items/${encodeURIComponent(item)}`;
  $("found").hidden = true;
  $("product").hidden = false;
  const shown = await read(path);
  delete $("title").dataset.t;
  $("title").textContent = document.title = shown.title;
  $("path").replaceChildren(...shown.category.flatMap((label, n) => [n ? " › " : "", element("a", { href: address({ category: shown.category.slice(0, n + 1).join("/") }) }, label)]));
  $("picture").src = shown.image ?? "";
  if (shown.price) priced($("price"), shown.price);
  $("for").replaceWith(badge(shown.visibility) ?? "");
  $("description").textContent = shown.description ?? "";
  $("own-tags").replaceChildren(...shown.tags.map((tag) => element("li", {}, element("a", { href: address({ tag }) }, tag))));
  if (member) shopAsOneself(item);
  const { items } = await read(`${path}/similar?limit=8`);
  $("similar").replaceChildren(...items.map(card));
}

/** Whoever signed in has looked at the item, and may buy it and mark it: all of it stands under My account. */
function shopAsOneself(item) {
  own("POST", "/demo/view", { item }).catch(() => {}); // the page is worth seeing without it
  $("own").hidden = false;
  const press = (button, path, done) => $(button).addEventListener("click", () => busy($(button), async () => {
    quiet($("notice"));
    try {
      await own("POST", path, { item });
      say($("done"), done);
    } catch (problem) {
      quiet($("done"));
      tell($("notice"), problem);
    }
  }));
  press("buy", "/demo/buy", "bought");
  press("favorite", "/demo/favorite", "favorite_added");
}

/** Says what went wrong: an item that somebody may not see is not there for them. */
function refused(problem) {
  $("product").hidden = true;
  if (problem instanceof Refusal && problem.status === 404) say($("notice"), member ? "item_not_there" : "item_not_there_signed_out");
  else tell($("notice"), problem);
}

// On a phone the products come first.
const narrowScreen = matchMedia("(max-width: 760px)");
$("filters").open = !narrowScreen.matches;
narrowScreen.addEventListener("change", () => { $("filters").open = !narrowScreen.matches; });

if (member) say($("sight"), "sight_member", { tier: { text: `tier_${member.tier}` } });
else $("sight").replaceChildren(said("span", "sight_public"), " ", element("a", { href: `/sign-in?return=${encodeURIComponent(location.pathname + location.search)}`, "data-t": "sign_in" }, ""));
if (!member) say($("sight").querySelector("a"), "sign_in");
await Promise.all([narrow(), asked.get("item") ? product(asked.get("item")) : shelf()]).catch(refused);
