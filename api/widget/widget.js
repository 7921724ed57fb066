// The widget <kindred-list>: the live list of an item, for any page of any shop. One file, no dependencies, no build step.
//
//   <script async src="https://recs.example/widget.js"></script>
//   <kindred-list item="SKU-1" key="kd_pk_…"></kindred-list>
//
//   list (GET, ETag) ──▶ cards ◀── stream (server-sent events)     impressions, clicks ──▶ POST /v1/events/interactions
//
// What comes from the server is data: it reaches the page by textContent and checked URLs alone. Works as a classic script and
// as a module. docs/WIDGET.md describes attributes, theming, DOM events and privacy.
(() => {
  "use strict";
  if (customElements.get("kindred-list")) return; // pasted twice

  const SCRIPT = document.currentScript ?? document.querySelector('script[src*="/widget.js"]');
  const ORIGIN = SCRIPT?.src ? new URL(SCRIPT.src).origin : location.origin;
  const SESSION_KEY = "kindred.session";
  const LIMIT_MAX = 50; // what the API gives at most
  const ATTEMPTS_MAX = 4; // fetches before the widget gives up and hides; some 7 s in all
  const STREAM_FAILURES_MAX = 3; // in a row, before it polls instead
  const POLL_MS = 10_000;
  const POLLS_BEFORE_STREAM = 6; // while polling, the stream is tried again this often
  const BACKOFF_MS_MAX = 30_000;
  const SEEN_SHARE = 0.5; // an impression: half of the card in view …
  const SEEN_MS = 1_000; // … for a second (the usual definition of a viewable impression)
  const FLUSH_MS = 2_000;
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

  const debug = (...words) => console.debug("kindred-list:", ...words);
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

  let pageSession = null;
  /** The anonymous session of this browser: a random id that says nothing about the visitor. */
  function sessionId() {
    if (pageSession) return pageSession;
    try { pageSession = localStorage.getItem(SESSION_KEY); } catch { /* storage is blocked: one page long then */ }
    if (!pageSession) {
      const hex = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0"));
      pageSession = `s-${hex.join("")}`;
      try { localStorage.setItem(SESSION_KEY, pageSession); } catch { /* as above */ }
    }
    return pageSession;
  }

  class KindredList extends HTMLElement {
    static observedAttributes = ["item", "key", "base", "limit", "view", "heading", "no-stream"];

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
    #hiding = false; // by us, not by the page
    #announcedAt = 0;
    // How it is followed.
    #run = 0; // grows with every stop: an answer to an older question is dropped
    #abort = null; #source = null; #timer = 0; #streamFailures = 0; #listening = null;
    #onScreen = false; #following = false; #gaveUp = false; #restarting = false;
    // What is told.
    #reco = null; #generation = null; #queue = []; #flushTimer = 0;
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
      const { signal } = (this.#listening = new AbortController());
      const look = () => {
        if (document.hidden) this.#flush();
        else this.#gaveUp = false; // the visitor or the network is back: worth another try
        this.#follow();
      };
      document.addEventListener("visibilitychange", look, { signal });
      addEventListener("online", look, { signal });
      addEventListener("pagehide", () => this.#flush(), { signal });
      this.#restart();
      this.#screen.observe(this);
    }

    disconnectedCallback() {
      this.#listening.abort();
      this.#screen.disconnect();
      this.#onScreen = false;
      this.#stop();
      this.#flush();
    }

    attributeChangedCallback(name, before, after) {
      if (before === after || !this.isConnected || this.#restarting) return;
      if (name === "heading") return void (this.#heading.textContent = after ?? KindredList.strings.heading);
      this.#restarting = true; // several attributes set at once are one restart
      queueMicrotask(() => { this.#restarting = false; if (this.isConnected) this.#restart(); });
    }

    get #ready() { return Boolean(this.getAttribute("item") && this.getAttribute("key")); }
    get #limit() { return Math.min(Math.max(Number.parseInt(this.getAttribute("limit"), 10) || 8, 1), LIMIT_MAX); }
    #address(path) { return new URL(path, safeUrl(this.getAttribute("base")) ?? ORIGIN); }

    #listAddress(tail) {
      const url = this.#address(`/v1/items/${encodeURIComponent(this.getAttribute("item"))}/similar${tail}`);
      const query = { view: this.getAttribute("view"), limit: String(this.#limit), key: this.getAttribute("key") };
      for (const [name, value] of Object.entries(query)) if (value) url.searchParams.set(name, value);
      return url;
    }

    /** Forgets what is shown and begins anew: on connection, and when an attribute says something else. */
    #restart() {
      this.#stop();
      this.#streamFailures = 0;
      this.#gaveUp = false;
      this.#reco = null;
      this.#heading.textContent = this.getAttribute("heading") ?? KindredList.strings.heading;
      if (!this.#ready) return this.#hide("it needs the attributes item and key");
      this.#show();
      this.#skeleton();
      this.#follow();
    }

    /** Runs while the list can be seen, rests while it cannot: a tab in the background keeps no stream. Hidden because there was
     *  nothing to show it goes on, since the first pair may come any moment. */
    #follow() {
      const wanted = this.isConnected && this.#ready && !document.hidden && !this.#gaveUp && (this.#onScreen || this.#hiding);
      if (wanted === this.#following) return;
      if (!wanted) return this.#stop();
      this.#following = true;
      this.#load(0);
    }

    #stop() {
      this.#following = false;
      this.#run += 1;
      this.#abort?.abort();
      this.#source?.close();
      clearTimeout(this.#timer);
    }

    /** The list by GET. The browser's cache revalidates by ETag, so an unchanged list costs a 304. */
    async #load(failures, then = () => this.#openStream()) {
      const run = this.#run;
      this.#abort = new AbortController();
      let problem;
      let final = failures + 1 >= ATTEMPTS_MAX;
      try {
        const answer = await fetch(this.#listAddress(""), { cache: "no-cache", credentials: "omit", signal: this.#abort.signal });
        const body = answer.ok ? await answer.json() : null;
        if (run !== this.#run) return;
        if (body) {
          this.#reco = answer.headers.get("Kindred-Reco-Id") ?? this.#reco;
          this.#accept(body, answer.headers.get("Kindred-As-Of")?.split(/[;, ]/)[0] ?? null, "fetch");
          return then();
        }
        problem = `the server answered ${answer.status}`;
        final ||= answer.status < 500 && answer.status !== 408 && answer.status !== 429; // asking again will not help
      } catch (error) { problem = error.message; }
      if (run !== this.#run) return;
      if (!final) return void (this.#timer = setTimeout(() => this.#load(failures + 1, then), backoffMs(failures)));
      this.#gaveUp = true;
      this.#stop();
      this.#hide(problem);
    }

    #openStream() {
      if (this.hasAttribute("no-stream") || !("EventSource" in window)) return;
      if (this.#streamFailures >= STREAM_FAILURES_MAX) return this.#poll(1);
      const run = this.#run;
      const source = (this.#source = new EventSource(this.#listAddress("/stream")));
      const take = ({ data, lastEventId }) => {
        if (run !== this.#run) return;
        this.#streamFailures = 0;
        // The id is `position~digest`; the server reads it again as Last-Event-ID.
        try { this.#accept(JSON.parse(data), lastEventId.split("~")[0] || null, "stream"); } catch (error) { debug(error.message); }
      };
      for (const name of ["list", "message"]) source.addEventListener(name, take);
      source.onerror = () => {
        // While it says CONNECTING the browser comes back by itself, with Last-Event-ID; CLOSED is for us.
        if (run !== this.#run || source.readyState !== EventSource.CLOSED) return;
        this.#streamFailures += 1;
        this.#timer = setTimeout(() => this.#load(0), backoffMs(this.#streamFailures));
      };
    }

    /** Where no stream gets through (some proxies), the list is asked for again and again, and the stream now and then. */
    #poll(round) {
      if (round === 1) debug("no stream gets through, polling instead");
      const again = round >= POLLS_BEFORE_STREAM;
      if (again) this.#streamFailures = STREAM_FAILURES_MAX - 1;
      this.#timer = setTimeout(() => this.#load(0, again ? undefined : () => this.#poll(round + 1)), POLL_MS);
    }

    /** Takes in a list body. `kindred:list` tells the page: { body, position, recoId, source, changes }. */
    #accept(body, position, source) {
      if (!Array.isArray(body?.items)) throw new TypeError("the body is no list");
      this.#generation = body.generation ?? null;
      const entries = new Map(body.items.filter((entry) => typeof entry?.item === "string").map((entry) => [entry.item, entry]));
      const shown = [...entries.values()].slice(0, this.#limit);
      let changes = [];
      if (shown.length) { this.#show(); changes = this.#render(shown); } else this.#hide("the list is empty");
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

    #show() {
      if (this.#hiding) this.hidden = this.#hiding = false;
    }

    #hide(why) {
      if (!this.#hiding) debug(`hidden, ${why}:`, this.getAttribute("item") ?? "");
      this.hidden = this.#hiding = true;
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
      this.#flush(); // the page may be gone in a moment
      const cancelable = event.type === "click" && !event.ctrlKey && !event.metaKey && !event.shiftKey;
      const detail = { entry: shown.entry, rank: shown.rank, recoId: this.#reco };
      const click = new CustomEvent("kindred:click", { bubbles: true, composed: true, cancelable, detail });
      if (!this.dispatchEvent(click)) event.preventDefault();
    }

    #record(kind, { entry, rank }) {
      if (this.hasAttribute("no-track") || navigator.globalPrivacyControl || navigator.doNotTrack === "1") return;
      const event = { session: sessionId(), kind, item: entry.item, at: new Date().toISOString(), rank };
      if (this.#reco) event.reco_id = this.#reco;
      if (this.#generation) event.generation = this.#generation;
      this.#queue = [...this.#queue, event].slice(-QUEUE_MAX);
      this.#flushTimer ||= setTimeout(() => this.#flush(), FLUSH_MS);
    }

    /** Sends what has gathered; `keepalive` lets the request outlive the page. Sending an event twice is harmless: it merges. */
    async #flush() {
      clearTimeout(this.#flushTimer);
      this.#flushTimer = 0;
      const events = this.#queue.splice(0);
      if (events.length === 0) return;
      const headers = { "Content-Type": "application/json", Authorization: `Bearer ${this.getAttribute("key")}` };
      const request = { method: "POST", keepalive: true, credentials: "omit", headers, body: JSON.stringify(events) };
      const answer = await fetch(this.#address("/v1/events/interactions"), request).catch(() => ({ ok: false, status: 503 }));
      if (answer.ok) return;
      const later = answer.status >= 500 || answer.status === 429;
      debug(`${events.length} events were not taken (${answer.status})`, later ? "and wait" : "and are dropped");
      if (later) this.#queue = [...events, ...this.#queue].slice(-QUEUE_MAX); // they go with the next flush
    }
  }

  customElements.define("kindred-list", KindredList);
})();
