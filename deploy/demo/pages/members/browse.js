// What is sold, to look through: a category, a tag, an item; each person sees what their level may.
//
//   signed in? access token : the key of the shop's widget ──▶ categories, tags, items, item, similar     ?category= ?tag= ?sort= ?item=

import { Refusal, begin as beginSession, hinted, open, own } from "./api.js";
import { $, begin, element, said, showLinks, tell } from "./page.js";
import { say } from "./texts.js";

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

const price = ({ amount_minor, currency }) => new Intl.NumberFormat(document.documentElement.lang, { style: "currency", currency }).format(amount_minor / 100);

/** Who an item is for, where that is not everybody. */
const badge = (visibility) => (visibility && visibility !== "public" ? said("span", `for_${visibility}`, null, { class: "badge" }) : null);

const card = (item) => element("li", {}, element("a", { href: address({ item: item.item }) },
  element("img", { src: item.image, alt: "", width: "160", height: "160", loading: "lazy" }),
  element("span", {}, item.title ?? item.item),
  element("small", {}, item.price ? price(item.price) : ""),
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
    say($("count"), "items_found", { count: found.total });
    cursor = found.next_cursor;
    $("more").hidden = !cursor;
    return first[0];
  };
  $("sort").value = asked.get("sort") ?? "popular";
  $("sort").addEventListener("change", () => location.assign(address({ category: asked.get("category"), tag: asked.get("tag"), sort: $("sort").value })));
  // Whoever goes by the keyboard goes on with what came.
  $("more").addEventListener("click", async () => { (await page().catch(refused))?.querySelector("a").focus(); });
  const what = asked.get("category")?.split("/").at(-1) ?? asked.get("tag");
  if (what) { delete $("title").dataset.t; $("title").textContent = what; document.title = what; }
  await page();
}

async function product(item) {
  const path = `/v1/items/${encodeURIComponent(item)}`;
  $("found").hidden = true;
  $("product").hidden = false;
  const shown = await read(path);
  delete $("title").dataset.t;
  $("title").textContent = document.title = shown.title;
  $("path").replaceChildren(...shown.category.flatMap((label, n) => [n ? " › " : "", element("a", { href: address({ category: shown.category.slice(0, n + 1).join("/") }) }, label)]));
  $("picture").src = shown.image ?? "";
  $("price").textContent = shown.price ? price(shown.price) : "";
  $("for").replaceWith(badge(shown.visibility) ?? "");
  $("description").textContent = shown.description ?? "";
  $("own-tags").replaceChildren(...shown.tags.map((tag) => element("li", {}, element("a", { href: address({ tag }) }, tag))));
  const { items } = await read(`${path}/similar?limit=8`);
  $("similar").replaceChildren(...items.map(card));
}

/** Says what went wrong: an item that somebody may not see is not there for them. */
function refused(problem) {
  $("product").hidden = true;
  if (problem instanceof Refusal && problem.status === 404) say($("notice"), member ? "item_not_there" : "item_not_there_signed_out");
  else tell($("notice"), problem);
}

if (member) say($("sight"), "sight_member", { tier: { text: `tier_${member.tier}` } });
else $("sight").replaceChildren(said("span", "sight_public"), " ", element("a", { href: `/sign-in?return=${encodeURIComponent(location.pathname + location.search)}`, "data-t": "sign_in" }, ""));
if (!member) say($("sight").querySelector("a"), "sign_in");
await Promise.all([narrow(), asked.get("item") ? product(asked.get("item")) : shelf()]).catch(refused);
