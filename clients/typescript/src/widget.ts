/**
 * Types of the element `<kindred-list>`, which `/widget.js` of a server defines (docs/WIDGET.md). Importing this file loads nothing:
 *
 *     import type { KindredListAttributes } from "kindred-client/widget";
 */
import type { components } from "./schema.js";

type SimilarList = components["schemas"]["SimilarList"];
type Entry = SimilarList["items"][number];

/** The element. Each attribute is a property, too, and setting the one sets the other; null removes it. */
export interface KindredListElement extends HTMLElement {
  /** The item whose list is shown. */
  item: string | null;
  /** The publishable key, `kd_pk_…`. */
  publicKey: string | null;
  /** The same under its older name, which frameworks keep for themselves. */
  key: string | null;
  /** Where Kindred is; by default where the script was loaded from. */
  base: string | null;
  /** How many entries, 1 to 50. */
  limit: number;
  /** Which list; one of the views of the API. */
  view: string | null;
  /** The text above the list. */
  heading: string | null;
  /** Load once, do not follow. */
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

/** The attributes, as a template or JSX has them. */
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

/** What moved between two lists. */
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
