/** The frames to correct next, with a reason each. */

import { getJson, isAbort } from "./api.js";
import { $, element } from "./dom.js";

const NUM_SUGGESTIONS = 5;

/** The list of suggestions. Dispatches "change". */
export class Suggestions extends EventTarget {
  /** @param {Object} app */
  constructor(app) {
    super();
    this.app = app;
    /** @type {Array<{frame: number, reason: string, label: number, score: number}>} */
    this.list = [];
    this.controller = null;
    app.seeker.addEventListener("wanted", () => this.mark());
    app.propagation.addEventListener("ended", () => this.refresh());
  }

  /** Ask the server again. */
  async refresh() {
    this.controller?.abort();
    const controller = new AbortController();
    this.controller = controller;
    $("#suggestions-text").textContent = "Looking for frames…";
    $("#suggestions-text").hidden = false;
    try {
      const path = `/api/suggestions?num=${NUM_SUGGESTIONS}`;
      this.list = (await getJson(path, controller.signal)).suggestions;
      this.update();
    } catch (error) {
      if (isAbort(error)) return;
      this.list = [];
      this.update();
      $("#suggestions-text").textContent = error.message;
    }
  }

  /** Jump to the suggestion after the one that is shown, or to the first. */
  async next() {
    if (!this.list.length) await this.refresh();
    if (!this.list.length) {
      this.app.status.say($("#suggestions-text").textContent, "info");
      return;
    }
    const index = this.list.findIndex(({ frame }) => frame === this.app.seeker.wanted);
    this.open(this.list[(index + 1) % this.list.length]);
  }

  /** Show a suggestion's frame and choose its object. */
  open({ frame, label }) {
    const { session, seeker, player } = this.app;
    player.pause();
    if (label && session.object(label)) session.choose(label);
    seeker.goTo(frame);
  }

  update() {
    const { session } = this.app;
    const text = $("#suggestions-text");
    text.hidden = this.list.length > 0;
    text.textContent = session.hasState("propagated")
      ? "No frame is suggested now."
      : "After the first propagation, the frames that need a correction appear here.";
    $("#suggestions").replaceChildren(...this.list.map((suggestion) => {
      const { frame, reason, label } = suggestion;
      const object = session.object(label);
      const name = object ? ` · ${object.name}` : "";
      const button = element("button", {
        type: "button",
        "aria-label": `Go to frame ${frame}: ${reason}${name}`,
        title: `Go to frame ${frame}. N goes to the next suggestion.`,
        onclick: () => this.open(suggestion),
      }, element("b", {}, String(frame)), element("span", {}, `${reason}${name}`));
      button.dataset.frame = String(frame);
      return element("li", {}, button);
    }));
    this.mark();
    this.dispatchEvent(new Event("change"));
  }

  /** Mark the suggestion that is shown. */
  mark() {
    for (const button of document.querySelectorAll("#suggestions button")) {
      const isShown = Number(button.dataset.frame) === this.app.seeker.wanted;
      button.setAttribute("aria-current", String(isShown));
    }
  }
}
