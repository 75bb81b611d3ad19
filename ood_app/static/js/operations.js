// "Operational status for requests": each request of this page with its steps as they happen.
import { arrange, breakable, byId, h, icon, say, spinner } from "./dom.js";
import { focusOn } from "./focus.js";
import { problemBox } from "./problem.js";
import { duration, t, when } from "./texts.js";

const KEPT = 6;
/** What runs on the console's own host, as the caller. */
const JOBS = ["export", "image"];
const STORE = "aihub-operations";
const known = new Map();

/** Words for what an operation does. */
const KINDS = {
  create: () => t("Create"), start: () => t("Start"), stop: () => t("Stop"), delete: () => t("Delete"), restore: () => t("Restore"),
  purge: () => t("Remove for good"), users: () => t("Register users"), storage: () => t("Change the key"),
  resize: () => t("Change the size"), upgrade: () => t("Upgrade MLflow"), rollback: () => t("Roll back"),
  export: () => "Export model", image: () => "Create image",
};

export const finished = (operation) => ["succeeded", "failed"].includes(operation.state);

/** Operations to ask for: those of this page that have not ended, also after a reload. */
export function wanted() {
  const open = [...known.values()].filter((each) => !finished(each)).map((each) => each.id);
  return known.size ? open : JSON.parse(sessionStorage.getItem(STORE) ?? "[]");
}

/**
 * Takes new answers; calls `onEnd` for each operation that has just ended. What was `asked` for and is not answered is known no longer; what its
 * reader asked for stays until it has ended, and the last of that after it, however much others ask for meanwhile.
 */
export function update(operations, onEnd, asked = []) {
  for (const id of asked) if (!operations.some((each) => each.id === id)) known.delete(id);
  for (const operation of operations) {
    const before = known.get(operation.id);
    known.set(operation.id, operation);
    announce(before, operation);
    if (before && !finished(before) && finished(operation)) onEnd(operation);
  }
  const own = newestFirst().filter((each) => !each.requested_by || each.requested_by === reader); // what runs on the console's own host says no name
  const stays = (each) => each === own[0] || (own.includes(each) && !finished(each));
  const kept = newestFirst().sort((a, b) => stays(b) - stays(a)).slice(0, KEPT);
  for (const id of known.keys()) if (!kept.some((each) => each.id === id)) known.delete(id);
  sessionStorage.setItem(STORE, JSON.stringify([...known.keys()]));
  show();
}

const newestFirst = () => [...known.values()].sort((a, b) => (a.created_at < b.created_at ? 1 : -1));

export const show = () => draw(newestFirst());

/** Forgets all that has ended. */
export function forgetFinished() {
  for (const each of [...known.values()]) if (finished(each)) known.delete(each.id);
  update([], () => {});
}

/** Forgets what was asked of a server in vain. */
export function forgetFailures(server) {
  for (const each of [...known.values()]) if (each.server_id === server.id && each.state === "failed") known.delete(each.id);
  update([], () => {});
}

export const operationOf = (server) => known.get(server.operation);

/** The last operation that failed for a server, for its log. */
export const lastFailure = (server) =>
  [...known.values()].filter((each) => each.server_id === server.id && each.state === "failed").at(-1)?.error;

/** The last operation of a server, if it failed and nothing else tells of it. */
export function failureOf(server) {
  const last = newestFirst().find((each) => each.server_id === server.id);
  return last?.state === "failed" && last.error && !server.operation && !server.reason ? last : null;
}

/** What an operation does. */
const kindOf = (operation) => (KINDS[operation.kind] ?? (() => operation.kind))();

let reader = "";

/** Who reads the page: only of others' operations it says whose they are. */
export const readBy = (user) => { reader = user; };

/** What an operation does, and who asked for it where that was somebody else. */
export function whatOf(operation) {
  const { requested_by: user } = operation;
  return user && reader && user !== reader ? t("{what} (asked for by {user})", { what: kindOf(operation), user }) : kindOf(operation);
}

/** The step under way, and how far it is. `named`: of which operation. */
export function progress(operation, named) {
  const at = operation.steps.findIndex((step) => ["running", "pending"].includes(step.state));
  const step = operation.steps[at] ?? operation.steps.at(-1);
  if (!step) return operation.message;
  return `${named ? `${kindOf(operation)}: ` : ""}${step.label} (${at < 0 ? operation.steps.length : at + 1}/${operation.steps.length})`;
}

function announce(before, operation) {
  const done = (each) => new Set((each?.steps ?? []).filter((step) => step.state === "succeeded").map((step) => step.name));
  const old = done(before);
  for (const step of operation.steps) if (before && step.state === "succeeded" && !old.has(step.name)) say(t("{step}: done", { step: step.label }));
  if (before && !finished(before) && finished(operation)) say(operation.error?.detail ?? operation.message);
}

/** Folds that the reader opened or closed; the others show the newest and whatever is under way. */
const folds = new Map();

/** The boxes as they were drawn last, by the request's id. */
const drawn = new Map();

function draw(operations) {
  const place = byId("operations");
  const active = place.contains(document.activeElement) ? document.activeElement : null;
  const focused = active?.closest(".operation")?.dataset.id;
  showReset(operations.some(finished));
  const boxes = operations.map((each, at) => boxOf(each, folds.get(each.id) ?? (at === 0 || !finished(each))));
  const all = boxes.length ? boxes : [h("p.text-body-secondary", {}, t("Nothing was asked for yet. The steps of a request appear here as they happen."))];
  [...place.children].filter((each) => !all.includes(each)).forEach((each) => each.remove());
  arrange(place, all);
  for (const id of drawn.keys()) if (!operations.some((each) => each.id === id)) drawn.delete(id);
  if (active?.isConnected === false) {
    const again = place.querySelector(`[data-id="${CSS.escape(focused ?? "")}"]`);
    focusOn(again?.querySelector(`[data-key="${CSS.escape(active.dataset.key ?? "")}"]`) ?? again?.querySelector("summary") ?? byId("operations-title"));
  }
}

/** A button that goes takes the focus with it, unless it is given to the heading before. */
function showReset(wanted) {
  const reset = byId("reset");
  if (!wanted && document.activeElement === reset) focusOn(byId("operations-title"));
  reset.hidden = !wanted;
}

/** One that has ended is drawn once: whoever reads its log, or marks a part of it, is not disturbed by each look. */
function boxOf(operation, open) {
  const print = JSON.stringify([operation, whatOf(operation), new Date().toDateString()]);
  const before = drawn.get(operation.id);
  if (before?.print === print && finished(operation)) {
    before.box.open = open;
    return before.box;
  }
  const box = article(operation, open, Boolean(before?.box.querySelector(".problem-box details[open]")));
  drawn.set(operation.id, { print, box });
  return box;
}

function article(operation, open, logOpen) {
  const title = [whatOf(operation), [operation.group, operation.env_name].filter(Boolean).join(" / ")].filter(Boolean).join(" · ");
  const summary = h("summary", { onclick: () => folds.set(operation.id, !box.open) }, mark(operation.state), " ", title, " ", h("span.asked-at", {}, when(operation.created_at)));
  const box = h("details.operation", { "data-id": operation.id, "data-state": operation.state, open },
    summary,
    h("ol.steps", {}, ...operation.steps.map((each) => step(each, finished(operation)))),
    ...bytes(operation),
    operation.error ? problemBox({ ...operation.error, request_id: operation.request_id }, t("Last lines of the log")) : conclusion(operation));
  if (logOpen) box.querySelector(".problem-box details")?.setAttribute("open", "");
  return box;
}

/** How far a job's step is, where it is told: of how many bytes, where that is known. */
function bytes(operation) {
  if (!operation.total && !operation.bytes) return [];
  const [done, all] = [operation.bytes ?? 0, operation.total].map((count) => count && (count / 1e6).toFixed(1));
  const bar = all ? h("progress.w-100", { max: operation.total, value: operation.bytes ?? 0, "aria-label": t("Bytes so far") }) : null;
  return [bar, h("p.bytes", {}, all ? `${done} / ${all} MB` : `${done} MB`)];
}

const mark = (state) => (state === "running" ? spinner() : icon({ succeeded: "running", failed: "failed", undone: "undone" }[state] ?? "pending"));

/** `over`: the operation has ended, and what waits then was never begun. */
function step(each, over) {
  const words = { succeeded: t("done"), failed: t("failed"), undone: t("taken back"), running: t("under way"), pending: over ? t("not begun") : t("waiting") };
  return h("li", { "data-state": each.state }, mark(each.state), h("span.visually-hidden", {}, `${words[each.state] ?? each.state}: `),
    h("span.step-label", {}, each.label, each.detail ? h("span.step-detail", {}, each.detail) : null),
    h("span.step-time", {}, duration(each.started_at, each.finished_at)));
}

/** The documentation's words for a create that went well stand in every language. */
const CREATED = "Service created";

function conclusion(operation) {
  const done = operation.state === "succeeded";
  if (JOBS.includes(operation.kind)) return done ? h("p.conclusion", {}, t("Result:"), " ", h("code.breakable", {}, breakable(operation.message))) : null;
  const words = done && operation.kind === "create" && operation.message !== CREATED ? `${CREATED}: ${operation.message}` : operation.message;
  return h("p.conclusion", {}, words);
}
