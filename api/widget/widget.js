// The widget <kindred-list>: the live list of an item, for any page of any shop. One file, no dependencies, no build step.
//
//   a script, async, src="https://recs.example/widget.js"; then <kindred-list item="SKU-1" public-key="kd_pk_…"></kindred-list>
//   (the end tag of a script does not stand in this file: pages may put the file between two of them)
//
//   <kindred-list> … ──▶ Connection (one for each server and key) ──GET list, one stream for all lists──▶ cards
//                                └──POST /v1/events/interactions──▶ impressions and clicks of all elements
//
// What comes from the server is data: it reaches the page by textContent and checked URLs alone. Nothing is set on the element itself,
// which belongs to the page and to its framework. docs/WIDGET.md describes attributes, theming, DOM events and privacy.
(() => {
  "use strict";
  if (customElements.get("kindred-list")) return; // pasted twice

  /**
   * Where this script was served, without `/widget.js`; null where it was inlined, combined with others or copied elsewhere. A module
   * has no `currentScript`; the stack of an error names the running script however it was loaded.
   */
  const SERVED_FROM = (() => {
    const address = document.currentScript?.src || new Error().stack?.match(/(https?:\/\/\S+?):\d+(?::\d+)?\)?$/m)?.[1];
    if (!address) return null;
    const url = new URL(address);
    return url.pathname.endsWith("/widget.js") ? url.origin + url.pathname.slice(0, -"/widget.js".length) : null;
  })();
  const SESSION_KEY = "kindred.session";
  const LIMIT_MAX = 50; // what the API gives at most
  const REQUEST_MS = 8_000; // each request, its body included; a stream has this long to open
  const SKELETON_MS = 5_000; // without a list by then the element hides, and shows itself when one comes
  const ATTEMPTS_MAX = 4; // fetches of a list that has never come, before the element waits for the visitor or the network to return
  const STREAMS_MAX = 3; // of a browser to one server: HTTP/1.1 has six connections for all windows, and other requests need some
  const LISTS_MAX = 20; // on one stream; of more, the others are polled
  const STREAM_FAILURES_MAX = 3; // in a row, before the lists are polled instead
  const REOPEN_MS = 100; // a stream takes up lists that come within this time together
  const POLL_MS = 10_000;
  const POLLS_BEFORE_STREAM = 6; // while polling, the stream is tried again this often
  const BACKOFF_MS_MAX = 30_000;
  const SEEN_SHARE = 0.5; // an impression: half of the card in view …
  const SEEN_MS = 1_000; // … for a second (the usual definition of a viewable impression)
  const FLUSH_MS = 2_000;
  const READY_MS = 4_000; // frameworks set attributes after they have inserted the element; what is missing is told after this time
  const QUEUE_MAX = 200; // events kept while the server cannot be reached; the oldest fall out
  const MOVE_MS = 450;
  const MARK_MS = 2_500; // how long a changed card keeps the parts `new`, `moved-up`, `moved-down`, `changed`
  const ANNOUNCE_MS = 10_000; // a screen reader hears of changes at most this often

  const STYLE = new CSSStyleSheet(); // a constructed sheet, so that `style-src 'self'` of the shop's CSP allows it
  STYLE.replaceSync(`
    :host { display: block; color: var(--kindred-color, inherit); font: var(--kindred-font, inherit);
      --_muted: var(--kindred-muted, color-mix(in srgb, currentColor 62%, transparent));
      --_line: var(--kindred-line, color-mix(in srgb, currentColor 14%, transparent));
      --_accent: var(--kindred-accent, #0b7a5b); }
    :host([hidden]) { display: none; }
    h2 { font-size: 1.1em; margin: 0 0 .7em; line-height: 1.3; }
    ul { list-style: none; margin: 0; padding: 0; display: grid; gap: var(--kindred-gap, .9rem);
      grid-template-columns: repeat(auto-fill, minmax(min(100%, var(--kindred-card-width, 10.5rem)), 1fr)); }
    li { min-width: 0; position: relative; }
    .card { display: flex; flex-direction: column; gap: .25em; box-sizing: border-box; height: 100%; padding: .6em .6em .75em;
      color: inherit; text-decoration: none; background: var(--kindred-card-background, transparent);
      border: 1px solid var(--_line); border-radius: var(--kindred-radius, .8rem);
      transition: border-color .2s, box-shadow .2s, background-color .6s; }
    a.card:hover { border-color: var(--_accent); }
    .card:focus-visible { outline: 3px solid var(--_accent); outline-offset: 2px; }
    .card[data-change] { border-color: var(--_accent); box-shadow: 0 0 0 2px var(--_accent);
      background: var(--kindred-highlight, color-mix(in srgb, var(--_accent) 12%, transparent)); }
    img, .blank { width: 100%; aspect-ratio: var(--kindred-image-aspect, 1); object-fit: cover; background: var(--_line);
      border-radius: calc(var(--kindred-radius, .8rem) * .7); }
    .title { font-weight: 600; line-height: 1.3; overflow-wrap: anywhere; display: -webkit-box; -webkit-box-orient: vertical;
      -webkit-line-clamp: 2; overflow: hidden; margin-top: .25em; }
    .price { font-variant-numeric: tabular-nums; }
    .reason { color: var(--_muted); font-size: .82em; line-height: 1.35; }
    .bone { background: var(--_line); border-radius: .3em; height: .8em; }
    .bone.short { width: 45%; }
    [hidden] { display: none; }
    .status { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
    @media (prefers-reduced-motion: no-preference) {
      .skeleton { animation: breathe 1.4s ease-in-out infinite alternate; }
      @keyframes breathe { to { opacity: .45; } } }
    @media (prefers-reduced-motion: reduce) { .card { transition: none; } }`);

  const NOTHING = new CSSStyleSheet(); // hides the element from within: an attribute on it would break hydration
  NOTHING.replaceSync(":host { display: none !important; }");

  const debug = (...words) => console.debug("kindred-list:", ...words);
  const warned = new Set();
  /** Tells the developer of the page what to change, once for all elements. */
  function warn(text) {
    if (warned.has(text)) return;
    warned.add(text);
    console.warn(`kindred-list: ${text}`);
  }
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  /** An element with its class doubling as its part; text is text, never markup. */
  function make(tag, part, text) {
    const element = document.createElement(tag);
    if (part) { element.className = part; element.setAttribute("part", part); }
    if (text !== undefined) element.textContent = text;
    return element;
  }

  /** Puts children into an element, and returns it. */
  const within = (element, ...children) => { element.replaceChildren(...children); return element; };

  /** Absolute form of an http(s) or relative address, or null: a `javascript:` in a catalog goes nowhere. */
  function safeUrl(value) {
    if (typeof value !== "string" || value === "") return null;
    try {
      const url = new URL(value, document.baseURI);
      return url.protocol === "https:" || url.protocol === "http:" ? url.href : null;
    } catch { return null; }
  }

  /** The currency decides how many minor units make one: 100 cents, but 1 yen and 1,000 fils. */
  function formatPrice(price) {
    if (!price || !Number.isFinite(price.amount_minor) || typeof price.currency !== "string") return null;
    try {
      const format = new Intl.NumberFormat(navigator.languages, { style: "currency", currency: price.currency });
      return format.format(price.amount_minor / 10 ** format.resolvedOptions().maximumFractionDigits);
    } catch { return null; }
  }

  /** Lets an element come from where it was; one that was nowhere fades in. */
  function glide(element, from) {
    const to = element.getBoundingClientRect();
    const [x, y] = from ? [from.left - to.left, from.top - to.top] : [0, 0];
    const transform = [from ? `translate(${x}px, ${y}px)` : "scale(.92)", "none"];
    if (!from || x || y) element.animate({ transform, opacity: [from ? 1 : 0, 1] }, { duration: MOVE_MS, easing: "cubic-bezier(.2, .8, .2, 1)" });
  }

  /** Waits longer after each failure, with jitter, so that a thousand pages do not come back in one moment. */
  const backoffMs = (failures) => Math.min(BACKOFF_MS_MAX, 500 * 2 ** failures) * (0.75 + Math.random() / 2);

  let unstored = null; // where storage is blocked: one page long
  /**
   * The anonymous session of this browser: a random id that says nothing about the visitor. Storage is read each time, so that the page
   * can begin another session (at sign-in and sign-out) by setting or removing the entry.
   */
  function sessionId() {
    let session = unstored;
    try { session = localStorage.getItem(SESSION_KEY) ?? unstored; } catch { /* blocked */ }
    if (session) return session;
    const hex = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0"));
    session = `s-${hex.join("")}`;
    try { localStorage.setItem(SESSION_KEY, session); } catch { unstored = session; }
    return session;
  }

  /** A request with a time limit, which also covers reading the answer. `abort` ends it earlier. */
  async function request(url, options, read, abort = new AbortController()) {
    const limit = setTimeout(() => abort.abort(new DOMException(`no answer within ${REQUEST_MS / 1_000} s`, "TimeoutError")), REQUEST_MS);
    try {
      return await read(await fetch(url, { credentials: "omit", signal: abort.signal, ...options }));
    } finally { clearTimeout(limit); }
  }

  /** One of the few streams that all windows of this browser may hold to a server: a function that gives it back, or null. */
  async function streamSlot(server) {
    if (!navigator.locks) return () => {}; // not a secure context
    for (let n = 1; n <= STREAMS_MAX; n += 1) {
      const taken = await new Promise((answer) => {
        const hold = (lock) => (lock ? new Promise((release) => { answer(release); }) : answer(null));
        navigator.locks.request(`kindred-stream-${n} ${server}`, { ifAvailable: true }, hold).catch(() => answer(() => {}));
      });
      if (taken) return taken;
    }
    return null;
  }

  /** What the elements of a page share that ask one server with one key: the stream, the clock, events on their way, a refusal. */
  class Connection {
    static #all = new Map();
    static {
      const flush = () => Connection.#all.forEach((connection) => connection.flush());
      document.addEventListener("visibilitychange", () => { if (document.hidden) flush(); });
      addEventListener("pagehide", flush);
    }

    static of(base, key) {
      const name = JSON.stringify([base, key]);
      if (!Connection.#all.has(name)) Connection.#all.set(name, new Connection(base, key));
      return Connection.#all.get(name);
    }

    /** Why nothing is asked with this key from this page any more, where asking again will not help. */
    refused = null;
    #base; #key;
    #clockMs = 0; // the server's clock minus the browser's
    #followers = new Map(); // path of a list → its followers, { take, reload }
    #source = null; #carried = new Set(); #opening = false; #release = null; #timer = 0; #othersTimer = 0; #failures = 0; #polls = 0;
    #queue = []; #flushTimer = 0; #flushFailures = 0;

    constructor(base, key) { this.#base = base; this.#key = key; }

    #address(path) {
      const url = new URL(`${this.#base}/v1/${path}`);
      url.searchParams.set("key", this.#key);
      return url;
    }

    /** Now, by the server's clock: a visitor's may be hours off, and the server accepts no time ahead of its own. */
    now() { return new Date(Date.now() + this.#clockMs); }

    /** Learns the server's clock from the header `Date`, which has whole seconds. A clock that may be right is left as it is. */
    #hear(answer, sent) {
      const date = Date.parse(answer.headers.get("Date"));
      if (Number.isNaN(date)) return;
      const [least, most] = [date - Date.now(), date + 1_000 - sent];
      if (least <= 0 && most >= 0) this.#clockMs = 0;
      else if (this.#clockMs < least || this.#clockMs > most) this.#clockMs = (least + most) / 2;
    }

    /** A list by GET: { body, position, recoId }, or { problem } and whether it is `final`. The browser's cache revalidates by ETag. */
    async list(path, abort) {
      if (this.refused) return { problem: this.refused, final: true };
      const sent = Date.now();
      try {
        return await request(this.#address(path), { cache: "no-cache" }, async (answer) => {
          this.#hear(answer, sent);
          if (!answer.ok) return this.#refusal(answer);
          const body = await answer.json().catch((error) => { if (error.name === "SyntaxError") return null; throw error; });
          if (!Array.isArray(body?.items)) return this.#notKindred();
          const position = answer.headers.get("Kindred-As-Of")?.split(/[;, ]/)[0] ?? null;
          return { body, position, recoId: answer.headers.get("Kindred-Reco-Id") };
        }, abort);
      } catch (error) {
        const advice = `Check that ${this.#base} is the address of Kindred (attribute base), that it runs, that ${location.origin} is one of the origins of the key, and that a content security policy of the page allows it (connect-src).`;
        return { problem: error.name === "TimeoutError" ? error.message : `no answer that this page may read (${error.message})`, final: false, advice };
      }
    }

    #notKindred() {
      const problem = `${this.#base} did not answer as Kindred does`;
      warn(`${problem}. Set the attribute base to the address of Kindred, such as base="https://recs.example.com".`);
      return { problem, final: true };
    }

    /** What an answer means that has no list. The server says what is wrong as problem details (RFC 9457). */
    async #refusal(answer) {
      const { status } = answer;
      const passing = status >= 500 || status === 408 || status === 425 || status === 429;
      const problem = await answer.json().catch((error) => { if (error.name === "SyntaxError") return null; throw error; });
      const said = problem?.detail ?? problem?.title ?? `status ${status}`;
      if (passing) return { problem: `the server answered ${status}: ${said}`, final: false };
      if (!problem?.code) return this.#notKindred();
      const key = `the key ${this.#key.slice(0, 12)}…`;
      const advice = {
        origin_not_allowed: `${location.origin} is not one of the origins of ${key}. Add it to them, or make a key for it: kindred keys create publishable --origin ${location.origin}.`,
        unauthorized: `${key} was refused by ${this.#base} (${said}). Set the attribute public-key to a publishable key of that server; kindred keys create publishable makes one.`,
        insufficient_scope: `${key} may not read lists (${said}). Use a publishable key with the scope lists:read.`,
      }[problem.code];
      if (advice) this.refused = said;
      warn(advice ?? `the server refused the list (${problem.code}): ${said}`);
      return { problem: said, final: true };
    }

    /** Follows a list until `leave` with the same arguments. */
    follow(path, follower) {
      if (!this.#followers.has(path)) this.#followers.set(path, new Set());
      this.#followers.get(path).add(follower);
      this.#adjust();
    }

    leave(path, follower) {
      const followers = this.#followers.get(path);
      if (!followers?.delete(follower)) return;
      if (followers.size === 0) this.#followers.delete(path);
      if (this.#followers.size === 0) this.#close();
    }

    #close() {
      clearTimeout(this.#timer);
      this.#timer = 0;
      this.#source?.close();
      this.#source = null;
      this.#carried.clear();
      this.#release?.();
      this.#release = null;
    }

    /** Opens the stream again where it lacks a list that is followed; what it carries beyond that is not listened to. */
    #adjust() {
      if (this.#followers.size > LISTS_MAX) this.#othersTimer ||= setTimeout(() => this.#pollOthers(), POLL_MS);
      if (this.#timer || this.#opening || this.#followers.size === 0) return;
      if (this.#source && this.#streamed().every((path) => this.#carried.has(path))) return;
      this.#timer = setTimeout(() => { this.#timer = 0; this.#open(); }, REOPEN_MS);
    }

    #streamed() { return [...this.#followers.keys()].slice(0, LISTS_MAX); }

    async #open() {
      if (!("EventSource" in window) || this.#failures >= STREAM_FAILURES_MAX) return this.#poll();
      this.#opening = true;
      this.#release ??= await streamSlot(this.#base);
      this.#opening = false;
      if (this.#followers.size === 0) return this.#close();
      if (!this.#release) return this.#poll();
      this.#source?.close();
      const paths = this.#streamed();
      this.#carried = new Set(paths);
      const alone = paths.length === 1; // a list has a stream of its own
      const url = this.#address(alone ? paths[0].replace("?", "/stream?") : "stream");
      if (!alone) for (const path of paths) url.searchParams.append("list", path);
      const source = (this.#source = new EventSource(url));
      const fail = () => {
        if (source !== this.#source) return;
        this.#close();
        this.#failures += 1;
        // The lists say by GET what is wrong, if anything is; the stream follows.
        this.#timer = setTimeout(() => { this.#timer = 0; this.#reload(); this.#adjust(); }, backoffMs(this.#failures));
      };
      let limit = setTimeout(fail, REQUEST_MS);
      source.onopen = () => clearTimeout(limit);
      source.onerror = () => {
        clearTimeout(limit);
        // While it says CONNECTING the browser comes back by itself, with Last-Event-ID; CLOSED is for us.
        if (source.readyState === EventSource.CLOSED) fail(); else limit = setTimeout(fail, 2 * REQUEST_MS);
      };
      const take = ({ data, lastEventId }) => {
        if (source !== this.#source) return;
        this.#failures = this.#polls = 0;
        try {
          const event = JSON.parse(data);
          this.#followers.get(event.list ?? paths[0])?.forEach((follower) => follower.take(event, lastEventId.split("~")[0] || null));
        } catch (error) { debug(error.message); }
      };
      for (const name of ["list", "message"]) source.addEventListener(name, take);
    }

    #reload(paths = this.#followers.keys()) {
      for (const path of [...paths]) this.#followers.get(path)?.forEach((follower) => follower.reload());
    }

    /** Where no stream gets through (some proxies) or none is free, the lists are asked for again and again, the stream now and then. */
    #poll() {
      if (this.#polls === 0) debug("no stream gets through or none is free, polling instead");
      this.#polls += 1;
      this.#timer = setTimeout(() => {
        this.#timer = 0;
        this.#reload();
        if (this.#polls % POLLS_BEFORE_STREAM === 0) this.#failures = Math.min(this.#failures, STREAM_FAILURES_MAX - 1);
        this.#open();
      }, POLL_MS);
    }

    /** Lists beyond those of the stream. */
    #pollOthers() {
      this.#othersTimer = 0;
      if (this.#source) this.#reload([...this.#followers.keys()].slice(LISTS_MAX));
      this.#adjust();
    }

    /** Puts an event among those on their way. */
    record(event) {
      this.#queue = [...this.#queue, event].slice(-QUEUE_MAX);
      this.#flushTimer ||= setTimeout(() => this.flush(), FLUSH_MS);
    }

    /** Sends what has gathered; `keepalive` lets the request outlive the page. Sending an event twice is harmless: it merges. */
    async flush() {
      clearTimeout(this.#flushTimer);
      this.#flushTimer = 0;
      const events = this.#queue.splice(0);
      if (events.length === 0) return;
      const headers = { "Content-Type": "application/json", Authorization: `Bearer ${this.#key}` };
      const sent = Date.now();
      const [status, said] = await request(`${this.#base}/v1/events/interactions`, { method: "POST", keepalive: true, headers, body: JSON.stringify(events) },
        async (answer) => {
          this.#hear(answer, sent);
          return [answer.status, answer.ok ? "" : (await answer.json().catch(() => null))?.detail ?? ""];
        }).catch((error) => [503, error.message]);
      if (status < 300) { this.#flushFailures = 0; return; }
      if (status < 500 && status !== 429) return warn(`impressions and clicks were refused (${status}) and are dropped: ${said}`);
      debug(`${events.length} events were not accepted (${status}) and wait`);
      this.#queue = [...events, ...this.#queue].slice(-QUEUE_MAX);
      this.#flushFailures += 1;
      this.#flushTimer ||= setTimeout(() => this.flush(), FLUSH_MS + backoffMs(this.#flushFailures));
    }
  }

  class KindredList extends HTMLElement {
    static #attributes = ["item", "public-key", "key", "base", "limit", "view", "heading", "no-stream", "no-track"];
    static observedAttributes = KindredList.#attributes.filter((name) => name !== "no-track"); // it is looked at when there is something to send

    /** Each attribute is a property as well (`publicKey`, `noStream`), as frameworks and scripts set them. */
    static #properties = KindredList.#attributes.map((name) => [name.replace(/-(.)/g, (_, letter) => letter.toUpperCase()), name]);
    static {
      for (const [property, name] of KindredList.#properties) {
        const flag = name.startsWith("no-");
        Object.defineProperty(KindredList.prototype, property, {
          configurable: true,
          enumerable: true,
          get() { return flag ? this.hasAttribute(name) : name === "limit" ? this.#limit : this.getAttribute(name); },
          set(value) {
            if (flag) this.toggleAttribute(name, Boolean(value));
            else if (value === null || value === undefined) this.removeAttribute(name);
            else this.setAttribute(name, value);
          },
        });
      }
    }

    /** Texts, for a page in another language: `customElements.get("kindred-list").strings.heading = "…"`. */
    static strings = {
      heading: "Often bought together",
      together: (n) => `bought by ${n} who bought this`,
      category: "popular in this category",
      popular: "popular right now",
      updated: (title) => `List updated, now first: ${title}`,
    };

    // What is shown.
    #list = make("ul", "list");
    #heading = make("h2", "heading");
    #status = make("p", "status");
    #cards = new Map(); // item → { li, card, entry, rank, seenTimer }, in order
    #internals = this.attachInternals?.();
    #isEmpty = false; // nothing to show: the element hides itself, by no attribute
    #skeletonTimer = 0;
    #announcedAt = 0;
    // How it is followed.
    #connection = null; #path = null; #follower = null;
    #abort = null; // of the newest request: an answer to an older one is dropped
    #timer = 0; #listening = null;
    #onScreen = false; #following = false; #gaveUp = false; #isRefused = false; #restarting = false;
    // What is told.
    #reco = null; #generation = null;
    #seen = new Set(); // "reco id, item": one impression each
    #screen = new IntersectionObserver((entries) => { this.#onScreen = entries.at(-1).isIntersecting; this.#follow(); });
    #watch = new IntersectionObserver((seen) => seen.forEach((entry) => this.#glimpsed(entry)), { threshold: [0, SEEN_SHARE] });

    constructor() {
      super();
      const section = within(make("section", "section"), this.#heading, this.#list, this.#status);
      this.#heading.id = "heading";
      section.setAttribute("aria-labelledby", "heading");
      this.#list.setAttribute("role", "list"); // Safari forgets it under `list-style: none`
      this.#list.addEventListener("keydown", (event) => this.#arrow(event));
      this.#status.setAttribute("aria-live", "polite");
      const root = this.attachShadow({ mode: "open" });
      root.adoptedStyleSheets = [STYLE];
      root.append(section);
    }

    connectedCallback() {
      for (const [property] of KindredList.#properties) {
        // Set before this script ran: an own property that hides the accessor.
        if (!Object.hasOwn(this, property)) continue;
        const value = this[property];
        delete this[property];
        this[property] = value;
      }
      const { signal } = (this.#listening = new AbortController());
      const look = () => {
        if (!document.hidden) this.#gaveUp = false; // the visitor or the network is back: worth another try
        this.#follow();
      };
      document.addEventListener("visibilitychange", look, { signal });
      addEventListener("online", look, { signal });
      this.#restart();
      this.#screen.observe(this);
    }

    disconnectedCallback() {
      this.#listening.abort();
      this.#screen.disconnect();
      this.#onScreen = false;
      this.#stop();
      this.#connection?.flush();
    }

    attributeChangedCallback(name, before, after) {
      if (before === after || !this.isConnected || this.#restarting) return;
      if (name === "heading") return void (this.#heading.textContent = after ?? KindredList.strings.heading);
      this.#restarting = true; // several attributes set at once are one restart
      queueMicrotask(() => { this.#restarting = false; if (this.isConnected) this.#restart(); });
    }

    get #limit() { return Math.min(Math.max(Number.parseInt(this.getAttribute("limit"), 10) || 8, 1), LIMIT_MAX); }

    /** What keeps the element from asking for a list, in words for the developer; null where nothing does. */
    #missing() {
      const base = this.getAttribute("base");
      if (base && !safeUrl(base)) return `base="${base}" is not an address; it is like https://recs.example.com.`;
      if (!base && !SERVED_FROM) return 'the attribute base is missing: this script was not loaded from Kindred\'s own /widget.js, so it cannot tell where Kindred is. Set base="https://recs.example.com".';
      if (!this.getAttribute("item")) return "the attribute item is missing: the product whose list is to be shown.";
      if (!this.publicKey && !this.key) return "the attribute public-key is missing: a publishable key, kd_pk_…. React, Vue and others keep the name key for themselves, so use public-key.";
      return null;
    }

    /** Forgets what is shown and begins again: on connection, and when an attribute says something else. */
    #restart() {
      this.#stop();
      this.#gaveUp = this.#isRefused = false;
      this.#reco = null;
      this.#path = null;
      this.#heading.textContent = this.getAttribute("heading") ?? KindredList.strings.heading;
      if (this.#missing()) {
        this.#hide("an attribute is missing");
        this.#timer = setTimeout(() => { const missing = this.#missing(); if (missing) warn(missing); }, READY_MS);
        return;
      }
      const base = safeUrl(this.getAttribute("base")) ?? SERVED_FROM;
      this.#connection = Connection.of(base.replace(/[/?#]+$/, ""), this.publicKey || this.key);
      const query = new URLSearchParams({ limit: this.#limit });
      if (this.view) query.set("view", this.view);
      this.#path = `items/${encodeURIComponent(this.item)}/similar?${query}`;
      this.#setEmpty(false);
      this.#skeleton();
      this.#follow();
    }

    /** Runs while the list can be seen, rests while it cannot: a tab in the background keeps no stream. Hidden because there was
     *  nothing to show it goes on, since the first pair may come any moment. */
    #follow() {
      const wanted = this.isConnected && this.#path !== null && !document.hidden && !this.#gaveUp && !this.#isRefused && (this.#onScreen || this.#isEmpty);
      if (wanted === this.#following) return;
      if (!wanted) return this.#stop();
      this.#following = true;
      this.#load(0);
    }

    #stop() {
      this.#following = false;
      this.#abort?.abort();
      this.#abort = null;
      if (this.#follower) this.#connection.leave(this.#path, this.#follower);
      this.#follower = null;
      clearTimeout(this.#timer);
      clearTimeout(this.#skeletonTimer);
    }

    /** The list by GET, then by the stream. A list that is shown stays while the server cannot be reached. */
    async #load(failures) {
      clearTimeout(this.#timer);
      this.#abort?.abort();
      const abort = (this.#abort = new AbortController());
      if (failures === 0 && this.#cards.size === 0) {
        clearTimeout(this.#skeletonTimer);
        this.#skeletonTimer = setTimeout(() => this.#hide("no list has come yet"), SKELETON_MS);
      }
      const { body, position, recoId, problem, final, advice } = await this.#connection.list(this.#path, abort);
      if (abort !== this.#abort || !this.#following) return;
      if (body) {
        this.#reco = recoId ?? this.#reco;
        this.#accept(body, position, "fetch");
        if (!this.#follower && !this.hasAttribute("no-stream")) this.#followStream();
        return;
      }
      if (!final && (this.#cards.size > 0 || failures + 1 < ATTEMPTS_MAX)) {
        this.#timer = setTimeout(() => this.#load(failures + 1), backoffMs(failures));
        return;
      }
      if (advice) warn(`${problem}. ${advice}`);
      if (final) this.#isRefused = true; else this.#gaveUp = true;
      this.#stop();
      this.#hide(problem);
    }

    #followStream() {
      this.#follower = {
        take: (body, position) => this.#accept(body, position, "stream"),
        reload: () => this.#load(0),
      };
      this.#connection.follow(this.#path, this.#follower);
    }

    /** Takes in a list body. `kindred:list` tells the page: { body, position, recoId, source, changes }. */
    #accept(body, position, source) {
      if (!Array.isArray(body?.items)) throw new TypeError("the body is not a list");
      clearTimeout(this.#skeletonTimer);
      this.#generation = body.generation ?? null;
      const entries = new Map(body.items.filter((entry) => typeof entry?.item === "string").map((entry) => [entry.item, entry]));
      const shown = [...entries.values()].slice(0, this.#limit);
      let changes = [];
      if (shown.length) { this.#setEmpty(false); changes = this.#render(shown); } else this.#hide("the list is empty");
      const detail = { body, position, recoId: this.#reco, source, changes };
      this.dispatchEvent(new CustomEvent("kindred:list", { bubbles: true, composed: true, detail }));
    }

    #skeleton() {
      this.#cards.clear();
      this.#watch.disconnect();
      this.#list.setAttribute("aria-busy", "true");
      const parts = () => ["blank", "bone", "bone short"].map((part) => make("div", part));
      const bone = () => within(make("li", "skeleton"), within(make("div", "card"), ...parts()));
      this.#list.replaceChildren(...Array.from({ length: Math.min(this.#limit, 4) }, bone));
    }

    /** Draws the list and glides what moved from its old place to its new one (FLIP). Returns what changed, by item. */
    #render(entries) {
      const old = this.#cards;
      const first = old.size === 0;
      const focused = this.shadowRoot.activeElement;
      const places = new Map([...old].map(([item, { li }]) => [item, li.getBoundingClientRect()]));
      const changes = [];
      this.#cards = new Map(entries.map((entry, n) => {
        const shown = old.get(entry.item) ?? this.#card(entry.item);
        const [rank, coCount] = [n + 1, entry.co_count ?? null];
        const [rankBefore, coCountBefore] = [shown.rank, shown.entry?.co_count ?? null];
        const isNew = shown.entry === null;
        this.#fill(shown, entry, rank);
        if (!first && (isNew || rank !== rankBefore || coCount !== coCountBefore)) {
          const kind = isNew ? "new" : rank < rankBefore ? "moved-up" : rank > rankBefore ? "moved-down" : "changed";
          changes.push({ item: entry.item, kind, rank, rankBefore, coCount, coCountBefore });
          // A card that only made room glides, but is not worth a highlight.
          if (isNew || kind === "moved-up" || coCount !== coCountBefore) this.#mark(shown.card, kind);
        }
        return [entry.item, shown];
      }));
      for (const [item, { li, rank, entry }] of old) {
        if (this.#cards.has(item)) continue;
        this.#watch.unobserve(li);
        changes.push({ item, kind: "gone", rank: null, rankBefore: rank, coCount: null, coCountBefore: entry.co_count ?? null });
      }
      const order = [...this.#cards.values()].map(({ li }) => li);
      const inPlace = this.#list.children.length === order.length && order.every((li, n) => this.#list.children[n] === li);
      if (!inPlace) this.#list.replaceChildren(...order);
      if (focused?.isConnected) focused.focus({ preventScroll: true }); // moving an element takes its focus away
      this.#list.removeAttribute("aria-busy");
      if (!calm.matches && !first) for (const [item, { li }] of this.#cards) glide(li, places.get(item));
      if (!first && old.keys().next().value !== entries[0].item && Date.now() - this.#announcedAt > ANNOUNCE_MS) {
        this.#announcedAt = Date.now();
        this.#status.textContent = KindredList.strings.updated(entries[0].title ?? entries[0].item);
      }
      return changes;
    }

    #card(item) {
      const li = make("li", "item");
      li.dataset.item = item;
      this.#watch.observe(li);
      return { li, card: null, entry: null, rank: null, seenTimer: 0 };
    }

    /** Builds the card anew only when what it says has changed. */
    #fill(shown, entry, rank) {
      const same = shown.entry !== null && JSON.stringify(shown.entry) === JSON.stringify(entry);
      Object.assign(shown, { entry, rank });
      if (same) return;
      const href = safeUrl(entry.url);
      if (!shown.card || (shown.card.tagName === "A") !== Boolean(href)) {
        shown.card = make(href ? "a" : "div", "card");
        shown.card.addEventListener("click", (event) => this.#clicked(event, shown));
        shown.card.addEventListener("auxclick", (event) => { if (event.button === 1) this.#clicked(event, shown); });
        shown.li.replaceChildren(shown.card);
      }
      if (href) shown.card.href = href;
      const source = safeUrl(entry.image);
      let picture = shown.card.querySelector("img");
      if (!source) picture = make("div", "blank");
      else if (picture?.src !== source) picture = Object.assign(make("img", "image"), { alt: "", decoding: "async", src: source });
      const price = formatPrice(entry.price);
      const reason = this.#reason(entry.because?.[0]);
      shown.card.replaceChildren(picture, make("span", "title", entry.title ?? entry.item),
        ...(price ? [make("span", "price", price)] : []), ...(reason ? [make("span", "reason", reason)] : []));
    }

    #reason(because) {
      const { strings } = KindredList;
      if (because?.fill) return String(because.fill).startsWith("category") ? strings.category : strings.popular;
      return because?.co_count > 0 ? strings.together(new Intl.NumberFormat(navigator.languages).format(because.co_count)) : null;
    }

    #mark(card, kind) {
      card.dataset.change = kind;
      card.setAttribute("part", `card ${kind}`);
      clearTimeout(card.markTimer);
      card.markTimer = setTimeout(() => { delete card.dataset.change; card.setAttribute("part", "card"); }, MARK_MS);
    }

    /** Arrow keys, Home and End walk the list; Tab works as everywhere. */
    #arrow(event) {
      const links = [...this.#list.querySelectorAll("a.card")];
      const at = links.indexOf(this.shadowRoot.activeElement);
      if (at < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
      const columns = getComputedStyle(this.#list).gridTemplateColumns.split(" ").length;
      const right = getComputedStyle(this).direction === "rtl" ? -1 : 1;
      const arrows = { ArrowRight: right, ArrowLeft: -right, ArrowDown: columns, ArrowUp: -columns };
      const to = at + { ...arrows, Home: -at, End: links.length - 1 - at }[event.key];
      if (links[to] === undefined) return;
      event.preventDefault();
      links[to].focus();
    }

    /** Hides the element, or shows it again, from within its shadow root. The page can style and ask for `:state(empty)`. */
    #setEmpty(isEmpty) {
      this.#isEmpty = isEmpty;
      this.shadowRoot.adoptedStyleSheets = isEmpty ? [STYLE, NOTHING] : [STYLE];
      try { this.#internals?.states[isEmpty ? "add" : "delete"]("empty"); } catch { /* browsers before the syntax of :state() */ }
    }

    #hide(why) {
      if (!this.#isEmpty) debug(`hidden, ${why}:`, this.getAttribute("item") ?? "");
      clearTimeout(this.#skeletonTimer);
      this.#setEmpty(true);
      this.#cards.clear();
      this.#watch.disconnect();
      this.#list.replaceChildren();
    }

    #glimpsed({ target, isIntersecting, intersectionRatio }) {
      const shown = this.#cards.get(target.dataset.item);
      if (!shown) return;
      clearTimeout(shown.seenTimer);
      if (!isIntersecting || intersectionRatio < SEEN_SHARE) return;
      shown.seenTimer = setTimeout(() => {
        const once = `${this.#reco} ${shown.entry.item}`;
        if (!shown.li.isConnected || document.hidden || this.#seen.has(once)) return;
        this.#seen.add(once);
        this.#record("impression", shown);
      }, SEEN_MS);
    }

    /** `kindred:click` tells the page; `preventDefault()` on it keeps the browser where it is (a page that navigates itself). */
    #clicked(event, shown) {
      this.#record("click", shown);
      this.#connection.flush(); // the page may be gone in a moment
      const cancelable = event.type === "click" && !event.ctrlKey && !event.metaKey && !event.shiftKey;
      const detail = { entry: shown.entry, rank: shown.rank, recoId: this.#reco };
      const click = new CustomEvent("kindred:click", { bubbles: true, composed: true, cancelable, detail });
      if (!this.dispatchEvent(click)) event.preventDefault();
    }

    #record(kind, { entry, rank }) {
      if (this.hasAttribute("no-track") || navigator.globalPrivacyControl || navigator.doNotTrack === "1") return;
      const event = { session: sessionId(), kind, item: entry.item, at: this.#connection.now().toISOString(), rank };
      if (this.#reco) event.reco_id = this.#reco;
      if (this.#generation) event.generation = this.#generation;
      this.#connection.record(event);
    }
  }

  customElements.define("kindred-list", KindredList);
})();
