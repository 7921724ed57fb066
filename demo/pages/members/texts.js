// What the pages say, in zh-CN and en: texts.json in the person's language.
//
//   data-t="key"        the text of an element          data-values='{"name":…}' fills its {name}
//   data-t-label="key"  its aria-label                  data-title               it is also the title of the document
//
// In a text, {name} is a value and {name|one|other} the word that fits its number.

const TEXTS = await (await fetch("/demo/members/texts.json")).json();
const CHOSEN = "kindred:language";
const TAGS = ["en", "zh-CN"];

let tag = stored() ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh-CN" : "en");

function stored() {
  const chosen = localStorage.getItem(CHOSEN);
  return TAGS.includes(chosen) ? chosen : null;
}

/** The tag of the language that is spoken. */
export const language = () => tag;

/** Speaks another from now on, here and on the next page. */
export function speak(chosen) {
  tag = chosen;
  localStorage.setItem(CHOSEN, chosen);
  translate();
}

/** A text with its values in place. */
export function text(key, values = {}) {
  const found = TEXTS[key]?.[TAGS.indexOf(tag)];
  if (found === undefined) throw new Error(`texts.json has no ${key}`);
  return found.replace(/\{(\w+)(?:\|([^|}]*)\|([^}]*))?\}/g, (whole, name, one, other) => {
    if (!(name in values)) return whole;
    if (one === undefined) return value(values[name]);
    return new Intl.PluralRules(tag).select(values[name]) === "one" ? one : other;
  });
}

/** Whether there is such a text. */
export const has = (key) => key in TEXTS;

/** Money in the person's language, of minor units: of most currencies a hundredth, of some (JPY, KWD) what their standard says. */
export function money(minor, currency) {
  const format = new Intl.NumberFormat(tag, { style: "currency", currency });
  return format.format(minor / 10 ** format.resolvedOptions().maximumFractionDigits);
}

/** A number as it is written here; `{ text: key }` is a text itself; `{ day: … }` and `{ time: … }` are times; `{ money: [minor, currency] }`. */
function value(given) {
  if (typeof given === "number") return new Intl.NumberFormat(tag).format(given);
  if (given?.text) return text(given.text);
  if (given?.day) return new Intl.DateTimeFormat(tag, { dateStyle: "long" }).format(new Date(given.day));
  if (given?.money) return money(...given.money);
  if (given?.time) return new Intl.DateTimeFormat(tag, { dateStyle: "medium", timeStyle: "short" }).format(new Date(given.time));
  return String(given);
}

/** Has an element say a text, in whichever language is chosen. Returns the element. */
export function say(element, key, values = null) {
  element.dataset.t = key;
  delete element.dataset.told;
  if (values) element.dataset.values = JSON.stringify(values); else delete element.dataset.values;
  element.textContent = text(key, values ?? {});
  return element;
}

/** Has an element say words of the server; when the language changes, the text `instead` takes their place. Returns the element. */
export function quote(element, words, instead) {
  delete element.dataset.t;
  delete element.dataset.values;
  Object.assign(element.dataset, { told: tag, instead });
  element.textContent = words;
  return element;
}

/** Has an element say nothing. */
export function clear(element) {
  for (const name of ["t", "values", "told", "instead"]) delete element.dataset[name];
  element.textContent = "";
}

/** Has an element show a value that depends on the language. Returns the element. */
export function show(element, given) {
  element.dataset.value = JSON.stringify(given);
  element.textContent = value(given);
  return element;
}

/** Puts everything into the language. */
export function translate() {
  document.documentElement.lang = tag;
  for (const element of document.querySelectorAll("[data-t]")) {
    element.textContent = text(element.dataset.t, JSON.parse(element.dataset.values ?? "{}"));
  }
  for (const element of document.querySelectorAll("[data-value]")) element.textContent = value(JSON.parse(element.dataset.value));
  for (const element of document.querySelectorAll("[data-t-label]")) {
    element.setAttribute("aria-label", text(element.dataset.tLabel, JSON.parse(element.dataset.labelValues ?? "{}")));
  }
  // What the server said, it said in the language of then.
  for (const element of document.querySelectorAll("[data-told]")) {
    if (element.dataset.told !== tag) say(element, element.dataset.instead);
  }
  const title = document.querySelector("[data-title]");
  if (title) document.title = `${title.textContent} · Larch & Lantern`;
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", String(button.dataset.language === tag));
  }
}
