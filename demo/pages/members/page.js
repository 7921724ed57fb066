// What every page of members has: the language switch, links that know where one comes from, forms that say what is wrong where it is.
//
//   form ──submit──▶ empty? marked and focused │ handler ──Refusal──▶ its fields marked, or the notice of the form (role=alert)

import { Refusal, hinted, returnPath, solved } from "./api.js";
import { clear as silence, quote, say, speak, translate } from "./texts.js";

export const $ = (id) => document.getElementById(id);

/** An element with attributes and children; `onclick` is a listener. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") made.addEventListener("click", value);
    else if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** An element that says a text. */
export const said = (name, key, values = null, attributes = {}) => say(element(name, attributes), key, values);

/** Begins a page: texts, language switch, links, fields. */
export function begin() {
  for (const button of document.querySelectorAll("[data-language]")) {
    button.addEventListener("click", () => speak(button.dataset.language));
  }
  const back = returnPath();
  for (const link of document.querySelectorAll("[data-keeps-return]")) {
    if (back) link.href = `${link.pathname}?return=${encodeURIComponent(back)}`;
  }
  showLinks();
  for (const input of document.querySelectorAll(".field input, .field select")) prepare(input);
  translate();
  document.documentElement.dataset.ready = "";
}

/** Shows the links of the header that fit whoever is here. */
export function showLinks() {
  for (const link of document.querySelectorAll("[data-when]")) link.hidden = (link.dataset.when === "in") !== hinted();
  for (const link of document.querySelectorAll(".links a")) {
    if (link.pathname === location.pathname) link.setAttribute("aria-current", "page");
  }
}

/** Gives a field its hint, the place of its error, and a password its button. */
function prepare(input) {
  const field = input.closest(".field");
  const described = [];
  if (input.dataset.hint) {
    const hint = element("small", { id: `${input.id}-hint`, class: "hint" });
    // Its values are the shop's rules, which arrive later.
    hint.dataset.t = input.dataset.hint;
    hint.dataset.values = "{}";
    described.push(hint);
  }
  described.push(element("small", { id: `${input.id}-error`, class: "error" }));
  field.append(...described);
  input.setAttribute("aria-describedby", described.map(({ id }) => id).join(" "));
  input.addEventListener("input", () => clear(input));
  if (input.type === "password") {
    const button = said("button", "show_password", null, { type: "button", class: "reveal", "data-t-label": "show_password_label", "aria-pressed": "false", "aria-controls": input.id });
    button.addEventListener("click", () => {
      const shown = input.type === "password";
      input.type = shown ? "text" : "password";
      button.setAttribute("aria-pressed", String(shown));
      say(button, shown ? "hide_password" : "show_password");
    });
    const beside = element("div", { class: "beside" });
    input.replaceWith(beside);
    beside.append(input, button);
  }
}

function clear(input) {
  input.removeAttribute("aria-invalid");
  const error = $(`${input.id}-error`);
  if (error) silence(error);
}

/** `message` is words of the server, or `{ text: key, values }`. */
function mark(input, message) {
  input.setAttribute("aria-invalid", "true");
  const error = $(`${input.id}-error`);
  if (!error) return;
  if (message.text) say(error, message.text, message.values); else quote(error, message, "field_refused");
}

/** Marks fields (name ──▶ message) and goes to the first of them. */
export function markFields(form, messages) {
  const marked = [...form.elements].filter((input) => input.name in messages);
  marked.forEach((input) => mark(input, messages[input.name]));
  const notice = form.querySelector(".notice");
  say(notice, "check_fields");
  marked[0]?.focus();
  return marked.length > 0;
}

/** What a refusal says of fields, by name. */
export function fieldMessages(refusal) {
  return Object.fromEntries(refusal.fields.map(({ pointer, message }) => [(pointer ?? "").split("/")[1], message]));
}

/** Says what went wrong where a screen reader hears it. */
export function tell(notice, problem) {
  if (!(problem instanceof Refusal)) console.error(problem);
  if (!(problem instanceof Refusal)) say(notice, "failed");
  else if (problem.text) say(notice, problem.text.key, problem.text.values);
  else quote(notice, problem.message, "failed");
}

/** Empties a notice. */
export const quiet = silence;

/** Whatever the form does while nobody can press its button again. */
export async function busy(button, work) {
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  try {
    await work();
  } finally {
    button.removeAttribute("aria-disabled");
  }
}

/** What stands in a form, by name. */
export function values(form) {
  const named = [...form.elements].filter((input) => input.name);
  return Object.fromEntries(named.map((input) => [input.name, input.type === "checkbox" ? input.checked : input.value]));
}

/** Has a form do its work. A field that is empty, or that the API turns down, is marked and focused. */
export function onSubmit(form, work) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const [notice, status] = [form.querySelector(".notice"), form.querySelector(".status")];
    busy(event.submitter ?? form.querySelector("button"), async () => {
      quiet(notice);
      if (status) quiet(status);
      const inputs = [...form.elements].filter((input) => input.name);
      inputs.forEach(clear);
      const empty = inputs.filter((input) => input.required && !input.closest("[hidden]") && (input.type === "checkbox" ? !input.checked : !input.value.trim()));
      if (empty.length) {
        markFields(form, Object.fromEntries(empty.map((input) => [input.name, { text: input.dataset.required ?? "required" }])));
        return;
      }
      try {
        await work(values(form));
      } catch (problem) {
        if (problem instanceof Refusal && markFields(form, fieldMessages(problem))) return;
        tell(notice, problem);
      }
    });
  });
}

/** Sends something with a solved challenge, and says in `status` that it is being solved, then `done`. */
export async function solving(status, done, send) {
  say(status, "solving");
  try {
    await send(await solved());
    say(status, done);
  } catch (refusal) {
    quiet(status);
    throw refusal;
  }
}

/** Shows one part of a page in place of another, and goes there. */
export function replace(hide, reveal, focus) {
  hide.hidden = true;
  reveal.hidden = false;
  focus?.focus();
}

/** What the link of a mail carries behind its `#`; it leaves the address bar, and with it the history of the browser. */
export function mailToken() {
  const token = decodeURIComponent(location.hash.slice(1));
  if (token) history.replaceState(null, "", location.pathname + location.search);
  // Another link of the same page, opened in the same tab.
  addEventListener("hashchange", () => location.reload());
  return token && token !== "main" ? token : null;
}

/** Gives the hints of a page the values of the shop's rules. */
export function fillHints(rules) {
  const [min, max] = rules.username_chars;
  const known = { username_hint: { min, max }, password_hint: { min: rules.password_min } };
  for (const hint of document.querySelectorAll(".hint[data-t]")) {
    if (hint.dataset.t in known) say(hint, hint.dataset.t, known[hint.dataset.t]);
  }
}
