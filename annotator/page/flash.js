/** A short highlight around pixels that changed elsewhere than under the pointer. */

import { changedBox } from "./masks.js";
import { expand } from "./tint.js";

/** Time for which the highlight is visible, in milliseconds. */
const DURATION = 900;

/** Highlights changes. */
export class Flash {
  /** @param {import("./view.js").View} view */
  constructor(view) {
    this.view = view;
    this.box = null;
    this.start = 0;
  }

  /**
   * Highlight the difference of two label maps.
   * @param {Uint8Array} before
   * @param {Uint8Array} after
   * @param {number} width
   * @param {number} height
   */
  show(before, after, width, height) {
    const box = changedBox(before, after, width, { x: 0, y: 0, width, height });
    if (!box) return;
    this.box = expand(box, 3);
    this.start = performance.now();
    this.view.invalidateOverlay();
  }

  /** @param {CanvasRenderingContext2D} context in CSS pixels */
  draw(context) {
    if (!this.box) return;
    const age = (performance.now() - this.start) / DURATION;
    if (age >= 1) {
      this.box = null;
      return;
    }
    const { view, box } = this;
    const [x, y] = view.toScreen(box.x, box.y);
    context.globalAlpha = 1 - age;
    context.strokeStyle = "#ffd166";
    context.lineWidth = 2.5;
    context.strokeRect(x, y, box.width * view.scale, box.height * view.scale);
    context.globalAlpha = 1;
    // The next drawing is scheduled after this one has ended.
    setTimeout(() => view.invalidateOverlay(), 16);
  }
}
