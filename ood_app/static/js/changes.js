// Dialogs for what changes a server as a whole: another MLflow, the one from before, another size.
import { change, nameOf } from "./api.js";
import { cancelButton, open, run } from "./dialogs.js";
import { h } from "./dom.js";
import { sizeText } from "./fields.js";
import { needs } from "./list.js";
import { dayOf, t } from "./texts.js";

const away = () => t("Then it stops for the change: requests under way finish first, and MLflow's clients try again by themselves for some minutes.");

/** A form with its button; `work` gives the operation. */
function confirm(server, title, label, colour, onAccepted, work, ...content) {
  const form = h("form", { id: "change-form" }, ...content);
  const button = h(`button.btn.btn-${colour}`, { type: "submit", form: form.id }, label);
  const opened = open(server, title, form);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run(button, opened, async () => onAccepted(await work(form)));
  });
  const cancel = cancelButton(opened.close);
  opened.foot.append(cancel, button);
  (form.querySelector("select, input:checked") ?? cancel).focus(); // what takes something away is not done by one more Enter
}

/** Until when what is there now is kept, where the service says for how many days. */
const keptUntil = (days) => (days === null || days === undefined ? t("the day that the site has set") : dayOf(Date.now() + days * 86400000));

/** A newer MLflow: tried, swapped, and the old one kept. */
export function upgradeDialog(server, days, onAccepted) {
  const versions = h("select.form-select", { id: "mlflow-version", name: "mlflow_version" }, ...server.upgrades.map((each) => h("option", { value: each }, each)));
  confirm(server, t("Upgrade MLflow of {name}?", { name: nameOf(server) }), t("Upgrade MLflow"), "primary", onAccepted,
    (form) => change("POST", server, "/upgrade", { mlflow_version: form.elements.mlflow_version.value }),
    h("label.form-label", { for: "mlflow-version" }, t("From MLflow {version} to:", { version: server.mlflow_version })), versions,
    h("ol.mt-3.mb-0", {},
      h("li", {}, t("The new version is tried on a copy of the database; the server goes on meanwhile.")),
      h("li", {}, away()),
      h("li", {}, t("Its database is copied and migrated to the new version, and it starts again. If anything fails before that, MLflow {version} goes on serving.", { version: server.mlflow_version })),
      h("li", {}, t("The old version and its database are kept until {date}: until then Roll back brings them back.", { date: keptUntil(days) }))));
}

/** Back to what was there before the last upgrade. */
export function rollbackDialog(server, days, onAccepted) {
  const { mlflow_version: version } = server.previous;
  confirm(server, t("Roll back {name}?", { name: nameOf(server) }), t("Roll back"), "danger", onAccepted,
    () => change("POST", server, "/rollback", { mlflow_version: version }),
    h("p", {}, t("The server goes back to MLflow {version} and to the database from before the change.", { version })),
    h("ul.mb-0", {},
      h("li", {}, t("What was logged since then is set aside and not served. Another Roll back brings it back, until {date}.", { date: keptUntil(days) })),
      h("li", {}, away())));
}

/** Stop, while somebody needs the server: says who, and what it means for them. */
export function stopDialog(server, work) {
  confirm(server, t("Stop {name}?", { name: nameOf(server) }), "Stop", "danger", () => {}, work,
    needs(server),
    h("p.mb-0", {}, t("Whatever logs to it fails from then on, until somebody presses Start.")));
}

/** More or less of the service's host. */
export function sizeDialog(server, sizes, onAccepted) {
  const choice = (size) => h("div.form-check", {},
    h("input.form-check-input", { type: "radio", name: "size", id: `size-${size.name}`, value: size.name, checked: size.name === server.size }),
    h("label.form-check-label", { for: `size-${size.name}` }, sizeText(size)));
  confirm(server, t("Change the size of {name}", { name: nameOf(server) }), t("Change the size"), "primary", onAccepted,
    (form) => change("PUT", server, "/size", { size: form.elements.size.value }),
    h("fieldset", {}, h("legend.fs-6", {}, t("How much of the service's host the server may take.")), ...sizes.map(choice)),
    h("p.mt-3.mb-0", {}, t("A running server is restarted: requests under way finish first, and MLflow's clients try again by themselves.")));
}
