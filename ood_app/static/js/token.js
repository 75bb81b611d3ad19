// The page of a new token: a button that copies it, and the time in the reader's zone.
import { copyButton } from "./clipboard.js";
import { byId } from "./dom.js";
import { momentOf, t } from "./texts.js";

byId("line").append(copyButton(byId("secret").textContent, t("Copy the token"), "copy-token"));
for (const time of document.querySelectorAll("time")) time.textContent = momentOf(time.dateTime);
