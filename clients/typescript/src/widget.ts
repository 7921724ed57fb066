/**
 * Types of the element `<kindred-list>`, which `/widget.js` of a server defines (docs/WIDGET.md). Importing this file loads nothing:
 *
 *     import type { KindredListAttributes } from "kindred-client/widget";
 */
import type { components } from "./schema.js";

type SimilarList = components["schemas"]["SimilarList"];
type Entry = SimilarList["items"][number];

/** The element. Each attribute is reflected by a property; null removes it. */
export interface KindredListElement extends HTMLElement {
  /** The item whose list is shown. */
  item: string | null;
  /** The publishable key, `kd_pk_…`. */
  publicKey: string | null;
  /** The older name of `publicKey`; frameworks reserve `key`. */
  key: string | null;
  /** The base URL of Kindred; default that of the script. */
  base: string | null;
  /** Number of entries, 1 to 50. */
  limit: number;
  /** A list view of the API. */
  view: string | null;
  /** The text above the list. */
  heading: string | null;
  /** Load once, without a stream. */
  noStream: boolean;
  /** Send no impressions and clicks. */
  noTrack: boolean;
  addEventListener<Type extends keyof KindredListEvents>(
    type: Type,
    listener: (this: KindredListElement, event: KindredListEvents[Type]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject, options?: boolean | AddEventListenerOptions): void;
}

/** The attributes in templates and JSX. */
export interface KindredListAttributes {
  item?: string;
  "public-key"?: string;
  base?: string;
  limit?: number | string;
  view?: string;
  heading?: string;
  "no-stream"?: boolean | "";
  "no-track"?: boolean | "";
}

/** A change between two lists. */
export interface KindredListChange {
  item: string;
  kind: "new" | "moved-up" | "moved-down" | "changed" | "gone";
  rank: number | null;
  rankBefore: number | null;
  coCount: number | null;
  coCountBefore: number | null;
}

/** The events, which bubble and cross shadow roots. */
export interface KindredListEvents {
  "kindred:list": CustomEvent<{
    body: SimilarList;
    position: string | null;
    recoId: string | null;
    source: "fetch" | "stream";
    changes: KindredListChange[];
  }>;
  "kindred:click": CustomEvent<{ entry: Entry; rank: number; recoId: string | null }>;
}

declare global {
  interface HTMLElementTagNameMap {
    "kindred-list": KindredListElement;
  }
  interface DocumentEventMap extends KindredListEvents {}
}
