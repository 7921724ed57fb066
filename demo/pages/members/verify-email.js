// The link of the mail that ends a registration. A press of a button confirms: programs that look through mails open links too.

import { open } from "./api.js";
import { $, begin, mailToken, onSubmit, replace, solving, tell } from "./page.js";

begin();
const token = mailToken();
const [confirm, resend] = [$("confirm"), $("resend")];
if (token) {
  confirm.hidden = false;
} else {
  resend.hidden = $("no-token").hidden = false;
}

onSubmit(confirm, async () => {
  try {
    await open("POST", "/v1/email-verifications", { token });
    replace(confirm, $("done"), $("done").querySelector("h2"));
  } catch (refusal) {
    if (refusal.status !== 410) throw refusal;
    tell(confirm.querySelector(".notice"), refusal);
    confirm.querySelector(".actions").hidden = true;
    resend.hidden = false;
  }
});

onSubmit(resend, async ({ email }) => {
  const send = (challenge) => open("POST", "/v1/email-verifications/resend", { email, challenge });
  await solving(resend.querySelector(".status"), "resend_done", send);
});
