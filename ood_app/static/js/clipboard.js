// A button that copies a text and says so.
import { h, icon, say } from "./dom.js";
import { focusOn } from "./focus.js";
import { t } from "./texts.js";

/** `label`: what is copied, for those who cannot see it. `key`: the button's name for keeping the focus. */
export function copyButton(text, label, key, words = null) {
  const look = words ? "button.btn.btn-primary.copy" : "button.btn.btn-sm.btn-link.copy";
  const button = h(look, { type: "button", "aria-label": words ? null : label, title: label, "data-key": key }, icon("copy"), words ? ` ${words}` : null);
  button.addEventListener("click", async () => {
    const done = await copy(text);
    const word = done ? t("Copied") : t("Select the text and copy it yourself: the browser did not allow it.");
    button.dataset.done = word;
    say(word);
    setTimeout(() => delete button.dataset.done, done ? 1600 : 8000); // what the reader must do now takes longer to read
  });
  return button;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyFromField(text);
  }
}

/** For pages that are reached by plain http, where the browser has no clipboard interface. */
function copyFromField(text) {
  const field = h("textarea.visually-hidden", { readonly: true, "aria-hidden": "true" });
  field.value = text;
  const place = document.querySelector("dialog[open]") ?? document.body;
  const before = document.activeElement;
  place.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  focusOn(before);
  return done;
}
