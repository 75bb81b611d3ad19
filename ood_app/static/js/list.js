// The Service List: one row a server, drawn anew only where something changed, so that focus and folds stay.
import { copyButton } from "./clipboard.js";
import { arrange, breakable, busyWhile, byId, h, icon, spinner } from "./dom.js";
import { found } from "./find.js";
import { backTo, placeOf } from "./focus.js";
import { menu } from "./menu.js";
import { failureOf, lastFailure, operationOf, progress, whatOf } from "./operations.js";
import { problemBox } from "./problem.js";
import { dayOf, momentOf, t, when } from "./texts.js";

const COLOURS = { running: "success", sleeping: "primary", stopped: "secondary", failed: "danger", creating: "warning", deleting: "warning", deleted: "secondary" };
const BUSY = ["creating", "deleting"];
const UP = ["running", "sleeping"];
/** What would change nothing, though the service allows it. */
const POINTLESS = { start: UP, stop: ["stopped"] };
const shown = new Map();
/** What the reader is told of a server beside what the service says of it: why a press changed nothing, say. By the server's id. */
const told = new Map();
/** Presses that wait for their answer, by the button's key: a look may draw the button anew meanwhile. */
const pressed = new Set();

/** Tells it at the server's next drawing, in place of what was told before; null: nothing any more. */
export function tell(server, problem, level = "danger") {
  if (problem) told.set(server.id, { problem, level });
  else told.delete(server.id);
}

/** Draws the servers; `act(name, server)` is called for what the user presses. */
export function draw(servers, act) {
  const place = byId("servers");
  place.setAttribute("aria-busy", "false");
  const wanted = found(servers);
  if (!servers.length) {
    shown.clear();
    place.replaceChildren(emptyState());
    return;
  }
  const body = place.querySelector("tbody") ?? table(place);
  const order = wanted.sort((a, b) => (a.status === "deleted") - (b.status === "deleted") || byName(a, b));
  const rows = order.flatMap((server) => rowsOf(server, act));
  const gone = [...body.rows].filter((row) => !rows.includes(row));
  const reader = placeIn(gone);
  gone.forEach((row) => row.remove());
  for (const known of [shown, told]) for (const id of known.keys()) if (!servers.some((each) => each.id === id)) known.delete(id);
  arrange(body, rows);
  reader.restore(body);
}

/** Where the reader is in rows that are about to be drawn anew: the focus and the open folds. */
function placeIn(rows) {
  const here = rows.some((each) => each.contains(document.activeElement)) && placeOf(document.activeElement);
  const folds = rows.flatMap((each) => [...each.querySelectorAll("details[open][data-key]")].map((fold) => fold.dataset.key));
  return {
    restore(body) {
      folds.forEach((name) => body.querySelector(`[data-key="${CSS.escape(name)}"]`)?.setAttribute("open", ""));
      if (here) backTo(here);
    },
  };
}

const byName = (a, b) => a.group.localeCompare(b.group) || a.env_name.localeCompare(b.env_name);

/** The rows of a server: those that are drawn already where nothing changed, the day neither: a time of today stands there without its date. */
function rowsOf(server, act) {
  const operation = operationOf(server);
  const print = JSON.stringify([server, operation, lastFailure(server), failureOf(server)?.id, told.get(server.id), new Date().toDateString()]);
  if (shown.get(server.id)?.print !== print) {
    const state = { "data-id": server.id, "data-status": server.status, role: "row" };
    const notes = h(`tr.notes${server.status === "deleted" ? ".gone" : ""}`, state,
      h("td", { role: "cell", colspan: "6" }, detailsOf(server), ...notesOf(server, act)));
    nameFolds(notes, server.id);
    shown.set(server.id, { print, rows: [mainRow(server, act, state), notes] });
  }
  return shown.get(server.id).rows;
}

/** Folds that have no name of their own, as those of a log, get one, by which they stay open. */
function nameFolds(notes, id) {
  notes.querySelectorAll("details:not([data-key])").forEach((fold, at) => {
    fold.dataset.key = `${id}-fold-${at}`;
    fold.querySelector("summary").dataset.key = `${id}-fold-${at}-summary`;
  });
}

/** A press on a button of the list: once, until its answer is there. */
async function press(button, work) {
  const { key } = button.dataset;
  if (pressed.has(key)) return;
  pressed.add(key);
  try {
    await busyWhile(button, work);
  } finally {
    pressed.delete(key);
    document.querySelector(`[data-key="${CSS.escape(key)}"]`)?.removeAttribute("aria-busy");
  }
}

function table(place) {
  const heads = ["status", "group_name", "env_name", "Control Service", t("URL"), t("Use")];
  const body = h("tbody", { role: "rowgroup" });
  place.replaceChildren(h("table.table.servers", { role: "table", "aria-labelledby": "service-list-title" },
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ...heads.map((head) => h("th", { role: "columnheader", scope: "col" }, head)))), body));
  return body;
}

function emptyState() {
  return h("div.empty", {},
    h("p.fs-5.mb-1", {}, t("No tracking server yet")),
    h("p.mb-0", {}, t("Choose a group, a name and a bucket below and press Create Service: it takes less than a minute. Then press Auth Info Registration, and your jobs can log to it.")));
}

function mainRow(server, act, state) {
  const key = (name) => `${server.id}-${name}`;
  const button = (name, label, colour) => h(`button.btn.btn-sm.btn-outline-${colour}`, {
    type: "button", "data-key": key(name), "aria-describedby": key("name"), "aria-busy": pressed.has(key(name)) && "true",
    disabled: !server.allowed.includes(name) || POINTLESS[name]?.includes(server.status), onclick: (event) => press(event.currentTarget, () => act(name, server)),
  }, label);
  const deleted = server.status === "deleted";
  const cell = (label, ...content) => h("td", { role: "cell", "data-label": label }, h("div", {}, ...content));
  return h(`tr.server${deleted ? ".gone" : ""}`, state,
    cell("status", ...statusOf(server, operationOf(server))),
    cell("group_name", h("span.breakable", {}, breakable(server.group))),
    cell("env_name", h("strong.breakable", { id: key("name") }, breakable(server.env_name))),
    cell("Control Service", h("div.buttons", {}, ...(deleted
      ? [button("restore", "Restore", "primary")]
      : [button("start", "Start", "success"), button("stop", "Stop", "secondary"), button("delete", "Delete", "danger")]))),
    cell(t("URL"), ...(deleted ? [] : urlsOf(server, key))),
    cell(t("Use"), ...(deleted ? [] : usesOf(server, act, button, key))));
}

/** The status, and below it what is going on. It has its room there: the rows below do not move when a request begins and ends. */
function statusOf(server, operation) {
  const since = when(server.status_since ?? server.updated_at);
  const hint = {
    running: t("since {time}", { time: since }),
    failed: t("since {time}", { time: since }),
    sleeping: t("wakes by itself at the next request"),
    stopped: t("since {time}; Start brings it back", { time: since }),
    deleted: server.restorable_until ? t("can be restored until {date}", { date: dayOf(server.restorable_until) }) : "",
  }[server.status];
  return [
    h(`span.badge.status.text-${COLOURS[server.status] ?? "secondary"}-emphasis.bg-${COLOURS[server.status] ?? "secondary"}-subtle`, {},
      BUSY.includes(server.status) ? spinner() : icon(server.status), server.status),
    operation ? h("div.hint.progress-line", {}, BUSY.includes(server.status) ? null : spinner(), " ", progress(operation, !BUSY.includes(server.status))) : hint ? h("div.hint", {}, hint) : null,
  ];
}

const NAMED = 3;

/** The first names, and how many more there are: a list of a hundred users is no line. */
const someOf = (names) => (names.length > NAMED ? t("{names} and {n} more", { names: names.slice(0, NAMED).join(", "), n: names.length - NAMED }) : names.join(", "));

/** One line that says the most, and behind it the rest. */
function detailsOf(server) {
  const row = (name, ...value) => (value[0] ? [h("dt", {}, name), h("dd.breakable", {}, ...value)] : null);
  const names = server.users.join(", ");
  return h("details.more", { "data-key": `${server.id}-details` },
    h("summary", { "data-key": `${server.id}-summary` }, [someOf(server.users) || t("no user"), `MLflow ${server.mlflow_version}`, `s3://${server.bucket}`].join(" · ")),
    h("dl", {},
      row(t("Users"), names && `${names} (${momentOf(server.users_updated_at)})`),
      row(t("Auth file"), h("span.copy-line", {}, h("code", {}, breakable(server.auth_file)), copyButton(server.auth_file, t("Copy the path of the auth file"), `${server.id}-copy-auth`))),
      row(t("Artifacts"), breakable(`s3://${server.bucket}/${server.prefix}`)),
      row(t("Storage address"), server.endpoint_url),
      row(t("Access key"), server.access_key_id),
      row(t("Size"), server.size),
      row(t("Earlier version"), server.previous && t("MLflow {version}, until {date}", { version: server.previous.mlflow_version, date: dayOf(server.previous.until) })),
      row(t("Sleeps after"), idleOf(server)),
      row(t("Your sign-in"), server.status !== "deleted" && server.session_url && h("a", { href: server.session_url, target: "_blank", rel: "noopener", "data-key": `${server.id}-session` }, t("until when, and sign out"))),
      ...server.leases.map((lease) => row(t("Needed until"), leaseOf(lease))),
      row(t("Created"), `${momentOf(server.created_at)}, ${server.created_by}`)));
}

/** Who needs the server, and what becomes of it afterwards. */
function leaseOf(lease) {
  const end = lease.at_end === "stop" ? t("then it is stopped, unless others need it") : t("then it is kept");
  return `${momentOf(lease.until)}: ${[lease.user, lease.note].filter(Boolean).join(", ")}; ${end}`;
}

/** Who needs the server, for a dialog that would take it away; null where nobody does. */
export const needs = (server) => (server.leases.length
  ? h("div", {}, h("p.mb-1", {}, `${t("Needed until")}:`), h("ul", {}, ...server.leases.map((lease) => h("li", {}, leaseOf(lease)))))
  : null);

function idleOf(server) {
  if (server.idle_seconds === null) return "";
  return server.idle_seconds ? t("{n} min without a request", { n: Math.round(server.idle_seconds / 6) / 10 }) : t("never");
}

function urlsOf(server, key) {
  const line = (label, url, name) => (url ? h("div.url", {}, h("div.hint", {}, label),
    h("div.copy-line", {}, h("a.breakable", { href: url, target: "_blank", rel: "noopener noreferrer", "data-key": key(name) }, breakable(url)),
      copyButton(url, t("Copy {what}", { what: label }), key(`copy-${name}`)))) : null);
  return [line("URL for access from inside", server.inside_url, "inside"), line("URL for access from outside", server.outside_url, "outside")];
}

function usesOf(server, act, button, key) {
  const unregistered = isUnregistered(server) && !BUSY.includes(server.status);
  const open = server.open_url && UP.includes(server.status) && !unregistered;
  const plain = (name, label) => h("button.btn.btn-sm.btn-outline-secondary", { type: "button", "data-key": key(name), "aria-describedby": key("name"), onclick: () => act(name, server) }, label);
  const toForm = (name, label, url) => (url ? h("a.btn.btn-sm.btn-outline-secondary", { href: url, "data-key": key(name), "aria-describedby": key("name") }, label) : plain(name, label));
  return [h("div.buttons", {},
    h(`a.btn.btn-sm.btn-primary${open ? "" : ".disabled"}`, {
      role: "link", href: open ? server.open_url : null, "aria-disabled": open ? null : "true", target: "_blank", rel: "noopener noreferrer", "data-key": key("open"),
      "aria-describedby": unregistered ? `${key("name")} ${key("closed")}` : key("name"),
    }, icon("open"), " Open"),
    button("users", server.users.length ? "Update Auth Info" : "Auth Info Registration", server.users.length ? "secondary" : "primary"),
    plain("job", t("Lines for a job")),
    toForm("export", "Export model", server.export_form),
    toForm("image", "Create image", server.image_form),
    moreOf(server, plain, button, key)),
  unregistered ? h("div.hint", { id: key("closed") }, t("Open: register Auth Info first.")) : null];
}

/** What is wanted now and then. What this caller may never do, or what there is nothing for, is not in it. */
function moreOf(server, plain, button, key) {
  const may = (name) => server.operation || server.allowed.includes(name);
  const item = (name, label, offered = true) => (offered && may(name) ? button(name, label, "secondary") : null);
  return menu(t("More"), key("menu"), key("name"), [
    plain("tokens", t("Tokens")),
    item("storage", t("Change the key")),
    item("resize", t("Change the size")),
    item("upgrade", t("Upgrade MLflow"), server.upgrades.length > 0),
    item("rollback", t("Roll back"), Boolean(server.previous)),
  ]);
}

/** Until a user is registered the server lets nobody in, members that the portal proves included. */
export const isUnregistered = (server) => server.warnings.some((warning) => warning.code === "no_users");

/** What stands under a server: why it does not run, what was asked of it in vain, what to look after. */
function notesOf(server, act) {
  const failure = server.reason && { ...server.reason, log: server.reason.log || lastFailure(server)?.log };
  return [
    failure ? problemBox(failure, t("Last lines of the log")) : null,
    inVain(server, act),
    ...server.warnings.filter((warning) => warning.code !== "no_users" || !BUSY.includes(server.status)).map((warning) => (warning.code === "no_users" ? noUsers(server, warning) : problemBox(warning, "", "warning"))),
  ].filter(Boolean);
}

/** What was asked of it and refused, or failed, until something else is asked or the reader has done with it: "Operational status for requests" may be far below. */
function inVain(server, act) {
  const operation = failureOf(server);
  const failed = operation && { ...operation.error, detail: `${whatOf(operation)}: ${operation.error.detail}`, request_id: operation.request_id };
  const { problem, level } = told.get(server.id) ?? { problem: failed, level: "danger" };
  if (!problem) return null;
  const box = problemBox(problem, t("Last lines of the log"), level);
  box.classList.add("alert-dismissible");
  box.append(h("button.btn-close", { type: "button", "aria-label": t("Close"), "aria-describedby": `${server.id}-name`, "data-key": `${server.id}-dismiss`, onclick: () => act("dismiss", server) }));
  return box;
}

/** A new server is not in trouble: it waits for its next step, and here is the button for it. */
function noUsers(server, warning) {
  const cure = server.allowed.includes("users") ? t("Press Auth Info Registration: it lets in the users of {path}.", { path: server.auth_file }) : warning.cure;
  return problemBox({ ...warning, cure }, "", "info");
}
