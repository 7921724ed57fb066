// The link of the mail that goes to a new address.

import { open } from "./api.js";
import { $, begin, mailToken, onSubmit, replace } from "./page.js";

begin();
const token = mailToken();
$(token ? "confirm" : "no-token").hidden = false;

onSubmit($("confirm"), async () => {
  await open("POST", "/v1/email-changes/confirm", { token });
  replace($("confirm"), $("done"), $("done").querySelector("h2"));
});
