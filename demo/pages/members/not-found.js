// What a browser is shown where there is no page.

import { begin } from "./page.js";

begin();
