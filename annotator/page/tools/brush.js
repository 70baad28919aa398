/** Brush and eraser. */

/** Round brush that adds to the current object, or removes from it. */
export class Brush {
  /**
   * @param {Object} app
   * @param {boolean} isEraser
   */
  constructor(app, isEraser) {
    this.app = app;
    this.isEraser = isEraser;
    this.kind = isEraser ? "eraser" : "brush";
    this.help = isEraser
      ? "Drag to remove pixels of the current object. Right button: paint. Shift+click: straight line."
      : "Drag to paint the current object. Right button: erase. Shift+click: straight line.";
    this.hasSize = true;
    this.modes = null;
    this.stroke = null;
    this.last = null;
  }

  /** Whether Escape has something to drop. */
  get isBusy() {
    return this.stroke !== null;
  }

  get hasPreview() {
    return false;
  }

  get radius() {
    return this.app.toolbox.size / 2;
  }

  down(point, event) {
    const isErasing = this.isEraser !== (event.button === 2);
    this.stroke = this.app.edits.begin(isErasing ? "eraser" : "brush", isErasing);
    if (!this.stroke) return;
    const isLine = event.shiftKey && this.last && this.last.frame === this.stroke.frame;
    this.stroke.segment(isLine ? this.last.point : point, point, this.radius);
    this.last = { point, frame: this.stroke.frame };
    this.app.timeStroke(event);
  }

  move(points, event) {
    if (!this.isCurrent()) return;
    for (const point of points) {
      this.stroke.segment(this.last.point, point, this.radius);
      this.last.point = point;
    }
    this.app.timeStroke(event);
  }

  up() {
    if (this.isCurrent()) this.stroke.commit();
    this.stroke = null;
  }

  /** Return whether the stroke goes on: a seek or a conflict can end it. */
  isCurrent() {
    return this.stroke !== null && this.app.edits.stroke === this.stroke;
  }

  drop() {
    if (this.isCurrent()) this.stroke.cancel();
    this.stroke = null;
  }
}
