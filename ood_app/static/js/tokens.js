// A server's bearer tokens: whose they are and until when, a way to end each, and a form for a new one.
import { call, consolePath, meta, nameOf, serverPath } from "./api.js";
import { cancelButton, open } from "./dialogs.js";
import { busyWhile, h } from "./dom.js";
import { focusOn } from "./focus.js";
import { isUnregistered } from "./list.js";
import { momentOf, t } from "./texts.js";

const OPEN = ["pending", "active"];
/** How long a new token's window has to come up before another one can be asked for. */
const WINDOW_MS = 3000;
const states = () => ({ pending: t("in force within seconds"), active: t("in force"), expired: t("expired"), revoked: t("revoked") });

/** The dialog. `me`: who asks. */
export function tokensDialog(server, me) {
  const list = h("div", { "aria-live": "polite" }, t("Asking the service …"));
  const opened = open(server, t("Tokens of {name}", { name: nameOf(server) }),
    h("p", {}, t("With a token a job logs in to this one server, for a time, without anybody's password. Its text is shown once, when it is made.")),
    list, isUnregistered(server) ? h("p", {}, t("Register Auth Info first: until then the server lets nobody in.")) : newToken(server));
  let looks = 0;
  let shown = "";
  const load = async () => {
    const look = ++looks;
    const { tokens } = await call("GET", `${serverPath(server)}/tokens`);
    if (look !== looks || JSON.stringify(tokens) === shown) return; // another look has overtaken it, or it is there already
    shown = JSON.stringify(tokens);
    draw(list, tokens, me, revoke);
  };
  const revoke = (token, button) => busyWhile(button, async () => {
    try {
      await call("DELETE", `${serverPath(server)}/tokens/${encodeURIComponent(token.id)}`, {});
      await load();
    } catch (failure) {
      opened.refuse(failure);
    }
  });
  const again = () => !document.hidden && load().catch(opened.fail); // a new token's page is another window
  window.addEventListener("focus", again);
  opened.dialog.addEventListener("close", () => window.removeEventListener("focus", again));
  opened.foot.append(cancelButton(opened.close, t("Close")));
  load().catch((failure) => {
    list.replaceChildren();
    opened.fail(failure);
  });
}

/** Draws them; the focus stays in the row that has it, also where its button is gone: under the same finger another token's would end that one, too. */
function draw(place, tokens, me, end) {
  const active = place.contains(document.activeElement) ? document.activeElement : null;
  const row = active?.closest("[data-token]")?.dataset.token;
  place.replaceChildren(tokens.length ? table(tokens, me, end) : h("p.text-body-secondary", {}, t("This server has no tokens.")));
  const again = place.querySelector(`[data-token="${CSS.escape(row ?? "")}"]`);
  if (active) focusOn((active.matches("button") && again?.querySelector("button")) || again || place.closest("dialog").querySelector("button"));
}

function table(tokens, me, end) {
  const heads = [t("User"), t("What for"), t("State"), t("Until"), ""];
  const row = (token) => {
    const button = h("button.btn.btn-sm.btn-outline-danger", { type: "button", "aria-describedby": `token-${token.id}`, onclick: () => end(token, button) }, t("Revoke"));
    return h("tr", { "data-token": token.id, "data-state": token.state, tabindex: "-1" },
      h("td", { id: `token-${token.id}` }, token.user, token.user === me?.user ? ` (${t("you")})` : ""),
      h("td.breakable", {}, token.name || token.id), h("td", {}, states()[token.state] ?? token.state), h("td", {}, momentOf(token.expires_at)),
      h("td", {}, OPEN.includes(token.state) ? button : null));
  };
  return h("div.table-responsive", {}, h("table.table.table-sm.tokens", {}, h("thead", {}, h("tr", {}, ...heads.map((head) => (head ? h("th", { scope: "col" }, head) : h("td"))))),
    h("tbody", {}, ...tokens.map(row))));
}

/** A plain form into a window of its own: the answer holds the token's text, and no script gets it, this page's neither. */
function newToken(server) {
  const path = consolePath(`/tokens/${encodeURIComponent(server.group)}/${encodeURIComponent(server.env_name)}`);
  const field = (name, label, attributes) => h("div.col-sm", {}, h("label.form-label", { for: `token-${name}` }, label),
    h("input.form-control", { id: `token-${name}`, name, autocomplete: "off", ...attributes }));
  const button = h("button.btn.btn-primary", { type: "submit" }, t("Make a token"));
  const once = (event) => {
    if (button.hasAttribute("aria-busy")) event.preventDefault(); // a double click: each would make one
    else busyWhile(button, () => new Promise((done) => { setTimeout(done, WINDOW_MS); }));
  };
  return h("form", { method: "post", action: path, target: "_blank", rel: "noopener", onsubmit: once },
    h("input", { type: "hidden", name: "csrf_token", value: meta("csrf-token") }),
    h("div.row.g-2.align-items-end", {},
      field("name", t("What for"), { type: "text", maxlength: "80" }),
      field("days", t("How many days"), { type: "number", min: "0.01", step: "any", value: "7", required: true }),
      h("div.col-auto", {}, button)));
}
