/**
 * A typed client of the Kindred API. Types are generated from its OpenAPI document (src/schema.ts); this file adds credentials and
 * error handling.
 *
 *     kindred({ baseUrl, key }).GET(path, params) ──▶ { data } | { error: Problem } ──unwrap──▶ data, or throws a KindredError
 */
import createClient, { type Client, type Middleware } from "openapi-fetch";

import type { components, paths } from "./schema.js";

export type { components, operations, paths } from "./schema.js";

/** The type of a named schema: `Schema<"SimilarList">`. */
export type Schema<Name extends keyof components["schemas"]> = components["schemas"][Name];
/** Problem details (RFC 9457). */
export type Problem = Schema<"Problem">;
/** `GET`, `POST`, `PUT`, `PATCH` and `DELETE` for the paths of the API. */
export type Kindred = Client<paths>;

export interface Options {
  /** The base URL of the API: `https://shop.example/kindred`. */
  baseUrl: string;
  /**
   * A service key (on servers only), a publishable key, or an access token of a signed-in member. A function is called before each
   * request, since access tokens expire after minutes.
   */
  key?: string | (() => string | undefined | Promise<string | undefined>);
  /** The language of problems: `en` or `zh-CN`. */
  language?: Schema<"LanguageTag">;
  /** Replaces the global fetch. */
  fetch?: (request: Request) => Promise<Response>;
}

/** A client of the API. */
export function kindred({ baseUrl, key, language, fetch }: Options): Kindred {
  const client = createClient<paths>({ baseUrl, ...(fetch && { fetch }) });
  const credentials: Middleware = {
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
  client.use(credentials);
  return client;
}

/** An error response. */
export class KindredError extends Error {
  override readonly name = "KindredError";

  constructor(
    /** The HTTP status. */
    readonly status: number,
    /** The problem; undefined if a proxy responded instead of the API. */
    readonly problem: Problem | undefined,
  ) {
    super(problem ? `${problem.code}: ${problem.detail}` : `HTTP status ${status}`);
  }

  /** Seconds after which to retry, if that makes sense. */
  get retryAfter(): number | undefined {
    return this.problem?.retry_after ?? undefined;
  }
}

/** The data of a response. Throws a {@link KindredError} unless the status is 2xx. */
export async function unwrap<Data>(
  request: Promise<{ data?: Data; error?: unknown; response: Response }>,
): Promise<Data> {
  const { data, error, response } = await request;
  if (!response.ok) {
    throw new KindredError(response.status, isProblem(error) ? error : undefined);
  }
  return data as Data;
}

function isProblem(error: unknown): error is Problem {
  return typeof error === "object" && error !== null && "code" in error && "detail" in error;
}
