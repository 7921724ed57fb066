// The user agreement of the demonstration, in the version that a registration accepts.

import { open } from "./api.js";
import { $, begin } from "./page.js";
import { say } from "./texts.js";

begin();
const { agreement_version: version } = await open("GET", "/v1/registrations/rules");
say($("version"), "agreement_version", { version });
