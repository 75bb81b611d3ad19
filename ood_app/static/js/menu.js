// A menu of buttons behind one: the browser's own <details>, closed by Esc, by a choice, and by a look elsewhere.
import { h } from "./dom.js";

/** `items`: buttons; `key`: the menu's name for keeping the focus; `describedBy`: the id of what it belongs to. */
export function menu(label, key, describedBy, items) {
  const summary = h("summary.btn.btn-sm.btn-outline-secondary", { "data-key": `${key}-summary`, "aria-describedby": describedBy }, label);
  const box = h("details.menu", { "data-key": key }, summary, h("div.menu-items", {}, ...items));
  const close = () => {
    box.open = false;
    summary.focus();
  };
  box.addEventListener("keydown", (event) => event.key === "Escape" && box.open && close());
  // Before the choice's own listener, so that a dialog gives the focus back to what can be seen.
  box.addEventListener("click", (event) => event.target.closest(".menu-items button") && close(), { capture: true });
  return box;
}

for (const kind of ["pointerdown", "focusin"]) {
  document.addEventListener(kind, (event) => {
    for (const box of document.querySelectorAll("details.menu[open]")) if (!box.contains(event.target)) box.open = false;
  });
}
