/**
 * A shop's server posts purchases and reads recommendations.
 *
 *     KINDRED_URL=http://127.0.0.1:8080 KINDRED_KEY=$(cat data/service.key) npm run --silent example
 */
import { kindred, KindredError, unwrap } from "kindred-client";

const { KINDRED_URL: baseUrl = "http://127.0.0.1:8080", KINDRED_KEY: key } = process.env;
if (key === undefined) {
  throw new Error("set KINDRED_KEY to a service key");
}
const shop = kindred({ baseUrl, key });

// Two members buy; 202 means that the events are durable in the log.
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

// Read your writes: wait until the views have processed the events.
const list = await unwrap(
  shop.GET("/v1/items/{item}/similar", {
    params: { path: { item: "kettle" }, query: { limit: 3, fill: false, min_position: receipt.position, wait_ms: 10_000 } },
  }),
);
for (const { item, score } of list.items) {
  console.log(`with ${list.item} goes ${item} (${score})`);
}

// A problem has a machine-readable code and a human-readable detail.
try {
  await unwrap(shop.GET("/v1/popular", { params: { query: { days: 0 } } }));
} catch (error) {
  if (!(error instanceof KindredError)) throw error;
  console.log(`${error.status} ${error.problem?.code}: ${error.problem?.detail}`);
}
