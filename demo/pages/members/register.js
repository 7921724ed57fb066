// Registration in its steps (R8): data ──▶ phone and its code ──▶ agreement ──▶ "look into your mailbox". The work against robots is
// done while the person types.

import { open, solved } from "./api.js";
import { $, begin, busy, fieldMessages, fillHints, markFields, onSubmit, quiet, tell, values } from "./page.js";
import { language, say } from "./texts.js";

/** The API sends one code a minute. */
const ANOTHER_CODE_MS = 60_000;

begin();
const steps = [$("step-data"), $("step-phone"), $("step-agreement"), $("step-mail")];
const [data, phone, agreement] = steps;
let rules = null;
let sent = { phone: null, at: 0 };
let work = null; // the solved challenge of the registration, as a promise

const rulesKnown = open("GET", "/v1/registrations/rules").then((known) => {
  rules = known;
  fillHints(known);
}, (problem) => tell(data.querySelector(".notice"), problem));

function go(to) {
  steps.forEach((step, n) => { step.hidden = n !== to; });
  [...$("steps").children].forEach((item, n) => {
    item.classList.toggle("done", n < to);
    if (n === to) item.setAttribute("aria-current", "step"); else item.removeAttribute("aria-current");
  });
  const first = steps[to].querySelector("[aria-invalid]") ?? steps[to].querySelector("h2");
  first.focus();
}

async function sendCode() {
  const number = values(data).phone;
  say($("code-sent"), "solving");
  const { username, email, password } = values(data); // checked before a message is sent
  const asked = { phone: number, username, email, password, challenge: await solved(), language: language() };
  await open("POST", "/v1/phone-codes", asked);
  sent = { phone: number, at: Date.now() };
  say($("code-sent"), "code_sent", { phone: number });
}

/** Shows what was refused on the step that has its fields. */
function turnedDown(refusal) {
  const messages = fieldMessages(refusal);
  const named = refusal.code === "username_taken" ? { username: refusal.message }
    : refusal.code === "code_wrong" ? { phone_code: refusal.message } : messages;
  for (const [n, step] of [data, phone].entries()) {
    if (markFields(step, named)) { go(n); return true; }
    quiet(step.querySelector(".notice"));
  }
  return false;
}

onSubmit(data, async (form) => {
  await rulesKnown;
  if (rules && [...form.password].length < rules.password_min) {
    markFields(data, { password: { text: "password_hint", values: { min: rules.password_min } } });
    return;
  }
  if (sent.phone !== form.phone || Date.now() - sent.at > 10 * ANOTHER_CODE_MS) {
    const notice = data.querySelector(".notice");
    say(notice, "solving");
    try {
      await sendCode();
    } catch (refusal) {
      quiet(notice);
      if (turnedDown(refusal)) return;
      throw refusal;
    }
    quiet(notice);
  }
  work ??= solved().catch(() => null);
  go(1);
});

onSubmit(phone, async (form) => {
  if (form.phone_code.replace(/\D/g, "").length !== 6) {
    markFields(phone, { phone_code: text("phone_code_hint") });
    return;
  }
  go(2);
});

$("send-again").addEventListener("click", () => busy($("send-again"), async () => {
  const notice = phone.querySelector(".notice");
  quiet(notice);
  try {
    await sendCode();
  } catch (problem) {
    quiet($("code-sent"));
    tell(notice, problem);
  }
}));

onSubmit(agreement, async (form) => {
  const { username, email, password, invite_code: invited } = values(data);
  const [challenge] = [(await work) ?? (await solved())];
  work = null; // it works once
  const registration = {
    username, email, password, challenge,
    phone: values(data).phone,
    phone_code: values(phone).phone_code.trim(),
    agreement_version: rules.agreement_version,
    language: language(),
    marketing_consent: form.marketing_consent,
    ...(invited.trim() ? { invite_code: invited.trim() } : {}),
  };
  try {
    await open("POST", "/v1/registrations", registration);
  } catch (refusal) {
    if (turnedDown(refusal)) return;
    throw refusal;
  }
  data.reset();
  go(3);
});

for (const button of document.querySelectorAll("[data-back]")) {
  button.addEventListener("click", () => go(steps.indexOf(button.form) - 1));
}
