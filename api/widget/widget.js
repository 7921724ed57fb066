// The widget <kindred-list>: the live list of an item, for any page of any shop. One file, no dependencies, no build step.
//
//   <script async src="https://recs.example/widget.js"></script>
//   <kindred-list item="SKU-1" key="kd_pk_…"></kindred-list>
//
//   list (GET, ETag) ──▶ cards ◀── stream (server-sent events)        impressions, clicks ──▶ POST /v1/events/interactions
//
// What comes from the server is data: it reaches the page by textContent and checked URLs alone. Works as a classic script and
// as a module. docs/WIDGET.md describes attributes, theming, DOM events and privacy.
(() => {
  "use strict";
  if (customElements.get("kindred-list")) return; // pasted twice

  const SCRIPT = document.currentScript ?? document.querySelector('script[src*="/widget.js"]');
  const ORIGIN = SCRIPT?.src ? new URL(SCRIPT.src).origin : location.origin;
  const SESSION_KEY = "kindred.session";
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
      --muted: var(--kindred-muted, color-mix(in srgb, currentColor 62%, transparent));
      --line: var(--kindred-line, color-mix(in srgb, currentColor 14%, transparent));
      --accent: var(--kindred-accent, #0b7a5b); }
    :host([hidden]) { display: none; }
    h2 { font-size: 1.1em; margin: 0 0 .7em; line-height: 1.3; }
    ul { list-style: none; margin: 0; padding: 0; display: grid; gap: var(--kindred-gap, .9rem);
      grid-template-columns: repeat(auto-fill, minmax(min(100%, var(--kindred-card-width, 10.5rem)), 1fr)); }
    li { min-width: 0; position: relative; }
    .card { display: flex; flex-direction: column; gap: .25em; box-sizing: border-box; height: 100%; padding: .6em .6em .75em;
      color: inherit; text-decoration: none; background: var(--kindred-card-background, transparent);
      border: 1px solid var(--line); border-radius: var(--kindred-radius, .8rem);
      transition: border-color .2s, box-shadow .2s, background-color .6s; }
    a.card:hover { border-color: var(--accent); }
    .card:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
    .card[data-change] { border-color: var(--accent); box-shadow: 0 0 0 2px var(--accent);
      background: var(--kindred-highlight, color-mix(in srgb, var(--accent) 12%, transparent)); }
    img, .blank { width: 100%; aspect-ratio: 1; object-fit: cover; border-radius: calc(var(--kindred-radius, .8rem) * .7);
      background: var(--line); }
    .title { font-weight: 600; line-height: 1.3; overflow-wrap: anywhere; display: -webkit-box; -webkit-box-orient: vertical;
      -webkit-line-clamp: 2; overflow: hidden; margin-top: .25em; }
    .price { font-variant-numeric: tabular-nums; }
    .reason { color: var(--muted); font-size: .82em; line-height: 1.35; }
    .bone { background: var(--line); border-radius: .3em; height: .8em; }
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

    /** Texts, to be replaced by a page in another language: `customElements.get("kindred-list").strings.heading = "…"`. */
    static strings = {
      heading: "Often bought together",
      together: (n) => `bought by ${n} who bought this`,
      category: "popular in this category",
      popular: "popular right now",
      updated: (title) => `List updated, now first: ${title}`,
    };

    #list = make("ul", "list");
    #heading = make("h2", "heading");
    #status = make("p", "status");
    #cards = new Map(); // item → { li, card, entry, … } of what is shown
    #run = 0; // grows with every restart: an answer to an older question is dropped
    #abort = null;
    #source = null;
    #timer = 0;
    #streamFailures = 0;
    #onScreen = false;
    #empty = false; // hidden by us; it keeps listening, since the first pair may come any moment
    #gaveUp = false;
    #pending = false;
    #following = false;
    #reco = null;
    #generation = null;
    #announcedAt = 0;
    #queue = [];
    #flushTimer = 0;
    #seen = new Set(); // "reco id, item": one impression each
    #screen = new IntersectionObserver((entries) => {
      this.#onScreen = entries.at(-1).isIntersecting;
      this.#follow();
    });
    #watch = new IntersectionObserver((entries) => entries.forEach((entry) => this.#glimpsed(entry)), { threshold: [0, SEEN_SHARE] });
    #onVisibility = () => {
      if (document.hidden) this.#flush();
      else this.#gaveUp = false; // the visitor is back: worth another try
      this.#follow();
    };
    #onLeave = () => this.#flush();

    constructor() {
      super();
      const root = this.attachShadow({ mode: "open" });
      root.adoptedStyleSheets = [STYLE];
      this.#list.setAttribute("role", "list"); // Safari forgets it under `list-style: none`
      this.#status.setAttribute("role", "status"); // aria-live=polite, spelt out for older readers
      this.#status.setAttribute("aria-live", "polite");
      const section = make("section", "section");
      this.#heading.id = "heading";
      section.setAttribute("aria-labelledby", "heading");
      section.append(this.#heading, this.#list, this.#status);
      root.append(section);
      this.#list.addEventListener("keydown", (event) => this.#arrow(event));
    }

    connectedCallback() {
      document.addEventListener("visibilitychange", this.#onVisibility);
      addEventListener("online", this.#onVisibility);
      addEventListener("pagehide", this.#onLeave);
      this.#restart();
      this.#screen.observe(this);
    }

    disconnectedCallback() {
      document.removeEventListener("visibilitychange", this.#onVisibility);
      removeEventListener("online", this.#onVisibility);
      removeEventListener("pagehide", this.#onLeave);
      this.#screen.disconnect();
      this.#onScreen = false;
      this.#stop();
      this.#flush();
    }

    attributeChangedCallback(name, before, after) {
      if (before === after || !this.isConnected) return;
      if (name === "heading") { this.#heading.textContent = after ?? KindredList.strings.heading; return; }
      if (this.#pending) return; // several attributes set at once are one restart
      this.#pending = true;
      queueMicrotask(() => {
        this.#pending = false;
        if (this.isConnected) this.#restart();
      });
    }

    get #limit() {
      const limit = Number.parseInt(this.getAttribute("limit") ?? "8", 10);
      return limit >= 1 && limit <= 100 ? limit : 8;
    }

    #address(path, query) {
      const url = new URL(path, safeUrl(this.getAttribute("base")) ?? ORIGIN);
      for (const [name, value] of Object.entries(query)) if (value) url.searchParams.set(name, value);
      return url;
    }

    #listAddress(tail) {
      const query = { view: this.getAttribute("view"), limit: String(this.#limit), key: this.getAttribute("key") };
      return this.#address(`/v1/items/${encodeURIComponent(this.getAttribute("item"))}/similar${tail}`, query);
    }

    /** Forgets what is shown and begins anew: on connection, and when an attribute says something else. */
    #restart() {
      this.#stop();
      this.#streamFailures = 0;
      this.#gaveUp = false;
      this.#reco = null;
      this.#heading.textContent = this.getAttribute("heading") ?? KindredList.strings.heading;
      if (!this.getAttribute("item") || !this.getAttribute("key")) return this.#hide("it needs the attributes item and key");
      this.#show();
      this.#skeleton();
      this.#follow();
    }

    /** Runs while the list can be seen, rests while it cannot: no stream is kept for a tab in the background. */
    #follow() {
      const wanted = this.isConnected && !document.hidden && !this.#gaveUp && (this.#onScreen || this.#empty)
        && this.getAttribute("item") && this.getAttribute("key");
      if (wanted && !this.#following) {
        this.#following = true;
        this.#load(0);
      } else if (!wanted && this.#following) {
        this.#stop();
      }
    }

    #stop() {
      this.#following = false;
      this.#run += 1;
      this.#abort?.abort();
      this.#source?.close();
      this.#source = null;
      clearTimeout(this.#timer);
    }

    /** The list by GET. The browser's cache revalidates by ETag, so an unchanged list costs a 304. */
    async #load(failures, then = () => this.#openStream()) {
      const run = this.#run;
      this.#abort = new AbortController();
      let problem, permanent = false;
      try {
        const answer = await fetch(this.#listAddress(""), { cache: "no-cache", credentials: "omit", signal: this.#abort.signal });
        if (answer.ok) {
          const body = await answer.json();
          if (run !== this.#run) return;
          this.#reco = answer.headers.get("Kindred-Reco-Id") ?? this.#reco;
          const asOf = answer.headers.get("Kindred-As-Of");
          this.#accept(body, asOf ? asOf.split(/[;, ]/)[0] : null, "fetch");
          return then();
        }
        permanent = answer.status < 500 && answer.status !== 408 && answer.status !== 429;
        problem = `the server answered ${answer.status}`;
      } catch (error) { problem = error.message; }
      if (run !== this.#run) return;
      if (permanent || failures + 1 >= ATTEMPTS_MAX) {
        this.#gaveUp = true;
        this.#stop();
        return this.#hide(problem);
      }
      this.#timer = setTimeout(() => this.#load(failures + 1, then), backoffMs(failures));
    }

    #openStream() {
      if (this.hasAttribute("no-stream") || !("EventSource" in window)) return;
      if (this.#streamFailures >= STREAM_FAILURES_MAX) return this.#poll(1);
      const run = this.#run;
      const source = new EventSource(this.#listAddress("/stream"));
      this.#source = source;
      source.addEventListener("list", (event) => {
        if (run !== this.#run) return;
        this.#streamFailures = 0;
        let body;
        try { body = JSON.parse(event.data); } catch { return debug("a stream event is no JSON"); }
        this.#accept(body, event.lastEventId || null, "stream");
      });
      source.onerror = () => {
        // While it says CONNECTING the browser comes back by itself, with Last-Event-ID; CLOSED is for us.
        if (run !== this.#run || source.readyState !== EventSource.CLOSED) return;
        source.close();
        this.#streamFailures += 1;
        this.#timer = setTimeout(() => this.#load(0), backoffMs(this.#streamFailures));
      };
    }

    /** Where no stream gets through (some proxies), the list is asked for again and again, and the stream now and then. */
    #poll(round) {
      if (round === 1) debug("no stream gets through, polling instead");
      this.#timer = setTimeout(() => {
        if (round >= POLLS_BEFORE_STREAM) this.#streamFailures = STREAM_FAILURES_MAX - 1;
        this.#load(0, round >= POLLS_BEFORE_STREAM ? undefined : () => this.#poll(round + 1));
      }, POLL_MS);
    }

    /** Takes in a list body. `kindred:list` tells the page: { body, position, recoId, source, changes }. */
    #accept(body, position, source) {
      if (!body || !Array.isArray(body.items)) return debug("the body is no list");
      this.#generation = body.generation ?? null;
      const known = new Set(); // one card an item, whatever the body says
      const entries = body.items.filter((entry) => entry && typeof entry.item === "string" && !known.has(entry.item) && known.add(entry.item));
      const shown = entries.slice(0, this.#limit);
      const changes = shown.length ? (this.#show(), this.#render(shown)) : (this.#hide("the list is empty"), []);
      this.#empty = shown.length === 0;
      this.dispatchEvent(new CustomEvent("kindred:list", {
        bubbles: true, composed: true, detail: { body, position, recoId: this.#reco, source, changes },
      }));
    }

    #skeleton() {
      this.#cards.clear();
      this.#watch.disconnect();
      this.#list.setAttribute("aria-busy", "true");
      this.#list.replaceChildren(...Array.from({ length: Math.min(this.#limit, 4) }, () => {
        const li = make("li");
        const card = make("div", "card");
        li.className = "skeleton";
        li.ariaHidden = "true";
        card.append(make("div", "blank"), make("div", "bone"), make("div", "bone short"));
        li.append(card);
        return li;
      }));
    }

    /** Draws the list and moves what moved from its old place to its new one (FLIP). Returns what changed, by item. */
    #render(entries) {
      const first = this.#cards.size === 0;
      const focused = this.shadowRoot.activeElement;
      const before = new Map([...this.#cards].map(([item, { li }]) => [item, li.getBoundingClientRect()]));
      const leader = [...this.#cards.keys()][0];
      const next = new Map();
      const changes = [];
      entries.forEach((entry, n) => {
        const shown = this.#cards.get(entry.item) ?? this.#card(entry.item);
        const change = { item: entry.item, rank: n + 1, rankBefore: shown.rank ?? null, coCount: entry.co_count ?? null, coCountBefore: shown.entry?.co_count ?? null };
        if (shown.entry && change.rank === change.rankBefore && change.coCount === change.coCountBefore) change.kind = null;
        else if (!shown.entry) change.kind = "new";
        else if (change.rank < change.rankBefore) change.kind = "moved-up";
        else change.kind = change.rank > change.rankBefore ? "moved-down" : "changed";
        this.#fill(shown, entry, n + 1);
        // A card that only made room is not worth a highlight; it still glides.
        const worth = change.kind === "new" || change.kind === "moved-up" || change.coCount !== change.coCountBefore;
        if (change.kind && !first) { changes.push(change); if (worth) this.#mark(shown, change.kind); }
        next.set(entry.item, shown);
      });
      for (const [item, { li, rank, entry }] of this.#cards) {
        if (next.has(item)) continue;
        this.#watch.unobserve(li);
        changes.push({ item, rank: null, rankBefore: rank, coCount: null, coCountBefore: entry.co_count ?? null, kind: "gone" });
      }
      this.#cards = next;
      const order = [...next.values()].map(({ li }) => li);
      // Only what stands elsewhere is touched, so that focus and hover survive.
      if (this.#list.children.length !== order.length || order.some((li, n) => this.#list.children[n] !== li)) this.#list.replaceChildren(...order);
      if (focused?.isConnected && this.shadowRoot.activeElement !== focused) focused.focus({ preventScroll: true });
      this.#list.removeAttribute("aria-busy");
      if (!calm.matches) for (const [item, { li }] of next) this.#glide(li, before.get(item), first);
      const [top, { entry }] = next.entries().next().value;
      if (!first && top !== leader && Date.now() - this.#announcedAt > ANNOUNCE_MS) {
        this.#announcedAt = Date.now();
        this.#status.textContent = KindredList.strings.updated(entry.title ?? top);
      }
      return changes;
    }

    #glide(li, from, first) {
      if (!from) {
        if (!first) li.animate({ opacity: [0, 1], transform: ["scale(.92)", "none"] }, { duration: MOVE_MS, easing: "ease-out" });
        return;
      }
      const to = li.getBoundingClientRect();
      const [x, y] = [from.left - to.left, from.top - to.top];
      if (x || y) li.animate({ transform: [`translate(${x}px, ${y}px)`, "none"] }, { duration: MOVE_MS, easing: "cubic-bezier(.2, .8, .2, 1)" });
    }

    #card(item) {
      const li = make("li");
      li.setAttribute("part", "item");
      li.dataset.item = item;
      this.#watch.observe(li);
      return { li, card: null, rank: null, entry: null, seenTimer: 0 };
    }

    /** Builds the card anew only when what it says has changed. */
    #fill(shown, entry, rank) {
      shown.rank = rank;
      const was = shown.entry;
      shown.entry = entry;
      if (was && JSON.stringify(was) === JSON.stringify(entry)) return;
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
      else if (picture?.src !== source) {
        picture = make("img", "image");
        picture.alt = ""; // the title beside it says the same
        picture.loading = "lazy";
        picture.decoding = "async";
        picture.src = source;
      }
      const parts = [picture, make("span", "title", entry.title ?? entry.item)];
      const price = formatPrice(entry.price);
      if (price) parts.push(make("span", "price", price));
      const reason = this.#reason(entry.because?.[0]);
      if (reason) parts.push(make("span", "reason", reason));
      shown.card.replaceChildren(...parts);
    }

    #reason(because) {
      const { strings } = KindredList;
      if (!because) return null;
      if (because.fill) return String(because.fill).startsWith("category") ? strings.category : strings.popular;
      return because.co_count > 0 ? strings.together(new Intl.NumberFormat(navigator.languages).format(because.co_count)) : null;
    }

    #mark({ card }, kind) {
      card.dataset.change = kind;
      card.setAttribute("part", `card ${kind}`);
      clearTimeout(card.markTimer);
      card.markTimer = setTimeout(() => {
        delete card.dataset.change;
        card.setAttribute("part", "card");
      }, MARK_MS);
    }

    /** Arrow keys, Home and End walk the list; Tab works as everywhere. */
    #arrow(event) {
      const links = [...this.#list.querySelectorAll("a.card")];
      const at = links.indexOf(this.shadowRoot.activeElement);
      if (at < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
      const columns = getComputedStyle(this.#list).gridTemplateColumns.split(" ").length;
      const forward = getComputedStyle(this).direction === "rtl" ? -1 : 1;
      const step = { ArrowRight: forward, ArrowLeft: -forward, ArrowDown: columns, ArrowUp: -columns }[event.key];
      const to = event.key === "Home" ? 0 : event.key === "End" ? links.length - 1 : step === undefined ? -1 : at + step;
      if (to < 0 || to >= links.length) return;
      event.preventDefault();
      links[to].focus();
    }

    #show() { this.hidden = false; }

    #hide(why) {
      if (!this.hidden) debug(`hidden, ${why}`, this.getAttribute("item") ?? "");
      this.hidden = true;
      this.#cards.clear();
      this.#watch.disconnect();
      this.#list.replaceChildren();
    }

    get #tracks() {
      return !this.hasAttribute("no-track") && !navigator.globalPrivacyControl && navigator.doNotTrack !== "1";
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
      const detail = { entry: shown.entry, rank: shown.rank, recoId: this.#reco };
      const plain = event.type === "click" && !event.ctrlKey && !event.metaKey && !event.shiftKey;
      const click = new CustomEvent("kindred:click", { bubbles: true, composed: true, cancelable: plain, detail });
      if (!this.dispatchEvent(click)) event.preventDefault();
    }

    #record(kind, { entry, rank }) {
      if (!this.#tracks) return;
      const event = { session: sessionId(), kind, item: entry.item, at: new Date().toISOString(), rank };
      if (this.#reco) event.reco_id = this.#reco;
      if (this.#generation) event.generation = this.#generation;
      this.#queue = [...this.#queue, event].slice(-QUEUE_MAX);
      if (!this.#flushTimer) this.#flushTimer = setTimeout(() => this.#flush(), FLUSH_MS);
    }

    /** Sends what has gathered; `keepalive` lets the request outlive the page. Sending an event twice is harmless: it merges. */
    async #flush() {
      clearTimeout(this.#flushTimer);
      this.#flushTimer = 0;
      const events = this.#queue.splice(0);
      if (!events.length) return;
      const headers = { "Content-Type": "application/json", Authorization: `Bearer ${this.getAttribute("key")}` };
      const request = { method: "POST", keepalive: true, credentials: "omit", headers, body: JSON.stringify(events) };
      const answer = await fetch(this.#address("/v1/events/interactions", {}), request).catch((error) => ({ status: 503, error }));
      if (answer.ok) return;
      const later = answer.status >= 500 || answer.status === 429;
      debug(`${events.length} events were not taken (${answer.status})`, later ? "and wait" : "and are dropped");
      if (later) this.#queue = [...events, ...this.#queue].slice(-QUEUE_MAX); // they go with the next flush
    }
  }

  customElements.define("kindred-list", KindredList);
})();
