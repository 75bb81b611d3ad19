// The console's own JSON. Everything that changes something carries the page's token.
import { t } from "./texts.js";

export const meta = (name) => document.querySelector(`meta[name="${name}"]`).content;
/** The address of one of the console's own paths. */
export const consolePath = (path) => meta("console-base") + path;

/** A failure as the console reports it: code, detail, cure, fields. `unreachable`: nothing is wrong with what was asked. */
export class Failure extends Error {
  constructor(body) {
    super(body.detail);
    Object.assign(this, { code: "unknown", cure: "", fields: {}, ...body });
    this.unreachable = ["service_unreachable", "console_unreachable"].includes(this.code);
  }
}

export async function call(method, path, body) {
  const headers = { Accept: "application/json" };
  if (method !== "GET") Object.assign(headers, { "Content-Type": "application/json", "X-CSRFToken": meta("csrf-token") });
  let response;
  try {
    response = await fetch(consolePath(`/api${path}`), { method, headers, body: body && JSON.stringify(body), redirect: "error", cache: "no-store" });
  } catch {
    throw new Failure({
      code: "console_unreachable",
      detail: t("The console does not answer."),
      cure: t("Check your connection; if your portal session has ended, log in again and reload the page."),
    });
  }
  const answer = await response.json().catch(() => null);
  if (response.ok && answer) return answer;
  throw new Failure(answer ?? {
    code: "console_unreachable",
    detail: t("The console gave an answer that is not understood (status {status}).", { status: response.status }),
    cure: t("Reload the page; if it goes on, tell the admins."),
  });
}

export const serverPath = (server) => `/servers/${encodeURIComponent(server.group)}/${encodeURIComponent(server.env_name)}`;
