/**
 * A shop's server tells what was bought, and shows what goes with it.
 *
 *     KINDRED_URL=http://127.0.0.1:8080 KINDRED_KEY=$(cat data/service.key) npm run --silent example
 */
import { kindred, KindredError, unwrap } from "kindred-client";

const { KINDRED_URL: baseUrl = "http://127.0.0.1:8080", KINDRED_KEY: key } = process.env;
if (key === undefined) {
  throw new Error("set KINDRED_KEY to a service key");
}
const shop = kindred({ baseUrl, key });

// Two members buy; 202 comes when the log has the events durably.
const at = "2026-01-05T10:00:00Z";
const receipt = await unwrap(
  shop.POST("/v1/events/{topic}", {
    params: { path: { topic: "interactions" } },
    body: [
      { member: "ann", kind: "purchase", item: "kettle", at },
      { member: "ann", kind: "purchase", item: "teapot", at },
      { member: "bob", kind: "purchase", item: "kettle", at },
      { member: "bob", kind: "purchase", item: "teapot", at },
    ],
  }),
);
console.log(`${receipt.accepted} events, up to ${receipt.position}`);

// Read what was written: the answer waits until the views have taken it in.
const list = await unwrap(
  shop.GET("/v1/items/{item}/similar", {
    params: { path: { item: "kettle" }, query: { limit: 3, fill: false, min_position: receipt.position, wait_ms: 10_000 } },
  }),
);
for (const { item, score } of list.items) {
  console.log(`with ${list.item} goes ${item} (${score})`);
}

// A problem is an object with a code for programs and words for people.
try {
  await unwrap(shop.GET("/v1/popular", { params: { query: { days: 0 } } }));
} catch (error) {
  if (!(error instanceof KindredError)) throw error;
  console.log(`${error.status} ${error.problem?.code}: ${error.problem?.detail}`);
}
