/** Label maps: painting shapes into them, and rectangles of changes. Everything works in place. */

/**
 * A rectangle of whole pixels.
 * @typedef {{x: number, y: number, width: number, height: number}} Box
 */

/**
 * Return the smallest box that contains two boxes. Either may be null.
 * @param {Box|null} a
 * @param {Box|null} b
 * @returns {Box|null}
 */
export function union(a, b) {
  if (!a || !b) return a || b;
  const x = Math.min(a.x, b.x);
  const y = Math.min(a.y, b.y);
  const width = Math.max(a.x + a.width, b.x + b.width) - x;
  const height = Math.max(a.y + a.height, b.y + b.height) - y;
  return { x, y, width, height };
}

/**
 * Return the part of a box inside an image, or null if there is none.
 * @param {Box} box
 * @param {number} width
 * @param {number} height
 * @returns {Box|null}
 */
export function clip(box, width, height) {
  const x = Math.max(0, box.x);
  const y = Math.max(0, box.y);
  const right = Math.min(width, box.x + box.width);
  const bottom = Math.min(height, box.y + box.height);
  return right > x && bottom > y ? { x, y, width: right - x, height: bottom - y } : null;
}

/**
 * The rule by which painting changes pixels: an object's label replaces everything that is not
 * locked; erasing removes this object's pixels only.
 */
export class Paint {
  /**
   * @param {number} label The object.
   * @param {boolean} isErasing
   * @param {Uint8Array} locked 256 flags, by label.
   */
  constructor(label, isErasing, locked) {
    this.label = label;
    this.value = isErasing ? 0 : label;
    this.isAllowed = new Uint8Array(256);
    for (let old = 0; old < 256; old++) {
      this.isAllowed[old] = isErasing ? Number(old === label) : Number(!locked[old]);
    }
  }
}

/**
 * Paint every pixel whose centre is within a radius of a line segment.
 * @param {Uint8Array} labels (height, width)
 * @param {number} width
 * @param {number} height
 * @param {number[]} from x and y in pixels
 * @param {number[]} to
 * @param {number} radius in pixels
 * @param {Paint} paint
 * @returns {Box|null} the rectangle in which pixels may have changed
 */
export function paintSegment(labels, width, height, from, to, radius, paint) {
  const left = Math.floor(Math.min(from[0], to[0]) - radius);
  const top = Math.floor(Math.min(from[1], to[1]) - radius);
  const right = Math.ceil(Math.max(from[0], to[0]) + radius);
  const bottom = Math.ceil(Math.max(from[1], to[1]) + radius);
  const box = clip({ x: left, y: top, width: right - left, height: bottom - top }, width, height);
  if (!box) return null;
  const dx = to[0] - from[0];
  const dy = to[1] - from[1];
  const length = dx * dx + dy * dy;
  const limit = radius * radius;
  const { value, isAllowed } = paint;
  for (let y = box.y; y < box.y + box.height; y++) {
    const py = y + 0.5 - from[1];
    for (let x = box.x; x < box.x + box.width; x++) {
      const px = x + 0.5 - from[0];
      const t = length ? Math.min(1, Math.max(0, (px * dx + py * dy) / length)) : 0;
      const ex = px - t * dx;
      const ey = py - t * dy;
      if (ex * ex + ey * ey > limit) continue;
      const index = y * width + x;
      if (isAllowed[labels[index]]) labels[index] = value;
    }
  }
  return box;
}

/**
 * Rasterize a polygon with the nonzero rule: a pixel is inside if its centre is.
 * @param {number[][]} points x and y in pixels
 * @param {number} width of the image
 * @param {number} height of the image
 * @returns {(Box & {mask: Uint8Array})|null} null for an empty polygon
 */
export function fillPolygon(points, width, height) {
  const xs = points.map((point) => point[0]);
  const ys = points.map((point) => point[1]);
  const left = Math.floor(Math.min(...xs));
  const top = Math.floor(Math.min(...ys));
  const size = { width: Math.ceil(Math.max(...xs)) - left, height: Math.ceil(Math.max(...ys)) - top };
  const box = clip({ x: left, y: top, ...size }, width, height);
  if (!box) return null;
  const mask = new Uint8Array(box.width * box.height);
  for (let row = 0; row < box.height; row++) {
    let winding = 0;
    let start = 0;
    for (const [x, direction] of crossings(points, box.y + row + 0.5)) {
      if (winding === 0) start = x;
      winding += direction;
      if (winding === 0) {
        const first = Math.max(0, Math.ceil(start - 0.5) - box.x);
        const last = Math.min(box.width, Math.ceil(x - 0.5) - box.x);
        if (last > first) mask.fill(1, row * box.width + first, row * box.width + last);
      }
    }
  }
  return { ...box, mask };
}

/** Return where a polygon's edges cross a horizontal line: sorted [x, direction]. */
function crossings(points, y) {
  const found = [];
  for (let i = 0; i < points.length; i++) {
    const [x0, y0] = points[i];
    const [x1, y1] = points[(i + 1) % points.length];
    if (y0 <= y === y1 <= y) continue;
    found.push([x0 + ((y - y0) / (y1 - y0)) * (x1 - x0), y1 > y0 ? 1 : -1]);
  }
  return found.sort((a, b) => a[0] - b[0]);
}

/**
 * Paint the pixels of a mask.
 * @param {Uint8Array} labels (height, width)
 * @param {number} width
 * @param {Box & {mask: Uint8Array}} shape
 * @param {Paint} paint
 */
export function paintMask(labels, width, shape, paint) {
  const { value, isAllowed } = paint;
  for (let row = 0; row < shape.height; row++) {
    let index = (shape.y + row) * width + shape.x;
    for (let i = row * shape.width; i < (row + 1) * shape.width; i++, index++) {
      if (shape.mask[i] && isAllowed[labels[index]]) labels[index] = value;
    }
  }
}

/**
 * Return the bounding box of the pixels that differ between two label maps, inside a box.
 * @param {Uint8Array} a
 * @param {Uint8Array} b
 * @param {number} width
 * @param {Box} within
 * @returns {Box|null}
 */
export function changedBox(a, b, width, within) {
  let left = Infinity;
  let right = -1;
  let top = -1;
  let bottom = -1;
  for (let y = within.y; y < within.y + within.height; y++) {
    const start = y * width + within.x;
    const end = start + within.width;
    let first = start;
    while (first < end && a[first] === b[first]) first++;
    if (first === end) continue;
    let last = end - 1;
    while (a[last] === b[last]) last--;
    left = Math.min(left, first - y * width);
    right = Math.max(right, last - y * width);
    if (top < 0) top = y;
    bottom = y;
  }
  if (top < 0) return null;
  return { x: left, y: top, width: right - left + 1, height: bottom - top + 1 };
}

/**
 * Return the bounding box of an object's pixels.
 * @param {Uint8Array} labels
 * @param {number} width
 * @param {number} label
 * @returns {Box|null}
 */
export function objectBox(labels, width, label) {
  const first = labels.indexOf(label);
  if (first < 0) return null;
  const top = Math.floor(first / width);
  const bottom = Math.floor(labels.lastIndexOf(label) / width);
  let left = width;
  let right = -1;
  for (let y = top; y <= bottom; y++) {
    const row = labels.subarray(y * width, (y + 1) * width);
    const start = row.indexOf(label);
    if (start < 0) continue;
    left = Math.min(left, start);
    right = Math.max(right, row.lastIndexOf(label));
  }
  return { x: left, y: top, width: right - left + 1, height: bottom - top + 1 };
}

/**
 * Copy a rectangle out of a label map.
 * @param {Uint8Array} labels
 * @param {number} width
 * @param {Box} box
 * @returns {Uint8Array} (box.height, box.width)
 */
export function copyBox(labels, width, box) {
  const copy = new Uint8Array(box.width * box.height);
  for (let row = 0; row < box.height; row++) {
    const start = (box.y + row) * width + box.x;
    copy.set(labels.subarray(start, start + box.width), row * box.width);
  }
  return copy;
}
