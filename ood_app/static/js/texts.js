// Texts, times and durations in the reader's language and time zone. English is the key of the catalogue.
const catalogue = JSON.parse(document.getElementById("texts").textContent);
const language = document.documentElement.lang;
/** As the reader's own country writes days and hours, where the browser says which. */
const region = navigator.languages.find((each) => each.split("-")[0] === language) ?? language;

export function t(text, values = {}) {
  return (catalogue[text] ?? text).replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

const moment = new Intl.DateTimeFormat(region, { dateStyle: "medium", timeStyle: "short" });
const day = new Intl.DateTimeFormat(region, { dateStyle: "long" });
const clock = new Intl.DateTimeFormat(region, { timeStyle: "short" });
const clockWithSeconds = new Intl.DateTimeFormat(region, { timeStyle: "medium" });

/** The time alone today, else the date with it. */
export function when(iso) {
  const date = new Date(iso);
  return date.toDateString() === new Date().toDateString() ? clock.format(date) : moment.format(date);
}

export const dayOf = (date) => day.format(new Date(date));
export const momentOf = (iso) => moment.format(new Date(iso));
export const now = () => clockWithSeconds.format(new Date());

/** How long from one time to another (default: now), or "" when it is not known. */
export function duration(from, to) {
  if (!from) return "";
  const seconds = Math.max(0, ((to ? new Date(to) : new Date()) - new Date(from)) / 1000);
  return seconds < 60 ? t("{n} s", { n: seconds.toFixed(1) }) : t("{n} min", { n: (seconds / 60).toFixed(1) });
}
