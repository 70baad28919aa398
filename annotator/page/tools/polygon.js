/** Polygon and lasso. */

import { fillPolygon } from "../masks.js";
import { drawPath, drawPoints, isNear } from "./drawing.js";

/** A drag of fewer CSS pixels is a click. */
const DRAG = 4;

/** Distance between the points of a freehand line, in CSS pixels. */
const SPACING = 3;

/** Clicks add points, a drag adds a freehand line; the closed shape is added or cut out. */
export class Polygon {
  /** @param {Object} app */
  constructor(app) {
    this.app = app;
    this.kind = "polygon";
    this.help = "Click to add points, or drag to draw freehand. Drag a point to move it. " +
      "Enter closes the shape.";
    this.hasSize = false;
    this.modes = ["Add", "Cut out"];
    this.clear();
  }

  clear() {
    this.points = [];
    this.hover = null;
    this.press = null;
  }

  get isBusy() {
    return this.points.length > 0;
  }

  get hasPreview() {
    return this.points.length > 2;
  }

  down(point, event) {
    if (event.button !== 0) return;
    const { view } = this.app;
    const grabbed = this.points.findIndex((other) => isNear(view, other, point));
    this.press = { point, grabbed, isDrag: false, start: this.points.length };
    if (grabbed < 0) this.points.push(point);
    view.invalidateOverlay();
  }

  move(points, event) {
    const { view } = this.app;
    this.hover = points[points.length - 1];
    view.invalidateOverlay();
    if (!this.press || !(event.buttons & 1)) return;
    if (!this.press.isDrag && isNear(view, this.press.point, this.hover, DRAG)) return;
    this.press.isDrag = true;
    if (this.press.grabbed >= 0) {
      this.points[this.press.grabbed] = this.hover;
      return;
    }
    for (const point of points) {
      if (!isNear(view, this.points[this.points.length - 1], point, SPACING)) this.points.push(point);
    }
  }

  up(point, event) {
    const { press } = this;
    this.press = null;
    if (!press) return;
    const isOnFirst = this.points.length > 2 && isNear(this.app.view, this.points[0], point);
    const isClick = press.grabbed === 0 && !press.isDrag;
    const isLasso = press.grabbed < 0 && press.isDrag && this.points.length > press.start + 4;
    if (isOnFirst && (isClick || isLasso)) this.accept(event);
  }

  doubleClick(event) {
    // After a double click on the first point, the second click has started a new shape.
    if (this.points.length < 3) this.drop();
    else this.accept(event);
  }

  /** Close the shape and paint it. */
  accept(event) {
    if (this.points.length < 3) return;
    const { session, edits, toolbox } = this.app;
    const shape = fillPolygon(this.points, session.width, session.height);
    const isCut = toolbox.mode === 1 || event.altKey;
    if (!shape || edits.apply("polygon", shape, isCut ? "cut" : "add")) this.clear();
    this.app.view.invalidateOverlay();
  }

  drop() {
    this.clear();
    this.app.view.invalidateOverlay();
  }

  /** Remove the last point. */
  back() {
    this.points.pop();
    this.app.view.invalidateOverlay();
  }

  draw(context) {
    const { view, toolbox } = this.app;
    const colour = toolbox.mode === 1 ? "#ff9a8a" : toolbox.colour;
    drawPath(context, view, this.points, { colour });
    if (this.points.length && this.hover && !this.press) {
      drawPath(context, view, [this.points[this.points.length - 1], this.hover], { colour, isDashed: true });
    }
    const isClosing = this.points.length > 2 && this.hover && isNear(view, this.points[0], this.hover);
    drawPoints(context, view, this.points, colour, isClosing ? 0 : -1);
  }
}
