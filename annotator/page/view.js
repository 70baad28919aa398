/** The picture: frame and masks under a zoom and a shift, redrawn only where they changed. */

import { expand } from "./tint.js";
import { union } from "./masks.js";

const MAX_SCALE = 64;

/** From this scale on, pixels are shown as squares. */
const CRISP_SCALE = 3;

/** Largest brightness of the picture. */
const MAX_BRIGHTNESS = 8;

const BACKGROUND = "#101216";

/** The view. Positions on the screen are in CSS pixels from the canvas's top left corner. */
export class View extends EventTarget {
  /**
   * @param {HTMLCanvasElement} picture
   * @param {HTMLCanvasElement} overlay
   */
  constructor(picture, overlay) {
    super();
    this.picture = picture;
    this.overlay = overlay;
    this.context = picture.getContext("2d", { alpha: false });
    this.overlayContext = overlay.getContext("2d");
    this.image = null;
    /** How many times brighter than the frame the picture is. */
    this.brightness = 1;
    this.tint = null;
    this.scale = 1;
    this.x = 0;
    this.y = 0;
    this.isFitted = true;
    /** @type {function(CanvasRenderingContext2D): void} draws tools, set by the toolbox */
    this.drawTools = () => {};
    this.dirty = null;
    this.isAllDirty = false;
    this.isOverlayDirty = false;
    this.isScheduled = false;
    this.painted = [];
    this.imageWidth = 1;
    this.imageHeight = 1;
    new ResizeObserver(() => this.resize()).observe(picture.parentElement);
  }

  /**
   * Set the size of the frames.
   * @param {number} width
   * @param {number} height
   */
  setSize(width, height) {
    this.imageWidth = width;
    this.imageHeight = height;
    this.resize();
  }

  resize() {
    const { clientWidth, clientHeight } = this.picture.parentElement;
    if (!clientWidth || !clientHeight) return;
    this.ratio = window.devicePixelRatio || 1;
    for (const canvas of [this.picture, this.overlay]) {
      canvas.width = Math.round(clientWidth * this.ratio);
      canvas.height = Math.round(clientHeight * this.ratio);
    }
    this.width = clientWidth;
    this.height = clientHeight;
    if (this.isFitted) this.fit();
    else this.moved();
    // A resized canvas is empty: without an immediate drawing it would flicker.
    this.render();
  }

  /** Zoom so that the whole frame is visible. */
  fit() {
    this.isFitted = true;
    this.scale = this.fitScale();
    this.x = (this.width - this.imageWidth * this.scale) / 2;
    this.y = (this.height - this.imageHeight * this.scale) / 2;
    this.moved();
  }

  fitScale() {
    return Math.min((this.width - 16) / this.imageWidth, (this.height - 16) / this.imageHeight);
  }

  /**
   * Zoom about a position on the screen, or about the centre.
   * @param {number} factor
   * @param {number} [x]
   * @param {number} [y]
   */
  zoom(factor, x = this.width / 2, y = this.height / 2) {
    const smallest = Math.min(1, this.fitScale()) / 2;
    const scale = Math.max(smallest, Math.min(MAX_SCALE, this.scale * factor));
    this.x = x - ((x - this.x) * scale) / this.scale;
    this.y = y - ((y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.isFitted = false;
    this.moved();
  }

  /** Move the picture by a distance on the screen. */
  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.isFitted = false;
    this.moved();
  }

  /** Show the picture twice as bright, or as it is after the largest brightness. */
  brighten() {
    this.brightness = this.brightness < MAX_BRIGHTNESS ? 2 * this.brightness : 1;
    this.invalidate(null);
  }

  /** Keep a part of the frame in sight and redraw. */
  moved() {
    const margin = 48;
    this.x = Math.min(this.width - margin, Math.max(margin - this.imageWidth * this.scale, this.x));
    this.y = Math.min(this.height - margin, Math.max(margin - this.imageHeight * this.scale, this.y));
    this.invalidate(null);
    this.invalidateOverlay();
    this.dispatchEvent(new Event("moved"));
  }

  /**
   * Convert a position on the screen to one in the frame, in pixels.
   * @returns {number[]}
   */
  toImage(x, y) {
    return [(x - this.x) / this.scale, (y - this.y) / this.scale];
  }

  /**
   * Convert a position in the frame to one on the screen.
   * @returns {number[]}
   */
  toScreen(x, y) {
    return [x * this.scale + this.x, y * this.scale + this.y];
  }

  /**
   * Redraw a rectangle of the frame in the next animation frame.
   * @param {import("./masks.js").Box|null} box null for everything
   */
  invalidate(box) {
    if (box) this.dirty = union(this.dirty, box);
    else this.isAllDirty = true;
    this.schedule();
  }

  /** Redraw what the tools show in the next animation frame. */
  invalidateOverlay() {
    this.isOverlayDirty = true;
    this.schedule();
  }

  /**
   * Call a function once, after the next drawing has been handed to the browser.
   * @param {function(number): void} callback Takes the time of performance.now().
   */
  afterPaint(callback) {
    this.painted.push(callback);
    this.schedule();
  }

  schedule() {
    if (this.isScheduled) return;
    this.isScheduled = true;
    requestAnimationFrame(() => {
      this.isScheduled = false;
      this.render();
      if (!this.painted.length) return;
      const callbacks = this.painted.splice(0);
      // Tasks that are posted now run after the browser painted this animation frame.
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => callbacks.forEach((callback) => callback(performance.now()));
      port2.postMessage(null);
    });
  }

  render() {
    if (this.isAllDirty) this.draw(null);
    else if (this.dirty) this.draw(this.dirty);
    this.isAllDirty = false;
    this.dirty = null;
    if (this.isOverlayDirty) {
      this.isOverlayDirty = false;
      const context = this.overlayContext;
      context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
      context.clearRect(0, 0, this.width, this.height);
      this.drawTools(context);
    }
  }

  /** Draw the picture, or the part of it around a box. */
  draw(box) {
    const { context, ratio } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.save();
    if (box) {
      const [x0, y0] = this.toScreen(box.x - 1, box.y - 1);
      const [x1, y1] = this.toScreen(box.x + box.width + 1, box.y + box.height + 1);
      const left = Math.floor(x0 * ratio);
      const top = Math.floor(y0 * ratio);
      context.beginPath();
      context.rect(left, top, Math.ceil(x1 * ratio) - left, Math.ceil(y1 * ratio) - top);
      context.clip();
    }
    context.fillStyle = BACKGROUND;
    context.fillRect(0, 0, this.picture.width, this.picture.height);
    if (this.image) {
      const scale = this.scale * ratio;
      context.setTransform(scale, 0, 0, scale, this.x * ratio, this.y * ratio);
      context.imageSmoothingEnabled = scale < CRISP_SCALE;
      context.drawImage(this.image, 0, 0);
      context.globalCompositeOperation = "lighter"; // adds colours
      for (let times = 1; times < this.brightness; times++) context.drawImage(this.image, 0, 0);
      context.globalCompositeOperation = "source-over";
      if (this.tint) this.tint.draw(context, box && expand(box, 1));
    }
    context.restore();
  }
}
