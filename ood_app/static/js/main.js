// The page: asks for the state, draws it, and does what is pressed.
import { call, change } from "./api.js";
import { busyWhile, byId, h, say } from "./dom.js";
import { rollbackDialog, sizeDialog, stopDialog, upgradeDialog } from "./changes.js";
import { authFileDialog, deleteDialog, jobDialog, linesDialog, onLate, storageDialog } from "./dialogs.js";
import { adoptField, findAll } from "./find.js";
import { adoptForm, offer, operationEnded } from "./form.js";
import * as list from "./list.js";
import * as operations from "./operations.js";
import { problemBox } from "./problem.js";
import { now, t } from "./texts.js";
import { tokensDialog } from "./tokens.js";

const BUSY_MS = 2000;
const CALM_MS = 20000;
const LOST_MS = 10000;
let me = null;
let askWho = true;
let servers = null;
let timer = 0;
let asking = null;
let lost = false;
/** How many changes were accepted: a look that was under way then tells of before. */
let changes = 0;

/** Asks once, also when several want to know at the same time; then plans the next look. */
function refresh() {
  asking ??= look().finally(() => {
    asking = null;
    plan();
  });
  return asking;
}

async function look() {
  try {
    if (askWho) welcome(await call("GET", "/me"));
    const before = changes;
    const asked = operations.wanted();
    const query = asked.map((id) => `op=${encodeURIComponent(id)}`).join("&");
    const state = await call("GET", `/state${query ? `?${query}` : ""}`);
    if (changes !== before) return await look();
    servers = state.servers;
    operations.update(state.operations, operationEnded, asked);
    list.draw(servers, act);
    byId("updated").textContent = t("updated {time}", { time: now() });
    banner("lost", null);
    lost = false;
  } catch (failure) {
    showLost(failure);
  }
}

function plan() {
  clearTimeout(timer);
  if (document.hidden) return;
  const busy = operations.wanted().length > 0 || (servers ?? []).some((each) => each.operation || ["creating", "deleting"].includes(each.status));
  timer = setTimeout(refresh, lost ? LOST_MS : busy ? BUSY_MS : CALM_MS);
}

document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : refresh()));

function welcome(answer) {
  me = answer;
  askWho = false;
  byId("user").textContent = me.user;
  operations.readBy(me.user);
  offer(me);
  banner("groups", me.joined.length || me.left.length ? groupNote() : null);
  banner("runtime", me.isolates ? null : h("p.small.text-body-secondary.mb-2", {}, t("Servers here run without isolation between groups: fit for a demo or a host of one group.")));
}

function groupNote() {
  const text = me.joined.length
    ? t("You joined {groups} after your portal session began, so its files cannot be read yet.", { groups: me.joined.join(", ") })
    : t("You left {groups} after your portal session began.", { groups: me.left.join(", ") });
  return problemBox({ detail: text, cure: t("In Open OnDemand choose Help > Restart Web Server, then open this page again.") }, "", "warning");
}

function showLost(failure) {
  lost = true;
  const cure = servers ? `${failure.cure} ${t("What you see is out of date. Running servers keep running, and so do the jobs that log to them.")}` : failure.cure;
  banner("lost", problemBox({ detail: failure.detail, cure }, "", failure.unreachable ? "warning" : "danger"));
  if (!servers) byId("servers").replaceChildren(h("p.text-body-secondary", {}, t("The list appears as soon as the service answers.")));
}

/** Shows, replaces or (null) removes one banner. One that says the same stays as it is, so that it is not read out again. */
function banner(name, content) {
  const old = document.querySelector(`[data-banner="${name}"]`);
  if (old && content && old.textContent === content.textContent) return;
  old?.remove();
  if (content) byId("banners").append(h("div", { "data-banner": name }, content));
}

function accepted(operation) {
  changes += 1;
  operations.update([operation], operationEnded);
  // The row rests at once, not at the next look: its buttons would only be refused.
  const server = servers?.find((each) => each.id === operation.server_id);
  if (server && !operations.finished(operation)) {
    Object.assign(server, { operation: operation.id, allowed: [] });
    list.draw(servers, act);
  }
  refresh();
}

function jobAccepted(job) {
  accepted(job);
  byId("operations-title").scrollIntoView({ block: "nearest" });
}

const register = (server) => async () => {
  const operation = await change("POST", server, "/auth");
  list.tell(server, operation.notice, "warning");
  accepted(operation);
};
const press = (name) => async (server) => accepted(await change("POST", server, `/${name}`));

const ACTIONS = {
  start: press("start"),
  stop: (server) => (server.leases.length ? stopDialog(server, () => press("stop")(server)) : press("stop")(server)),
  restore: press("restore"),
  delete: (server) => deleteDialog(server, me?.restore_days, accepted),
  storage: (server) => storageDialog(server, accepted),
  resize: (server) => sizeDialog(server, me?.sizes ?? [], accepted),
  upgrade: (server) => upgradeDialog(server, me?.previous_days, accepted),
  rollback: (server) => rollbackDialog(server, me?.previous_days, accepted),
  tokens: (server) => tokensDialog(server, me),
  dismiss: operations.forgetFailures,
  users: async (server) => {
    try {
      await register(server)();
    } catch (failure) {
      // Not over a dialog that was opened meanwhile: what is typed there would press this one's button.
      if (failure.code !== "auth_file_missing" || document.querySelector("dialog[open]")) throw failure;
      authFileDialog(server, failure, register(server));
    }
  },
  job: (server) => linesDialog(server, t("Lines for a job"), t("Put these into your job script, with the password from the auth file."), server.job_lines),
  export: (server) => {
    const words = t("On a login or compute node with the mlwf tools: this packs one version of a registered model.");
    if (!me?.local_jobs) return linesDialog(server, "Export model", words, server.export_command);
    return jobDialog("Export model", t("Packs one version of a registered model into a folder of yours, on this host."), "export", [
      { name: "model_name", help: t("Name of the registered model.") },
      { name: "model_version", help: t("Number of the version.") },
      { name: "output_dir", help: t("Folder for the result; empty: mlflow in your home.") },
    ], server.export_command, jobAccepted, server);
  },
  image: (server) => {
    const words = t("On a compute node with the mlwf tools: this builds a container image that runs an exported model.");
    if (!me?.local_jobs) return linesDialog(server, "Create image", words, server.image_command);
    return jobDialog("Create image", t("Builds a container image that runs an exported model, on this host."), "image", [
      { name: "model_package", help: t("The model: s3://…, https://…, the absolute path of a model.tar.gz, models:/NAME/VERSION or models:/NAME@ALIAS of the server.") },
      { name: "base_container_url", help: t("Base image, docker://… or another address that Singularity takes."), value: me.base_container_url },
      { name: "output_dir", help: t("Folder for the result; empty: mlflow in your home.") },
    ], server.image_command, jobAccepted, server);
  },
};

/** What a press on a server does. Why it was refused is told there, where the reader looks. */
async function act(name, server) {
  list.tell(server, null);
  try {
    await ACTIONS[name](server);
  } catch (failure) {
    refused(server, failure);
  }
  list.draw(servers, act);
}

function refused(server, failure) {
  list.tell(server, failure);
  say(`${failure.detail} ${failure.cure}`);
}

const redraw = () => servers && list.draw(servers, act);

adoptField(redraw);
adoptForm((operation) => {
  findAll(); // else the new one might not be seen
  accepted(operation);
  byId("operations-title").scrollIntoView({ block: "nearest" });
});
byId("update").addEventListener("click", (event) => busyWhile(event.currentTarget, async () => {
  askWho = true;
  await refresh();
  if (!lost) say(t("The list was updated."));
}));
byId("reset").addEventListener("click", () => {
  operations.forgetFinished();
  redraw();
});
onLate((server, failure) => {
  refused(server, failure);
  redraw();
});
// A key that is held presses once: else a dialog that opens under it would be answered before it was read.
document.addEventListener("keydown", (event) => event.repeat && event.key === "Enter" && event.preventDefault());
operations.show();
refresh();
