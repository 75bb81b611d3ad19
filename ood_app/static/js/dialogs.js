// Dialogs: the browser's own <dialog>, so that Esc closes, the focus stays inside and goes back to where it came from.
import { call, change, nameOf, serverPath } from "./api.js";
import { copyButton } from "./clipboard.js";
import { busyWhile, h } from "./dom.js";
import { adoptFields, adoptKeyFields, readFields, showErrors } from "./fields.js";
import { backTo, focusOn, placeOf } from "./focus.js";
import { needs } from "./list.js";
import { problemBox } from "./problem.js";
import { dayOf, t } from "./texts.js";

let number = 0;
let tellLate = () => {};

/** `tell(server, failure)`: what was asked in a dialog that was closed since then, and failed. */
export const onLate = (tell) => { tellLate = tell; };

/**
 * Opens a dialog about a server; answers {dialog, close, fail, refuse, foot}. `fail` shows a failure in it; `refuse` one of what was pressed,
 * which is told at the server where the dialog is closed by then.
 */
export function open(server, title, ...content) {
  const opener = document.activeElement;
  const place = placeOf(opener);
  const id = `dialog-${++number}`;
  const close = () => dialog.close();
  const problem = h("div.problem", { role: "alert" });
  const foot = h("div.dialog-foot");
  const dialog = h("dialog.console-dialog", { "aria-labelledby": id },
    h("div.dialog-head", {}, h("h2.h5", { id }, title), h("button.btn-close", { type: "button", "aria-label": t("Close"), onclick: close })),
    h("div.dialog-body", {}, ...content, problem), foot, h("div.spoken.visually-hidden", { "aria-live": "polite" }));
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (opener?.isConnected && !opener.disabled) focusOn(opener);
    else backTo(place);
  });
  document.body.append(dialog);
  dialog.showModal();
  const fail = (failure) => problem.replaceChildren(problemBox(failure, t("Last lines of the log")));
  return { dialog, close, foot, fail, refuse: (failure) => (dialog.open ? fail(failure) : tellLate(server, failure)) };
}

export const cancelButton = (close, text = t("Cancel")) => h("button.btn.btn-outline-secondary", { type: "button", onclick: close }, text);

/** Runs what a button is for; the button waits meanwhile, and a failure is shown in the dialog. */
export const run = (button, opened, work) => busyWhile(button, () => work().then(opened.close, opened.refuse));

/** Delete: says what is kept and until when, and wants the name typed. */
export function deleteDialog(server, restoreDays, onAccepted) {
  const until = restoreDays ? dayOf(Date.now() + restoreDays * 86400000) : t("the day that the site has set");
  const typed = h("input.form-control", { type: "text", id: "typed", autocomplete: "off", autocapitalize: "off", spellcheck: "false" });
  const button = h("button.btn.btn-danger", { type: "submit", disabled: true }, "Delete");
  const name = nameOf(server);
  const form = h("form", { id: "delete-form" },
    h("p", {}, t("The server {name} stops, and jobs that log to it fail from then on.", { name })),
    needs(server),
    h("ul", {},
      h("li", {}, t("Kept until {date}: a snapshot of its database, its settings and its port. Until then Restore brings it back.", { date: until })),
      h("li", {}, t("The bucket {bucket} and everything in it are never touched.", { bucket: server.bucket }))),
    h("label.form-label", { for: "typed" }, t("Type the env_name to confirm:"), " ", h("code.breakable", {}, server.env_name)), typed);
  const opened = open(server, t("Delete {name}?", { name }), form);
  typed.addEventListener("input", () => { button.disabled = typed.value !== server.env_name; });
  button.setAttribute("form", form.id);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!button.disabled) run(button, opened, async () => onAccepted(await change("DELETE", server, "", { typed: typed.value })));
  });
  opened.foot.append(cancelButton(opened.close), button);
  typed.focus();
}

/** Lines to copy: for a job, for the export, for the image. */
export function linesDialog(server, title, explanation, lines) {
  const opened = open(server, `${title} · ${nameOf(server)}`, h("p", {}, explanation), h("pre.lines", { tabindex: "0" }, lines));
  const copy = copyButton(lines, t("Copy the lines"), "copy-lines", t("Copy"));
  opened.foot.append(cancelButton(opened.close, t("Close")), copy);
  copy.focus();
}

/** A job on the console's own host: its fields, and behind a fold the lines that do the same elsewhere. */
export function jobDialog(title, explanation, task, fields, lines, onAccepted, server) {
  const rows = fields.map(({ name, help, value }) => h("div.mb-3", { "data-field": name },
    h("label.form-label", { for: `job-${name}` }, name),
    h("input.form-control", { type: "text", id: `job-${name}`, name, value, autocomplete: "off", autocapitalize: "off", spellcheck: "false", "aria-describedby": `job-${name}-help job-${name}-error` }),
    h("div.invalid-feedback", { id: `job-${name}-error` }),
    h("div.form-text", { id: `job-${name}-help` }, help)));
  const form = h("form", { id: "job-form", novalidate: true }, h("p", {}, explanation), ...rows,
    h("details", {}, h("summary", {}, t("The same on a command line")), h("pre.lines", { tabindex: "0" }, lines)));
  const button = h("button.btn.btn-primary", { type: "submit", form: form.id }, title);
  const opened = open(server, `${title} · ${nameOf(server)}`, form);
  adoptFields(form);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run(button, opened, async () => {
      try {
        onAccepted(await call("POST", "/jobs", { task, group_name: server.group, env_name: server.env_name, ...readFields(form) }));
      } catch (failure) {
        showErrors(form, failure.fields ?? {});
        throw failure;
      }
    });
  });
  opened.foot.append(cancelButton(opened.close), button);
  form.querySelector("input").focus();
}

/** There is no auth file yet: where it belongs, what it holds, and a button that makes it. */
export function authFileDialog(server, failure, register) {
  const body = h("div", {},
    h("p", {}, t("This file says who may use the server. Create it, then register it.")),
    h("p.copy-line", {}, h("code.breakable", {}, failure.path), copyButton(failure.path, t("Copy the path"), "copy-path")),
    h("p.mb-1", {}, t("Its content, with your own name and password (mode 0640):")),
    h("p.copy-line", {}, h("code.breakable", {}, failure.template), copyButton(failure.template, t("Copy the content"), "copy-template")));
  const opened = open(server, `Auth Info Registration · ${nameOf(server)}`, body);
  // The blue button is the next step: registering before there is a file only fails.
  const registerButton = h("button.btn.btn-outline-primary", { type: "button", onclick: () => run(registerButton, opened, register) }, "Auth Info Registration");
  const make = h("button.btn.btn-primary", { type: "button" }, t("Create the file for me"));
  make.addEventListener("click", () => busyWhile(make, async () => {
    try {
      const made = await call("POST", `${serverPath(server)}/auth-file`, {});
      const command = `cat '${made.path.replaceAll("'", "'\\''")}'`;
      body.replaceChildren(
        h("p", { role: "status" }, t("The file was created, with the user {user} and a new password, readable by your group.", { user: made.user_name })),
        h("p.mb-1", {}, t("Read the password with:")),
        h("p.copy-line", {}, h("code.breakable", {}, command), copyButton(command, t("Copy the command"), "copy-cat")),
        h("p", {}, t("Now register it, so that the server lets this user in.")));
      make.remove();
      registerButton.classList.replace("btn-outline-primary", "btn-primary");
      registerButton.focus();
    } catch (problem) {
      opened.refuse(problem);
    }
  }));
  opened.foot.append(cancelButton(opened.close), make, registerButton);
  make.focus();
}

/** Another key pair for a server that exists. */
export function storageDialog(server, onAccepted) {
  const form = h("form", { id: "storage-form", novalidate: true },
    h("p", {}, t("The new key is tried first; until it has worked, the old one stays in use. The bucket {bucket} stays the same.", { bucket: server.bucket })),
    document.getElementById("key-fields").content.cloneNode(true));
  const button = h("button.btn.btn-primary", { type: "submit", form: form.id }, t("Change the key"));
  const opened = open(server, t("Change the key of {name}", { name: nameOf(server) }), form);
  adoptFields(form);
  adoptKeyFields(form);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run(button, opened, async () => {
      try {
        onAccepted(await change("PUT", server, "/storage", readFields(form)));
      } catch (failure) {
        showErrors(form, failure.fields ?? {});
        throw failure;
      }
    });
  });
  opened.foot.append(cancelButton(opened.close), button);
  form.querySelector("input").focus();
}
