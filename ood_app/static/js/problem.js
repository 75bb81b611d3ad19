// What went wrong, why, the cure; and what the admins need to find it.
import { copyButton } from "./clipboard.js";
import { h } from "./dom.js";
import { t } from "./texts.js";

/** What, why and the cure of a failure, with the log's last lines folded where there are any, and the id by which logs and audit know the request. */
export function problemBox(problem, logTitle, level = "danger") {
  return h(`div.alert.alert-${level}.problem-box`, {},
    h("p", {}, h("strong", {}, problem.detail)),
    problem.cure ? h("p", {}, problem.cure) : null,
    problem.log ? h("details", {}, h("summary", {}, logTitle), h("pre.log", { tabindex: "0" }, problem.log)) : null,
    problem.request_id ? requestId(problem.request_id) : null);
}

const requestId = (id) => h("p.request-id", {}, t("Request id for the admins:"), " ", h("code", {}, id), copyButton(id, t("Copy the request id"), `copy-request-${id}`));
