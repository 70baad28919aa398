/** One edit of a label map, from its first to its last pixel. Everything is local until `commit`. */

import { Paint, changedBox, paintMask, paintSegment, union } from "./masks.js";

/** One edit from its first to its last pixel; `commit` sends it, `cancel` takes it back. */
export class Stroke {
  /**
   * @param {import("./edits.js").Edits} edits
   * @param {string} kind brush, eraser, polygon, hints or refine
   * @param {boolean} isErasing
   */
  constructor(edits, kind, isErasing) {
    const { session, seeker, frames } = edits.app;
    this.edits = edits;
    this.kind = kind;
    this.frame = seeker.shown;
    this.label = session.current;
    this.labels = frames.masks.get(this.frame).labels;
    this.before = this.labels.slice();
    this.paint = new Paint(this.label, isErasing, edits.lockedLabels());
    this.box = null;
  }

  /**
   * Paint a round brush along a line.
   * @param {number[]} from
   * @param {number[]} to
   * @param {number} radius
   */
  segment(from, to, radius) {
    const { width, height } = this.edits.app.session;
    this.show(paintSegment(this.labels, width, height, from, to, radius, this.paint));
  }

  /** @param {import("./masks.js").Box & {mask: Uint8Array}} shape */
  mask(shape) {
    paintMask(this.labels, this.edits.app.session.width, shape, this.paint);
    this.show(shape);
  }

  /** Remove all pixels of the object, for a mask that replaces it. */
  erase() {
    for (let i = 0; i < this.labels.length; i++) {
      if (this.labels[i] === this.label) this.labels[i] = 0;
    }
    this.show(this.whole());
  }

  whole() {
    const { width, height } = this.edits.app.session;
    return { x: 0, y: 0, width, height };
  }

  /** Show a rectangle that changed. */
  show(box) {
    if (!box) return;
    this.box = union(this.box, box);
    this.edits.app.showLabels(box);
  }

  /** Send what changed. */
  commit() {
    const { width } = this.edits.app.session;
    const box = this.box && changedBox(this.before, this.labels, width, this.box);
    if (box) this.edits.save(this, box);
    this.edits.end(this.frame);
  }

  /** Take the stroke back. */
  cancel() {
    this.labels.set(this.before);
    this.edits.app.showLabels(this.box || { x: 0, y: 0, width: 1, height: 1 });
    this.edits.end(this.frame);
  }
}
