// Signing in (R16): account and password, a second factor where there is one, and back to where the person was.

import * as api from "./api.js";
import { $, begin, onSubmit, replace, tell } from "./page.js";
import { say } from "./texts.js";

const wasIn = api.hinted();
begin();
const [first, second] = [$("password-form"), $("code-form")];
let challenge = null;
$("leads-back").hidden = !api.returnPath();

// Whoever is signed in already has nothing to do here.
api.begin().then((signedIn) => {
  if (signedIn) api.goBack();
  else $("ended").hidden = !wasIn;
}, () => {});

api.open("GET", "/v1/registrations/rules").then((rules) => {
  if (rules.email_signs_in) say($("account-label"), "account_field_email");
}, (problem) => tell(first.querySelector(".notice"), problem));

/** Looks whether the browser kept the cookie, before leading to a page that would ask to sign in once more. */
async function finish(form) {
  if (await api.begin()) api.goBack();
  else say(form.querySelector(".notice"), "no_cookie");
}

onSubmit(first, async ({ account, password }) => {
  const grant = await api.signIn(account, password);
  if (!grant.challenge) return finish(first);
  challenge = grant.challenge;
  $("password").value = "";
  replace(first, second, $("code"));
});

onSubmit(second, async ({ code }) => {
  await api.signInSecond(challenge, code.trim());
  await finish(second);
});

$("code-back").addEventListener("click", () => {
  second.reset();
  replace(second, first, $("password"));
});
