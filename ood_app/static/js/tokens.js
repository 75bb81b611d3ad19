// A server's bearer tokens: whose they are and until when, a way to end each, and a form for a new one.
import { call, consolePath, meta, nameOf, serverPath } from "./api.js";
import { cancelButton, open } from "./dialogs.js";
import { h } from "./dom.js";
import { isUnregistered } from "./list.js";
import { momentOf, t } from "./texts.js";

const OPEN = ["pending", "active"];
const states = () => ({ pending: t("in force within seconds"), active: t("in force"), expired: t("over"), revoked: t("revoked") });

/** The dialog. `me`: who asks. */
export function tokensDialog(server, me) {
  const list = h("div", { "aria-live": "polite" }, t("Asking the service …"));
  const opened = open(t("Tokens of {name}", { name: nameOf(server) }),
    h("p", {}, t("With a token a job logs in to this one server, for a time, without anybody's password. Its text is shown once, when it is made.")),
    list, isUnregistered(server) ? h("p", {}, t("Register Auth Info first: until then the server lets nobody in.")) : newToken(server));
  const load = async () => draw(list, (await call("GET", `${serverPath(server)}/tokens`)).tokens, revoke);
  const revoke = async (token, button) => {
    button.disabled = true;
    try {
      await call("DELETE", `${serverPath(server)}/tokens/${encodeURIComponent(token.id)}`, {});
      await load();
      list.querySelector("button")?.focus();
    } catch (failure) {
      opened.fail(failure);
      button.disabled = false;
    }
  };
  const draw = (place, tokens, end) => place.replaceChildren(tokens.length ? table(tokens, me, end) : h("p.text-body-secondary", {}, t("This server has no tokens.")));
  const again = () => !document.hidden && load().catch(opened.fail); // a new token's page is another window
  window.addEventListener("focus", again);
  opened.dialog.addEventListener("close", () => window.removeEventListener("focus", again));
  opened.foot.append(cancelButton(opened.close, t("Close")));
  load().catch((failure) => {
    list.replaceChildren();
    opened.fail(failure);
  });
}

function table(tokens, me, end) {
  const heads = [t("User"), t("What for"), t("State"), t("Until"), ""];
  const row = (token) => {
    const button = h("button.btn.btn-sm.btn-outline-danger", { type: "button", "aria-describedby": `token-${token.id}`, onclick: () => end(token, button) }, t("Revoke"));
    return h("tr", { "data-token": token.id, "data-state": token.state },
      h("td", { id: `token-${token.id}` }, token.user, token.user === me?.user ? ` (${t("you")})` : ""),
      h("td.breakable", {}, token.name || token.id), h("td", {}, states()[token.state] ?? token.state), h("td", {}, momentOf(token.expires_at)),
      h("td", {}, OPEN.includes(token.state) ? button : null));
  };
  return h("div.table-responsive", {}, h("table.table.table-sm.tokens", {}, h("thead", {}, h("tr", {}, ...heads.map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", {}, ...tokens.map(row))));
}

/** A plain form into a window of its own: the answer holds the token's text, and no script gets it, this page's neither. */
function newToken(server) {
  const path = consolePath(`/tokens/${encodeURIComponent(server.group)}/${encodeURIComponent(server.env_name)}`);
  const field = (name, label, attributes) => h("div.col-sm", {}, h("label.form-label", { for: `token-${name}` }, label),
    h("input.form-control", { id: `token-${name}`, name, autocomplete: "off", ...attributes }));
  return h("form", { method: "post", action: path, target: "_blank", rel: "noopener" },
    h("input", { type: "hidden", name: "csrf_token", value: meta("csrf-token") }),
    h("div.row.g-2.align-items-end", {},
      field("name", t("What for"), { type: "text", maxlength: "80" }),
      field("days", t("How many days"), { type: "number", min: "0.01", step: "any", value: "7", required: true }),
      h("div.col-auto", {}, h("button.btn.btn-primary", { type: "submit" }, t("Make a token")))));
}
