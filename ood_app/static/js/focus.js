// Where the focus goes when what had it is gone or rests: list, requests and dialogs are drawn anew while somebody works with them.
import { byId } from "./dom.js";

/** What can have the focus at all: a link without an address can not. */
const ABLE = ":not(:disabled, [aria-disabled])";

/** Where an element is: its name, and the row that it stands in. */
export const placeOf = (element) => ({ key: element?.dataset?.key, row: element?.closest?.("tr[data-id]")?.dataset.id });

/** The focus goes there, and the page stays where it is: its reader may have scrolled on. */
export const focusOn = (element) => element?.focus({ preventScroll: true });

/** To what has that name by now, else to what can be pressed in the same row, a fold before what is hidden in it, else to the list. */
export function backTo({ key, row }) {
  const named = key && document.querySelector(`[data-key="${CSS.escape(key)}"]${ABLE}`);
  focusOn(named || (row && document.querySelector(`tr[data-id="${CSS.escape(row)}"] :is(button${ABLE}, a[href], summary)`)) || list());
}

/** The list's field where there is one, else the list itself. */
const list = () => (byId("find").closest("[hidden]") ? byId("service-list") : byId("find"));
