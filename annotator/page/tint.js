/** The coloured overlay of a label map. Pixels live in an ImageData; a canvas follows when needed. */

import { clip, union } from "./masks.js";

/** Extra pixels around a rectangle, so that scaling with interpolation sees its neighbours. */
const MARGIN = 2;

/** Pack a colour as a little-endian RGBA word. */
function pack(red, green, blue, alpha) {
  return ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

/**
 * Return red, green and blue of "#rrggbb".
 * @param {string} colour
 * @returns {number[]}
 */
export function rgb(colour) {
  return [1, 3, 5].map((start) => parseInt(colour.slice(start, start + 2), 16));
}

/**
 * Return a lighter version of a colour. The palette of DAVIS is too dark for a dark page.
 * @param {string} colour "#rrggbb"
 * @returns {string} "#rrggbb"
 */
export function bright(colour) {
  // The exponent lifts dark colours most, and keeps #400000, #800000 and #c00000 apart.
  const channels = rgb(colour).map((value) => Math.round(36 + 219 * (value / 255) ** 0.6));
  return `#${channels.map((value) => value.toString(16).padStart(2, "0")).join("")}`;
}

/**
 * Return a colour for lines: lighter still, so that they stand out from tinted pixels.
 * @param {string} colour "#rrggbb"
 * @returns {string} "#rrggbb"
 */
export function light(colour) {
  const channels = rgb(bright(colour)).map((value) => Math.round(value + (255 - value) * 0.35));
  return `#${channels.map((value) => value.toString(16).padStart(2, "0")).join("")}`;
}

/** Tints the objects of a label map and draws their contours. */
export class Tint {
  /**
   * @param {number} width
   * @param {number} height
   */
  constructor(width, height) {
    this.width = width;
    this.height = height;
    this.image = new ImageData(width, height);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.canvas = new OffscreenCanvas(width, height);
    this.context = this.canvas.getContext("2d");
    this.scratch = new OffscreenCanvas(64, 64);
    this.scratchContext = this.scratch.getContext("2d");
    this.fill = new Uint32Array(256);
    this.line = new Uint32Array(256);
    // A contour of one pixel would vanish where a large frame is scaled down.
    this.contour = Math.max(1, Math.round(Math.max(width, height) / 1000));
    /** @type {import("./masks.js").Box|null} part of the canvas that is behind the pixels */
    this.stale = null;
  }

  /**
   * Set the colours.
   * @param {Array<Object>} objects
   * @param {number} opacity 0 to 1
   * @param {number} faded Label of an object that is nearly hidden, or 0.
   */
  setColours(objects, opacity, faded) {
    this.fill.fill(0);
    this.line.fill(0);
    for (const { label, colour, is_visible: isVisible } of objects) {
      if (!isVisible || opacity === 0) continue;
      const share = label === faded ? 0.3 : 1;
      this.fill[label] = pack(...rgb(bright(colour)), Math.round(255 * opacity * share));
      this.line[label] = pack(...rgb(light(colour)), Math.round(255 * share));
    }
  }

  /**
   * Compute the whole overlay.
   * @param {Uint8Array} labels
   */
  update(labels) {
    this.pixels.fill(0);
    this.stale = { x: 0, y: 0, width: this.width, height: this.height };
    // Most pixels are background: rows without objects are skipped four pixels at a time.
    const words = new Uint32Array(labels.buffer, 0, labels.length >> 2);
    let first = words.length;
    let last = -1;
    for (let i = 0; i < words.length; i++) {
      if (words[i]) { first = i; break; }
    }
    for (let i = words.length - 1; i >= first; i--) {
      if (words[i]) { last = i; break; }
    }
    let top = Math.floor((first * 4) / this.width);
    let bottom = last < 0 ? top : Math.floor((last * 4 + 3) / this.width) + 1;
    for (let i = words.length * 4; i < labels.length; i++) {
      if (labels[i]) bottom = this.height;
    }
    top = Math.min(top, this.height - 1);
    this.compute(labels, { x: 0, y: top, width: this.width, height: bottom - top });
  }

  /**
   * Compute the overlay where labels changed.
   * @param {Uint8Array} labels
   * @param {import("./masks.js").Box} box
   * @returns {import("./masks.js").Box} the rectangle in which the overlay changed
   */
  updateBox(labels, box) {
    const grown = clip(expand(box, this.contour), this.width, this.height);
    this.compute(labels, grown);
    this.stale = union(this.stale, grown);
    return grown;
  }

  /** Compute the pixels of a rectangle. */
  compute(labels, box) {
    const { pixels, fill, line, contour, width, height } = this;
    const down = contour * width;
    for (let y = box.y; y < box.y + box.height; y++) {
      const hasAbove = y >= contour;
      const hasBelow = y < height - contour;
      let index = y * width + box.x;
      for (let x = box.x; x < box.x + box.width; x++, index++) {
        const label = labels[index];
        if (label === 0) {
          pixels[index] = 0;
          continue;
        }
        const isInside =
          (x < contour || labels[index - contour] === label) &&
          (x >= width - contour || labels[index + contour] === label) &&
          (!hasAbove || labels[index - down] === label) &&
          (!hasBelow || labels[index + down] === label);
        pixels[index] = isInside ? fill[label] : line[label];
      }
    }
  }

  /**
   * Draw the overlay at the origin of a context whose unit is one pixel of the frame.
   * @param {CanvasRenderingContext2D} context
   * @param {import("./masks.js").Box|null} box Draw at least this part; null draws everything.
   */
  draw(context, box) {
    if (box && this.stale) {
      // Reading a canvas right after writing to it copies all of it. A small part goes through a
      // small canvas instead, and the large one stays behind until everything is drawn.
      const part = clip(expand(box, MARGIN), this.width, this.height);
      if (!part) return;
      if (this.scratch.width < part.width || this.scratch.height < part.height) {
        this.scratch.width = Math.max(this.scratch.width, part.width + 64);
        this.scratch.height = Math.max(this.scratch.height, part.height + 64);
      }
      const { x, y, width, height } = part;
      this.scratchContext.putImageData(this.image, -x, -y, x, y, width, height);
      context.drawImage(this.scratch, 0, 0, width, height, x, y, width, height);
      return;
    }
    if (this.stale) {
      const { x, y, width, height } = this.stale;
      this.context.putImageData(this.image, 0, 0, x, y, width, height);
      this.stale = null;
    }
    context.drawImage(this.canvas, 0, 0);
  }
}

/**
 * Return a box with a margin on each side.
 * @param {import("./masks.js").Box} box
 * @param {number} margin
 * @returns {import("./masks.js").Box}
 */
export function expand(box, margin) {
  const { x, y, width, height } = box;
  return { x: x - margin, y: y - margin, width: width + 2 * margin, height: height + 2 * margin };
}
