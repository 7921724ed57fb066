// What the demonstration would have sent: looked at again and again, the newest first.

import { $, begin, element, quiet, said, tell } from "./page.js";
import { open } from "./api.js";
import { say, show, text } from "./texts.js";

const EVERY_MS = 1_500;

begin();
let known = null;

/** A text with its links as links. */
function linked(body) {
  return body.split(/(https?:\/\/\S+)/).map((part, n) => (n % 2 ? element("a", { href: part }, part) : part));
}

function shown({ id, at, channel, to, subject, body }) {
  const head = element("p", { class: "hint" }, said("span", `channel_${channel}`, null, { class: "pill" }), " ",
    said("span", "to"), ` ${to} · `, show(element("time", { datetime: new Date(at).toISOString() }), { time: at }));
  const title = subject ? element("h2", {}, subject) : null;
  return element("li", { class: "panel", "data-id": id }, head, title, element("p", { class: "body" }, ...linked(body.trim())));
}

async function look() {
  if (document.hidden && known) return;
  const { messages } = await open("GET", "/demo/mailbox.json");
  quiet(document.querySelector(".notice"));
  const fresh = messages.filter(({ id }) => !known?.has(id));
  const gone = known && messages.length - fresh.length < known.size;
  if (known && !fresh.length && !gone) return;
  // What is there stays where it is: somebody may be reading it, or on its link with the keyboard.
  const ids = new Set(messages.map(({ id }) => id));
  for (const item of [...$("messages").children]) if (!ids.has(item.dataset.id)) item.remove();
  $("messages").prepend(...fresh.map(shown));
  if (messages.length) say($("count"), "mailbox_count", { count: messages.length }); else say($("count"), "mailbox_empty");
  if (known && fresh.length) $("news").textContent = text("mailbox_new", { what: fresh[0].subject || fresh[0].body });
  known = ids;
}

async function again() {
  await look().catch((problem) => tell(document.querySelector(".notice"), problem));
  setTimeout(again, EVERY_MS);
}
document.addEventListener("visibilitychange", () => look().catch(() => {}));
again();
