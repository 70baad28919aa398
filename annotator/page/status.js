/** What the page tells its user: messages, whether everything is saved, and the connection. */

import { $, element, iconButton } from "./dom.js";

/** Time for which a message stays, in milliseconds. */
const DURATION = { info: 4000, warning: 7000, error: 20000 };

const MAX_MESSAGES = 4;

/** Messages and save state. */
export class Status {
  /**
   * @param {import("./queue.js").SaveQueue} queue
   */
  constructor(queue) {
    this.queue = queue;
    this.isConnected = true;
    queue.addEventListener("state", () => this.update());
    for (const id of ["#save-state", "#save-again"]) {
      $(id).addEventListener("click", () => queue.retry());
    }
    window.addEventListener("beforeunload", (event) => {
      if (queue.pending) event.preventDefault();
    });
  }

  /**
   * Show a message. A message that is already there is only shown longer.
   * @param {string} sentence
   * @param {"info"|"warning"|"error"} kind
   */
  say(sentence, kind) {
    const list = $("#messages");
    for (const old of [...list.children]) if (old.dataset.text === sentence) old.remove();
    const message = element("div", { class: `message ${kind}`, role: kind === "error" ? "alert" : "status" });
    message.dataset.text = sentence;
    const close = iconButton("close", "Close the message", "Close the message", () => message.remove());
    message.append(element("span", {}, sentence), close);
    list.append(message);
    while (list.children.length > MAX_MESSAGES) list.firstChild.remove();
    setTimeout(() => message.remove(), DURATION[kind]);
  }

  /**
   * @param {boolean} isConnected
   * @param {string} reason Why the server refuses the connection, or "".
   */
  setConnected(isConnected, reason) {
    this.isConnected = isConnected;
    const text = $("#connection");
    text.textContent = reason ? "no access" : "connection lost, trying again…";
    text.title = reason || "Changes are kept in this page until the server answers.";
    this.update();
    if (!reason) return;
    this.say(`${reason} Do this in another tab. Then this page continues, and keeps your changes.`, "error");
  }

  /** Tell whether everything is saved; there is no need to save by hand. */
  tell() {
    const { pending } = this.queue;
    if (pending) this.say(`${pending} changes are not saved yet. They are sent without further steps.`, "warning");
    else this.say("Everything is saved. The page saves each change at once.", "info");
  }

  update() {
    const { state, message, pending } = this.queue;
    const words = { saved: "saved", saving: "saving…", failed: `not saved: ${message}` };
    const text = $("#save-state");
    text.dataset.state = state;
    text.textContent = words[state];
    text.disabled = state !== "failed" || pending === 0;
    text.title = state === "failed"
      ? `${pending} changes are not saved. Click to try again now.`
      : "Every change is stored on disk as soon as it is saved.";
    const isKept = state === "failed" && pending > 0;
    $("#save-problem").hidden = !isKept;
    $("#save-problem-text").textContent = isKept ? `Not saved: ${message}` : "";
    $("#connection").hidden = this.isConnected;
  }
}
