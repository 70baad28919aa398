/** Patches: the rectangle that a stroke changed, as it is sent to the server. */

import { copyBox } from "./masks.js";

/**
 * A changed rectangle. `data` has its new labels, `changed` has 1 where the stroke changed a pixel.
 * @typedef {import("./masks.js").Box & {frame: number, label: number, kind: string,
 *   data: Uint8Array, changed: Uint8Array}} Patch
 */

/**
 * Return the patch of a stroke.
 * @param {import("./stroke.js").Stroke} stroke
 * @param {import("./masks.js").Box} box
 * @param {number} width of the label maps
 * @returns {Patch}
 */
export function patchOf({ frame, label, kind, labels, before }, box, width) {
  const data = copyBox(labels, width, box);
  const changed = copyBox(before, width, box).map((old, i) => Number(old !== data[i]));
  return { frame, label, kind, ...box, data, changed };
}

/**
 * Put a patch's changed pixels on another label map, and take the patch's rectangle from there.
 * @param {Patch} patch
 * @param {Uint8Array} labels
 * @param {number} width
 */
export function redo(patch, labels, width) {
  patch.changed.forEach((isChanged, i) => {
    if (!isChanged) return;
    const index = (patch.y + Math.floor(i / patch.width)) * width + patch.x + (i % patch.width);
    labels[index] = patch.data[i];
  });
  patch.data = copyBox(labels, width, patch);
}

/**
 * Return whether a label map has a patch's pixels.
 * @param {Patch} patch
 * @param {Uint8Array} labels
 * @param {number} width
 * @returns {boolean}
 */
export function isSaved(patch, labels, width) {
  const there = copyBox(labels, width, patch);
  return patch.data.every((label, i) => label === there[i]);
}
