/** The row above the timeline: frame number, time, play button. */

import { $, icon } from "./dom.js";

/** Frame number, time and play button. */
export class Transport {
  /** @param {Object} app */
  constructor(app) {
    this.app = app;
    this.field = $("#frame");
    app.seeker.addEventListener("wanted", () => this.update());
    app.player.addEventListener("state", () => this.updatePlay());
    this.field.addEventListener("change", () => this.go());
    this.field.addEventListener("focus", () => this.field.select());
    this.field.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.go();
      if (event.key === "Enter" || event.key === "Escape") this.field.blur();
    });
    this.field.addEventListener("blur", () => this.update());
  }

  /** Show the clip's name, length and size. */
  load() {
    const { session } = this.app;
    const { name, numFrames, width, height, model } = session;
    this.field.max = String(numFrames - 1);
    $("#last-frame").textContent = `/ ${numFrames - 1}`;
    $("#clip-name").textContent = name;
    const device = model ? ` · ${model.method} on ${model.device}` : "";
    $("#clip-size").textContent = `${width}×${height}, ${numFrames} frames${device}`;
    $("#clip-size").title = model ? `Model: ${model.name}` : "No model";
    $("#demo").hidden = !session.isDemo;
    this.update();
  }

  go() {
    const frame = parseInt(this.field.value, 10);
    if (!Number.isNaN(frame)) {
      this.app.player.pause();
      this.app.seeker.goTo(frame);
    }
  }

  update() {
    const { seeker, session } = this.app;
    if (document.activeElement !== this.field) this.field.value = String(seeker.wanted);
    const seconds = seeker.wanted / session.fps;
    const minutes = Math.floor(seconds / 60);
    $("#time").textContent = `${minutes}:${(seconds % 60).toFixed(2).padStart(5, "0")}`;
  }

  updatePlay() {
    const button = $("[data-action=play]");
    button.replaceChildren(icon(this.app.player.isPlaying ? "pause" : "play"));
  }
}
