// The field above a long list: servers of which each typed word is a part, or whose address was pasted.
import { byId } from "./dom.js";
import { t } from "./texts.js";

/** Servers that one sees without a field. */
const FEW = 7;
const STORE = "aihub-find";
const field = byId("find");

/** `onChange` draws the list anew. What was typed is there again after a reload. */
export function adoptField(onChange) {
  field.value = sessionStorage.getItem(STORE) ?? "";
  field.addEventListener("input", () => {
    sessionStorage.setItem(STORE, field.value);
    onChange();
  });
  byId("find-all").addEventListener("click", () => {
    findAll();
    field.focus();
  });
}

/** Those that are looked for; the field itself is there only where there are many. */
export function found(servers) {
  const words = plain(field.value).split(/\s+/).filter(Boolean);
  const those = servers.filter((server) => words.every((word) => has(server, word)));
  field.parentElement.hidden = servers.length <= FEW && !words.length;
  const count = words.length ? t("{n} of {all}", { n: those.length, all: servers.length }) : "";
  if (byId("matches").textContent !== count) byId("matches").textContent = count; // else each look would have it read out again
  const nothing = byId("nothing");
  nothing.hidden = !words.length || !servers.length || those.length > 0; // without any server the list says so itself
  nothing.firstElementChild.textContent = t("No server matches “{words}”.", { words: field.value.trim() });
  return those;
}

/** Without the case, and without the width that a Japanese keyboard gives to letters. */
const plain = (text) => text.normalize("NFKC").toLowerCase();

/** Addresses hold words that all servers have in common: they are looked at only for one that was pasted, which may lead further or less far. */
function has(server, word) {
  if (!word.includes("://")) {
    const texts = [`${server.group}/${server.env_name}`, server.status, server.bucket, server.created_by, ...server.users];
    return texts.some((text) => plain(text).includes(word));
  }
  const places = [server.inside_url, server.outside_url, `s3://${server.bucket}/${server.prefix}`].filter(Boolean).map(plain);
  return places.some((place) => place.startsWith(word) || word.startsWith(place));
}

/** All of them again. */
export function findAll() {
  if (!field.value) return;
  field.value = "";
  field.dispatchEvent(new Event("input"));
}
