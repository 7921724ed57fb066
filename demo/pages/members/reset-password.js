// A new password for whoever forgot it: asked for by the account, set by the token of the mail.

import { forget, open } from "./api.js";
import { $, begin, fillHints, mailToken, onSubmit, replace, solving } from "./page.js";

begin();
const token = mailToken();
const [ask, redeem] = [$("ask"), $("redeem")];
(token ? redeem : ask).hidden = false;
open("GET", "/v1/registrations/rules").then(fillHints, () => {});

onSubmit(ask, async ({ account }) => {
  const send = (challenge) => open("POST", "/v1/password-resets", { account, challenge });
  await solving(ask.querySelector(".status"), "reset_sent", send);
  $("sent").hidden = false;
});

onSubmit(redeem, async ({ password }) => {
  // The browser is known from now on: others' wrong guesses do not keep its owner out.
  await open("POST", "/v1/password-resets/redeem", { token, password, cookie: true }, { "Kindred-Csrf": "1" });
  forget();
  replace(redeem, $("done"), $("done").querySelector("h2"));
});
