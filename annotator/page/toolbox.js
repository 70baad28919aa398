/** The tools: which one is active, its options, and the keys that every tool understands. */

import { $, element } from "./dom.js";
import { Brush } from "./tools/brush.js";
import { Hints } from "./tools/hints.js";
import { Polygon } from "./tools/polygon.js";
import { Refine } from "./tools/refine.js";
import { Scissors } from "./tools/scissors.js";
import { light } from "./tint.js";

/** Brush diameters, in pixels of the frame. */
const SMALLEST = 1;
const LARGEST = 300;

/** Names of the tools that share one size. */
const SIZE_OF = { brush: "brush", eraser: "brush", hints: "hints" };

/** The toolbox. Dispatches "change". */
export class Toolbox extends EventTarget {
  /** @param {Object} app */
  constructor(app) {
    super();
    this.app = app;
    this.tools = {
      brush: new Brush(app, false),
      eraser: new Brush(app, true),
      polygon: new Polygon(app),
      hints: new Hints(app),
      refine: new Refine(app),
      scissors: new Scissors(app),
    };
    this.sizes = { brush: 24, hints: 6 };
    this.name = "polygon";
    this.lastName = "polygon";
    /** Index into the active tool's modes; 1 is cutting out, or outside. */
    this.mode = 0;
  }

  /** Connect the buttons and the options. */
  connect() {
    for (const button of document.querySelectorAll("[data-tool]")) {
      button.addEventListener("click", (event) => this.choose(button.dataset.tool, event));
    }
    $("#size").addEventListener("input", (event) => this.setSize(fromSlider(event.target.value)));
    $("#accept-preview").addEventListener("click", (event) => this.accept(event));
    $("#drop-preview").addEventListener("click", () => this.drop());
    this.app.view.drawTools = (context) => this.draw(context);
    this.app.seeker.addEventListener("shown", () => this.active.frameChanged?.());
    this.app.session.addEventListener("current", () => this.dropPreviewOfOther());
    this.app.session.addEventListener("objects", () => this.update());
    this.update();
  }

  get active() {
    return this.tools[this.name];
  }

  /** Diameter of the brush, in pixels of the frame. */
  get size() {
    return this.sizes[SIZE_OF[this.name] || "brush"];
  }

  /** CSS colour of the current object, light enough for lines. */
  get colour() {
    const { session } = this.app;
    return light(session.object(session.current)?.colour || "#ffffff");
  }

  /**
   * Make a tool the active one. What the old one had not stored is dropped.
   * @param {string} name
   * @param {Event} [event] The key or click that chose it.
   */
  choose(name, event) {
    const old = this.active;
    if (name !== this.name) {
      if (old.deactivate) old.deactivate();
      else old.drop();
      if (this.name !== "refine") this.lastName = this.name;
      this.name = name;
      this.mode = 0;
    }
    this.update();
    this.active.activate?.(event);
  }

  /** Return to the tool before Refine. */
  chooseLast() {
    this.choose(this.lastName);
  }

  dropPreviewOfOther() {
    if (this.name === "refine") this.active.frameChanged();
    if (this.name === "hints") this.active.drop();
    this.update();
  }

  /** @param {number} size */
  setSize(size) {
    if (!this.active.hasSize) return;
    this.sizes[SIZE_OF[this.name]] = Math.max(SMALLEST, Math.min(LARGEST, Math.round(size)));
    this.update();
  }

  /** Make the brush larger (1) or smaller (-1) by one step. */
  resize(direction) {
    const step = Math.max(1, Math.round(this.size * 0.15));
    this.setSize(this.size + direction * step);
  }

  /** Switch between adding and cutting out, or inside and outside. */
  switchMode() {
    if (!this.active.modes) return;
    this.mode = 1 - this.mode;
    this.update();
  }

  /** @param {Event} event Its modifier keys choose how to accept. */
  accept(event) {
    this.active.accept?.(event);
    this.update();
  }

  /** Drop what the tool has not stored. Return whether there was something. */
  drop() {
    if (!this.active.isBusy) return false;
    this.active.drop();
    this.update();
    return true;
  }

  /** Remove the tool's last point or stroke. Return whether there was one. */
  back() {
    if (!this.active.back || !this.active.isBusy) return false;
    this.active.back();
    this.update();
    return true;
  }

  /** Show the active tool and its options. */
  update() {
    const { active } = this;
    for (const button of document.querySelectorAll("[data-tool]")) {
      button.setAttribute("aria-pressed", String(button.dataset.tool === this.name));
    }
    const isAsking = active.controller;
    $("#tool-help").textContent = isAsking ? "Computing the refinement…" : active.help;
    $("#size-option").hidden = !active.hasSize;
    $("#size").value = String(toSlider(this.size));
    $("#size-value").textContent = `${this.size} px`;
    $("#modes").hidden = !active.modes;
    $("#modes").replaceChildren(...(active.modes || []).map((name, i) => element("button", {
      type: "button",
      "aria-label": name,
      "aria-pressed": String(i === this.mode),
      title: `${name} (X switches)`,
      onclick: () => { if (this.mode !== i) this.switchMode(); },
    }, name)));
    $("#preview-buttons").hidden = !active.accept;
    $("#accept-preview").disabled = !active.hasPreview;
    $("#drop-preview").disabled = !active.isBusy;
    this.app.view.invalidateOverlay();
    this.dispatchEvent(new Event("change"));
  }

  /** Draw the active tool and the cursor. */
  draw(context) {
    const { view, pointer } = this.app;
    this.app.drawFlash(context);
    this.active.draw?.(context);
    if (!this.active.hasSize || !pointer.position || pointer.isPanning) return;
    const [x, y] = pointer.position;
    for (const [colour, width] of [["rgb(0 0 0 / 70%)", 3], [this.cursorColour(), 1.3]]) {
      context.beginPath();
      context.arc(x, y, Math.max(1.5, (this.size / 2) * view.scale), 0, 2 * Math.PI);
      context.lineWidth = width;
      context.strokeStyle = colour;
      context.stroke();
    }
  }

  cursorColour() {
    if (this.name === "hints") return this.mode === 1 ? "#ff6b5e" : "#5ee08a";
    return "#ffffff";
  }
}

/** The slider is logarithmic, because small sizes need the finest steps. */
function toSlider(size) {
  return Math.round((100 * Math.log(size / SMALLEST)) / Math.log(LARGEST / SMALLEST));
}

function fromSlider(value) {
  return SMALLEST * (LARGEST / SMALLEST) ** (value / 100);
}
