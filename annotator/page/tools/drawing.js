/** What several tools draw over the frame: paths with points, and previews of masks. */

import { rgb } from "../tint.js";

/**
 * Draw a path in the frame's coordinates.
 * @param {CanvasRenderingContext2D} context in CSS pixels
 * @param {import("../view.js").View} view
 * @param {number[][]} points
 * @param {{colour: string, isClosed?: boolean, isDashed?: boolean, width?: number}} style
 */
export function drawPath(context, view, points, { colour, isClosed, isDashed, width = 1.5 }) {
  if (!points.length) return;
  context.beginPath();
  for (const [x, y] of points) context.lineTo(...view.toScreen(x, y));
  if (isClosed) context.closePath();
  context.lineJoin = "round";
  context.lineCap = "round";
  context.setLineDash([]);
  context.lineWidth = width + 2;
  context.strokeStyle = "rgb(0 0 0 / 55%)";
  context.stroke();
  if (isDashed) context.setLineDash([5, 4]);
  context.lineWidth = width;
  context.strokeStyle = colour;
  context.stroke();
  context.setLineDash([]);
}

/**
 * Draw points as dots.
 * @param {CanvasRenderingContext2D} context
 * @param {import("../view.js").View} view
 * @param {number[][]} points
 * @param {string} colour
 * @param {number} marked Index of a point to draw larger, or -1.
 */
export function drawPoints(context, view, points, colour, marked) {
  points.forEach(([x, y], i) => {
    const [sx, sy] = view.toScreen(x, y);
    context.beginPath();
    context.arc(sx, sy, i === marked ? 6.5 : 3.5, 0, 2 * Math.PI);
    context.fillStyle = i === marked ? "#ffffff" : colour;
    context.fill();
    context.lineWidth = 1;
    context.strokeStyle = "rgb(0 0 0 / 80%)";
    context.stroke();
  });
}

/**
 * Return whether two positions in the frame are close on the screen.
 * @param {import("../view.js").View} view
 * @param {number[]} a
 * @param {number[]} b
 * @param {number} [distance] in CSS pixels
 */
export function isNear(view, a, b, distance = 9) {
  return Math.hypot(a[0] - b[0], a[1] - b[1]) * view.scale <= distance;
}

/** A mask that is shown but not stored. */
export class Preview {
  /**
   * @param {import("../masks.js").Box & {mask: Uint8Array}} shape
   * @param {string} colour
   */
  constructor(shape, colour) {
    this.shape = shape;
    this.canvas = new OffscreenCanvas(shape.width, shape.height);
    const image = new ImageData(shape.width, shape.height);
    const [red, green, blue] = rgb(colour);
    const { width, height, mask } = shape;
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i++) {
        if (!mask[i]) continue;
        const isInside = x > 0 && x < width - 1 && y > 0 && y < height - 1 &&
          mask[i - 1] && mask[i + 1] && mask[i - width] && mask[i + width];
        image.data.set(isInside ? [red, green, blue, 130] : [255, 255, 255, 255], 4 * i);
      }
    }
    this.canvas.getContext("2d").putImageData(image, 0, 0);
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {import("../view.js").View} view
   */
  draw(context, view) {
    const { x, y, width, height } = this.shape;
    const [left, top] = view.toScreen(x, y);
    context.imageSmoothingEnabled = view.scale < 3;
    context.drawImage(this.canvas, left, top, width * view.scale, height * view.scale);
  }
}
