// Builds elements. Text is always set as text, never parsed, so that nothing a name or a message holds can become markup.
const SVG = "http://www.w3.org/2000/svg";

/** h("a.btn.btn-sm", {href: "…", onclick: f}, child, "text", …); null children are left out, undefined and false attributes too. */
export function h(kind, attributes = {}, ...children) {
  const [tag, ...classes] = kind.split(".");
  const element = document.createElement(tag);
  element.classList.add(...classes);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false && child !== ""));
  return element;
}

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** Text that may break after the marks that addresses, paths and names are made of. */
export function breakable(text) {
  return String(text ?? "").split(/(?<=[/_.:@-])(?=[^/])/).flatMap((part, at) => (at ? [document.createElement("wbr"), part] : [part]));
}

/**
 * A press waits for its answer: meanwhile the button says so (to the eye after a moment only, see console.css) and takes no other press.
 * It stays enabled, since a disabled button loses the focus.
 */
export async function busyWhile(button, work) {
  if (button?.hasAttribute("aria-busy")) return;
  button?.setAttribute("aria-busy", "true");
  try {
    await work();
  } finally {
    button?.removeAttribute("aria-busy");
  }
}

export const spinner = () => h("span.spinner-border.spinner-border-sm", { "aria-hidden": "true" });
export const byId = (id) => document.getElementById(id);

/** Puts children into order and moves only what is out of place: an element that is moved loses its focus. */
export function arrange(place, children) {
  let at = place.firstChild;
  for (const child of children) {
    if (child === at) at = at.nextSibling;
    else place.insertBefore(child, at);
  }
}

/** Says something to those who cannot see the page. Behind an open dialog nothing is read out: each has a place of its own for it. */
export function say(text) {
  const spoken = [...document.querySelectorAll("dialog[open] .spoken")].at(-1) ?? byId("spoken");
  spoken.append(h("p", {}, text));
  while (spoken.children.length > 6) spoken.firstChild.remove();
}
