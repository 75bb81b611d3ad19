// The form that creates a server. It knows no rule of its own: choices and defaults come from the service, and so do the messages.
import { call } from "./api.js";
import { busyWhile, byId, h } from "./dom.js";
import { adoptFields, adoptKeyFields, readFields, setOptions, showErrors, sizeText } from "./fields.js";
import { problemBox } from "./problem.js";
import { t } from "./texts.js";

const form = byId("create-form");
const button = byId("create-button");
const problem = byId("create-problem");
/** The operation that the form's last press began: others' are nothing of the form's, whose list shows them too. */
let begun = "";
/** The names of the fields that were written anew since then: how it ends says nothing of them. */
const edited = new Set();

/** What the object store said of the key or the bucket belongs beside that field. */
const BLAME = {
  storage_key_unknown: "cloud_storage_accesskey_ID",
  storage_secret_wrong: "cloud_storage_secret_accesskey",
  storage_bucket_missing: "cloud_storage_bucket_name",
  storage_forbidden: "cloud_storage_bucket_name", // a store says the same of another's bucket and of one that is not there
  storage_unreachable: "endpoint_url",
  storage_not_s3: "endpoint_url",
  server_exists: "env_name",
  server_deleting: "env_name",
};

/** Sets up the form once; `onAccepted` gets the operation. */
export function adoptForm(onAccepted) {
  adoptFields(form);
  adoptKeyFields(form);
  form.addEventListener("input", (event) => edited.add(event.target.name));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    busyWhile(button, async () => {
      problem.replaceChildren();
      begun = "";
      edited.clear();
      try {
        const operation = await call("POST", "/servers", readFields(form));
        begun = operation.id;
        showErrors(form, {});
        onAccepted(operation);
      } catch (failure) {
        showProblem(failure, true);
      }
    });
  });
}

/** What the service offers this caller. Fields keep what was typed. */
export function offer(me) {
  const chosen = form.elements.group_name.value;
  setOptions(form.elements.group_name, me.groups, chosen, me.groups.length > 1);
  form.elements.group_name.disabled = button.disabled = me.groups.length === 0;
  for (const [name, values] of Object.entries(me.choices)) {
    const before = form.elements[name]?.value;
    if (form.elements[name]) setOptions(form.elements[name], values, values.includes(before) ? before : me.defaults[name]);
  }
  describeSizes(me.sizes);
  for (const name of ["endpoint_url", "region", "idle_seconds"]) {
    form.elements[name].placeholder = me.defaults[name] ?? "";
  }
  form.querySelector('[data-field="endpoint_url"]').hidden = me.endpoint_url_fixed;
  problem.querySelector("[data-no-group]")?.remove();
  if (!me.groups.length) problem.replaceChildren(noGroup(me));
}

/** Beside each size's name what it stands for. */
function describeSizes(sizes) {
  for (const option of form.elements.size.options) {
    const size = sizes.find((each) => each.name === option.value);
    if (size) option.textContent = sizeText(size);
  }
}

function noGroup(me) {
  return h("p.alert.alert-info", { "data-no-group": "" }, me.other_groups.length
    ? t("In your groups ({groups}) you may not create servers: ask the group's manager.", { groups: me.other_groups.join(", ") })
    : t("You are in no group that may have tracking servers: ask your group's manager to add you, then log in to the portal again."));
}

/** Beside the fields to blame; what no field is to blame for, above the button. */
function showProblem(failure, focus) {
  const { code, detail, cure } = failure;
  const fields = Object.keys(failure.fields ?? {}).length ? failure.fields : (BLAME[code] ? { [BLAME[code]]: t("{detail}. {cure}", { detail, cure }) } : {});
  const same = Object.fromEntries(Object.entries(fields).filter(([name]) => !edited.has(name)));
  const blamed = showErrors(form, same, focus);
  problem.replaceChildren(...(blamed ? [] : [problemBox(failure, t("Last lines of the log"))]));
}

/**
 * How an operation ended. Of the form's own: the secret is forgotten after success, what was wrong is shown beside its field after failure. What was
 * typed meanwhile, for the next server, stays.
 */
export function operationEnded(operation) {
  if (operation.id !== begun) return;
  if (operation.state === "succeeded") {
    if (!edited.has("cloud_storage_secret_accesskey")) form.elements.cloud_storage_secret_accesskey.value = "";
    return;
  }
  if (!operation.error) return;
  showProblem(operation.error, false);
}
