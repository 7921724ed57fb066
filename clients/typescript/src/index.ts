/**
 * The Kindred API, typed. What it takes and answers is generated from its OpenAPI document (src/schema.ts); here is only what a
 * program would write again and again: who asks, and an answer or an error.
 *
 *     kindred({ baseUrl, key }).GET(path, params) ──▶ { data } | { error: Problem } ──told──▶ data, or a KindredError is thrown
 */
import createClient, { type Client, type Middleware } from "openapi-fetch";

import type { components, paths } from "./schema.js";

export type { components, operations, paths } from "./schema.js";

/** The types of bodies by their name in the contract: `Schema<"SimilarList">`. */
export type Schema<Name extends keyof components["schemas"]> = components["schemas"][Name];
/** What went wrong (RFC 9457). */
export type Problem = Schema<"Problem">;
/** One request a function: `GET`, `POST`, `PUT`, `PATCH`, `DELETE`, each of the paths of the contract. */
export type Kindred = Client<paths>;

export interface Options {
  /** Where the API answers: `https://shop.example/kindred`. */
  baseUrl: string;
  /**
   * What is presented: a service key (on servers alone), a publishable key, or an access token of whoever signed in. A function is asked
   * before each request, since access tokens expire after minutes.
   */
  key?: string | (() => string | undefined | Promise<string | undefined>);
  /** The language that problems are told in: `en` or `zh-CN`. */
  language?: Schema<"LanguageTag">;
  /** Another fetch than the global one. */
  fetch?: (request: Request) => Promise<Response>;
}

/** A client of the API. */
export function kindred({ baseUrl, key, language, fetch }: Options): Kindred {
  const client = createClient<paths>({ baseUrl, ...(fetch && { fetch }) });
  const asks: Middleware = {
    async onRequest({ request }) {
      const token = typeof key === "function" ? await key() : key;
      if (token !== undefined && !request.headers.has("Authorization")) {
        request.headers.set("Authorization", `Bearer ${token}`);
      }
      if (language !== undefined) {
        request.headers.set("Accept-Language", language);
      }
      return request;
    },
  };
  client.use(asks);
  return client;
}

/** An answer that is a problem. */
export class KindredError extends Error {
  override readonly name = "KindredError";

  constructor(
    /** The status of the answer. */
    readonly status: number,
    /** What the server says of it; none where a proxy answered in its place. */
    readonly problem: Problem | undefined,
  ) {
    super(problem ? `${problem.code}: ${problem.detail}` : `the answer is ${status}`);
  }

  /** Seconds after which asking again makes sense, if it does. */
  get retryAfter(): number | undefined {
    return this.problem?.retry_after ?? undefined;
  }
}

/** What was asked for. Anything but a 2xx is thrown as a {@link KindredError}. */
export async function told<Data>(
  asked: Promise<{ data?: Data; error?: unknown; response: Response }>,
): Promise<Data> {
  const { data, error, response } = await asked;
  if (!response.ok) {
    throw new KindredError(response.status, isProblem(error) ? error : undefined);
  }
  return data as Data;
}

function isProblem(error: unknown): error is Problem {
  return typeof error === "object" && error !== null && "code" in error && "detail" in error;
}
