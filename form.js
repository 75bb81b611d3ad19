// Fills the form from the address, as the console's buttons ask for it. What comes by an address is a stranger's word: only these fields, only a
// choice that is there, only what the field's own pattern takes; the user still presses Launch, and submit.yml.erb checks again.
"use strict";

(() => {
  const FIELDS = ["group_name", "env_name", "model_name", "model_version", "model_package", "base_container_url"];
  const asked = new URLSearchParams(window.location.search);
  const find = (name) => document.getElementById(`batch_connect_session_context_${name}`);
  const fields = FIELDS.filter((name) => asked.has(name))
    .map((name) => [find(name), asked.get(name)])
    .filter(([field, value]) => field && value.length <= 2048 && !/[\u0000-\u001f\u007f]/.test(value));

  // A text that the field's own pattern refuses leaves it as it was.
  const takes = (field, value) => {
    if (field.tagName === "SELECT") return [...field.options].some((option) => option.value === value);
    const before = field.value;
    field.value = value;
    const good = !field.validity.patternMismatch;
    field.value = before;
    return good;
  };

  // The form begins with the last session's values: that group's server of the asked name would be another server.
  const refuse = (group) => {
    fields.length = 0;
    for (const field of [group, find("env_name")]) if (field) field.value = "";
    const note = document.createElement("p");
    note.className = "alert alert-warning";
    note.setAttribute("role", "alert");
    note.textContent = document.documentElement.lang.startsWith("ja")
      ? "指定されたグループはここで選択できないため、何も入力していません。最近加わったグループの場合は、[Help] - [Restart Web Server] を選択してから、もう一度ボタンを押してください。"
      : "The group that was asked for is no choice here, so nothing was filled in: if you joined it lately, choose Help > Restart Web Server, then press the button again.";
    group.parentElement.before(note);
  };
  if (asked.has("group_name") && find("group_name") && !takes(find("group_name"), asked.get("group_name"))) refuse(find("group_name"));

  // Choices first: a change of theirs may set other fields.
  fields.sort(([a], [b]) => (b.tagName === "SELECT") - (a.tagName === "SELECT"));
  for (const [field, value] of fields) {
    if (!takes(field, value)) continue;
    field.value = value;
    field.dispatchEvent(new Event("change", { bubbles: true }));
  }
})();
