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

/** More than the console itself waits for the service: what lasts longer hangs somewhere between page and console. */
const ANSWER_SECONDS = 30;

export async function call(method, path, body) {
  const signal = AbortSignal.timeout(ANSWER_SECONDS * 1000);
  const headers = { Accept: "application/json" };
  if (method !== "GET") Object.assign(headers, { "Content-Type": "application/json", "X-CSRFToken": meta("csrf-token") });
  let response;
  let answer = null;
  try {
    response = await fetch(consolePath(`/api${path}`), { method, headers, body: body && JSON.stringify(body), redirect: "manual", cache: "no-store", signal });
    answer = await response.json();
  } catch {
    if (signal.aborted) throw neverAnswered(method);
    if (!response) throw unreachable(method);
  }
  if (response.ok && answer) return answer;
  if (!answer && (response.type === "opaqueredirect" || response.status === 401)) throw sessionEnded();
  throw new Failure(answer ?? {
    code: "console_unreachable",
    detail: t("The console's answer is not understood (status {status}).", { status: response.status }),
    cure: method === "GET" ? t("Reload the page; if it goes on, tell the admins.") : maybeDone(),
  });
}

const unreachable = (method) => new Failure({
  code: "console_unreachable",
  detail: t("The console does not answer."),
  cure: [t("Check your connection; if your portal session has ended, log in again and reload the page."), method === "GET" ? "" : maybeDone()].join(" ").trim(),
});

/** A change whose answer was lost, on its way or by a portal that gave up, may have come to the service: nobody is sent to make it once more. */
const maybeDone = () => t("What you asked for may still be done: look at the list before you ask again.");

/** The console itself sends nobody elsewhere: the portal does, to its login or to where it starts the user's web server anew. */
const sessionEnded = () => new Failure({
  code: "console_unreachable",
  detail: t("Your portal session has ended, so nothing was asked of the service."),
  cure: t("Reload the page, and log in again if the portal asks you to."),
});

const neverAnswered = (method) => new Failure({
  code: "console_unreachable",
  detail: t("The console does not answer: nothing came within {seconds} seconds.", { seconds: ANSWER_SECONDS }),
  cure: method === "GET" ? t("Check your connection and reload the page; if it goes on, tell the admins.") : maybeDone(),
});

/** What people call a server. */
export const nameOf = (server) => `${server.group} / ${server.env_name}`;
export const serverPath = (server) => `/servers/${encodeURIComponent(server.group)}/${encodeURIComponent(server.env_name)}`;

/** Asks for a change of the server that is shown, and of no other that has its name by now. */
export const change = (method, server, what, body = {}) => call(method, `${serverPath(server)}${what}`, { ...body, server_id: server.id });
