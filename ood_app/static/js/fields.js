// The fields of a form: what they hold, what is wrong with them, and the two ways to give a key.
import { call } from "./api.js";
import { h } from "./dom.js";
import { t } from "./texts.js";

/** The texts of all fields that are shown, by name. */
export function readFields(form) {
  const values = {};
  for (const input of form.elements) {
    if (!input.name || input.closest("[hidden]") || (input.type === "radio" && !input.checked)) continue;
    values[input.name] = input.value;
  }
  return values;
}

/** The fields of a key, by what a profile's file calls them. */
const IN_PROFILE = { cloud_storage_accesskey_ID: "aws_access_key_id", cloud_storage_secret_accesskey: "aws_secret_access_key" };

/** With Read credentials the profile is to blame for what is wrong with its key. */
function byProfile(form, messages) {
  if (form.elements.credentials?.value !== "read") return messages;
  const ofKey = Object.entries(IN_PROFILE).filter(([name]) => messages[name]).map(([name, theirs]) => `${theirs}: ${messages[name]}`);
  return ofKey.length ? { ...messages, profile: ofKey.join(" ") } : messages;
}

/**
 * Writes each message beside its field, clears the others, and goes to the first (not when nobody waits for it: `focus` false).
 * Answers whether one of them can be seen: a field that is hidden tells nobody anything.
 */
export function showErrors(form, all, focus = true) {
  const messages = byProfile(form, all);
  let first = null;
  for (const field of form.querySelectorAll("[data-field]")) {
    const message = messages[field.dataset.field] ?? "";
    const input = mark(field, message);
    if (message && !first && !field.closest("[hidden]")) first = input;
  }
  first?.closest("details")?.setAttribute("open", "");
  if (focus) first?.focus();
  return Boolean(first);
}

/** Writes the message beside its field, or takes it away; answers what the field is filled in with. */
function mark(field, message) {
  const input = field.querySelector("input, select");
  field.querySelector(".invalid-feedback").textContent = message;
  input.classList.toggle("is-invalid", Boolean(message));
  if (message) input.setAttribute("aria-invalid", "true");
  else input.removeAttribute("aria-invalid");
  return input;
}

/** What was wrong with a field is so no longer once something else stands in it: not for those who see it, nor for those to whom it is read. */
export function adoptFields(form) {
  form.addEventListener("input", (event) => {
    const field = event.target.closest("[data-field]");
    if (field) mark(field, "");
  });
}

/** manual and Read credentials show their own fields. */
export function adoptKeyFields(form) {
  form.addEventListener("change", (event) => {
    if (event.target.name !== "credentials") return;
    for (const part of form.querySelectorAll("[data-credentials]")) part.hidden = part.dataset.credentials !== event.target.value;
    if (event.target.value === "read") loadProfiles(form).catch((failure) => profileError(form, failure));
  });
}

/** Fills the choice of profiles: their names are read anew each time, since the file may just have been written. */
async function loadProfiles(form) {
  const { profiles } = await call("GET", "/profiles");
  const select = form.elements.profile;
  const before = select.value;
  setOptions(select, profiles);
  if (profiles.includes(before)) select.value = before;
  profileError(form, profiles.length ? null : {
    detail: t("There is no profile with a key in your ~/.aws/credentials."),
    cure: t("Add one with 'aws configure', or choose manual."),
  });
}

function profileError(form, failure) {
  mark(form.querySelector('[data-field="profile"]'), failure ? `${failure.detail} ${failure.cure}` : "");
}

/** What a size stands for. */
export const sizeText = (size) => {
  const values = { ...size, memory: Math.round(size.memory / 2 ** 30 * 10) / 10 };
  return [
    t("{name}: {memory} GiB, {cpus} CPU, worker processes: {workers}", values),
    size.genai_jobs ? t(", with MLflow's GenAI jobs") : "",
    size.gateway ? t(", with MLflow's AI gateway") : "",
  ].join("");
};

/** `empty`: a first choice that is none, so that nothing is chosen by accident. */
export function setOptions(select, values, chosen, empty = false) {
  select.replaceChildren(...(empty ? [h("option", { value: "" })] : []), ...values.map((value) => h("option", { value, selected: value === chosen }, value)));
}
