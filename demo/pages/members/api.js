// Kindred's API as the pages ask it, and the session of whoever signed in.
//
//   access token: in this page's memory alone      refresh token: in a cookie that no script reads
//   a page begins ──POST sessions/refresh──▶ access token ──▶ members/me …──401──▶ refresh once ──▶ /sign-in?return=here

import { language, text } from "./texts.js";

/** Says to the shop's pages that somebody has signed in; it is a hint for links and opens nothing. */
const HINT = "kindred:signed-in";
/** Where somebody was who went to register or to sign in. */
const RETURN = "kindred:return";
/** The widget's session: what was browsed. */
const BROWSING = "kindred.session";
/** A refresh token works once, in whichever tab: the next tab has to wait for its successor. */
const LOCK = "kindred-refresh";

let accessToken = null;

/** What the API turned down, in words for a person. */
export class Refusal extends Error {
  constructor(status, problem, retryAfter) {
    const wait = Number(problem.retry_after ?? retryAfter ?? 0);
    const [key, values] = status === 0 ? ["offline"] : status !== 429 || !wait ? ["failed"]
      : wait < 120 ? ["wait_seconds", { seconds: wait }] : ["wait_minutes", { minutes: Math.ceil(wait / 60) }];
    super((key === "failed" && problem.detail) || text(key, values));
    // What a page says itself, in whichever language; of what the server said there is one.
    this.text = key === "failed" && problem.detail ? null : { key, values };
    this.status = status;
    this.code = problem.code ?? "";
    this.fields = problem.errors ?? [];
  }
}

/** Asks, and throws a [`Refusal`] for anything but success. */
async function ask(method, path, body, headers = {}) {
  const sent = { "Accept-Language": language(), ...headers };
  // What an unload would interrupt is the answer that carries the next cookie.
  const options = { method, headers: sent, cache: "no-store", credentials: "same-origin", keepalive: true };
  if (body !== undefined) {
    sent["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const answer = await fetch(path, options).catch(() => { throw new Refusal(0, {}); });
  if (!answer.ok) throw new Refusal(answer.status, await answer.json().catch(() => ({})), answer.headers.get("Retry-After"));
  // Whoever signed in or out goes on browsing as somebody else: the widget's session is another one from now on.
  const browsing = answer.headers.get("Kindred-Session");
  if (browsing) localStorage.setItem(BROWSING, browsing);
  return answer;
}

const json = async (answer) => (answer.status === 204 ? null : answer.json());

/** Asks for what needs no sign-in. */
export const open = async (method, path, body, headers) => json(await ask(method, path, body, headers));

/** A challenge, solved. */
export async function solved() {
  const { token, bits } = await open("POST", "/v1/captcha/challenges");
  const worker = new Worker("/demo/members/work.js", { type: "module" });
  try {
    const nonce = await new Promise((done, failed) => {
      worker.addEventListener("message", ({ data }) => done(data));
      worker.addEventListener("error", () => failed(new Refusal(0, {})));
      worker.postMessage({ token, bits });
    });
    return { token, nonce };
  } finally {
    worker.terminate();
  }
}

/** Runs alone among all tabs of the shop. */
const alone = (work) => (navigator.locks ? navigator.locks.request(LOCK, work) : work());

/** Takes the tokens of a sign-in whose refresh token stands in the cookie. */
async function take(method, path, body) {
  const grant = await open(method, path, body, { "Kindred-Csrf": "1" });
  if (grant.access_token) accessToken = grant.access_token;
  return grant;
}

/** Whether somebody is signed in; if so, this page may ask for what is theirs. */
export function begin() {
  return alone(async () => {
    try {
      await take("POST", "/v1/sessions/refresh", {});
      localStorage.setItem(HINT, "1");
      return true;
    } catch (refusal) {
      accessToken = null;
      if (refusal.status !== 401) throw refusal;
      localStorage.removeItem(HINT);
      return false;
    }
  });
}

/** Whether somebody probably is, without asking. */
export const hinted = () => localStorage.getItem(HINT) !== null;

/** The first step of signing in: a grant, or a `challenge` for the second. What was browsed until now becomes the member's. */
export const signIn = (account, password) => alone(() => {
  const session = localStorage.getItem(BROWSING) ?? undefined;
  return take("POST", "/v1/sessions", { account, password, cookie: true, session });
});

/** The second. */
export const signInSecond = (challenge, code) => alone(() => take("POST", "/v1/sessions/second-factor", { challenge, code, cookie: true }));

/** Ends the session. */
export async function signOut() {
  await own("DELETE", "/v1/sessions/current");
  forget();
}

/** Forgets that somebody was signed in. */
export function forget() {
  accessToken = null;
  localStorage.removeItem(HINT);
}

/** Asks for what is the member's own. Where nobody is signed in any more, it leads to where one signs in and comes back. */
export async function ownAnswer(method, path, body, headers = {}) {
  const attempt = () => ask(method, path, body, { ...headers, Authorization: `Bearer ${accessToken}` });
  try {
    return await attempt();
  } catch (refusal) {
    if (refusal.status !== 401) throw refusal;
    if (await begin()) return attempt();
    return toSignIn();
  }
}

/** The same, and reads the answer. */
export const own = async (method, path, body, headers) => json(await ownAnswer(method, path, body, headers));

/** Leads to the sign-in and back; nothing after it happens on this page. */
export function toSignIn() {
  const here = location.pathname + location.search;
  location.replace(`/sign-in?return=${encodeURIComponent(here)}`);
  return new Promise(() => {});
}

/** A path of this shop, or null: whoever made the link chooses no other site. */
function ownPath(given) {
  if (!given?.startsWith("/")) return null;
  const url = new URL(given, location.origin);
  return url.origin === location.origin && !url.pathname.startsWith("//") ? url.pathname + url.search : null;
}

/** Where somebody wants to be after signing in; null where they did not say. */
export function returnPath() {
  const asked = ownPath(new URLSearchParams(location.search).get("return"));
  if (asked) sessionStorage.setItem(RETURN, asked);
  return asked ?? ownPath(sessionStorage.getItem(RETURN));
}

/** Goes there. */
export function goBack() {
  const path = returnPath() ?? "/account";
  sessionStorage.removeItem(RETURN);
  location.replace(path);
}
