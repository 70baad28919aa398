/** Images and label maps of frames: bounded caches, requests that can be dropped, prefetching. */

import { fetchImage, fetchMasks, isAbort } from "./api.js";

/** Memory for decoded images and for label maps, in bytes. */
const IMAGE_BYTES = 192 * 2 ** 20;
const MASK_BYTES = 64 * 2 ** 20;

/** Requests at once while prefetching. */
const NUM_PREFETCH = 2;

/** A cache that evicts the least recently used entries once their number exceeds a limit. */
class Cache {
  /**
   * @param {number} limit
   * @param {function(number): boolean} isPinned Pinned entries are not evicted.
   * @param {function(*): void} [release]
   */
  constructor(limit, isPinned, release = () => {}) {
    this.limit = Math.max(4, limit);
    this.isPinned = isPinned;
    this.release = release;
    this.entries = new Map();
  }

  get(frame) {
    const entry = this.entries.get(frame);
    if (entry !== undefined) {
      this.entries.delete(frame);
      this.entries.set(frame, entry);
    }
    return entry;
  }

  has(frame) {
    return this.entries.has(frame);
  }

  set(frame, entry) {
    this.entries.delete(frame);
    this.entries.set(frame, entry);
    for (const old of this.entries.keys()) {
      if (this.entries.size <= this.limit) return;
      if (old === frame || this.isPinned(old)) continue;
      this.release(this.entries.get(old));
      this.entries.delete(old);
    }
  }
}

/**
 * A frame's label map as the page has it.
 * @typedef {{labels: Uint8Array, revision: number, states: Object<string, string>}} Masks
 */

/** The frames of the clip. */
export class Frames {
  /**
   * @param {number} width
   * @param {number} height
   * @param {number} numFrames
   * @param {function(number): boolean} isPinned Whether a frame's entries must stay.
   */
  constructor(width, height, numFrames, isPinned) {
    this.numFrames = numFrames;
    const pixels = width * height;
    const release = (image) => image.close();
    this.images = new Cache(Math.floor(IMAGE_BYTES / (4 * pixels)), isPinned, release);
    this.masks = new Cache(Math.floor(MASK_BYTES / pixels), isPinned);
    this.isPinned = isPinned;
    /** @type {Map<number, {promise: Promise, controller: AbortController}>} */
    this.running = new Map();
    this.prefetchRound = 0;
  }

  /** Number of neighbours that prefetching fetches; it leaves room for the frames just seen. */
  get reach() {
    return Math.min(12, Math.floor(this.images.limit / 2));
  }

  /** @param {number} frame */
  isLoaded(frame) {
    return this.images.has(frame) && this.masks.has(frame);
  }

  /**
   * Load a frame's image and label map. Calls for the same frame share their requests.
   * @param {number} frame
   * @returns {Promise<void>} rejected with an AbortError if `cancelExcept` dropped the frame
   */
  load(frame) {
    if (this.isLoaded(frame)) {
      this.images.get(frame);
      this.masks.get(frame);
      return Promise.resolve();
    }
    if (!this.running.has(frame)) {
      const controller = new AbortController();
      const promise = this.fetchBoth(frame, controller.signal).finally(() => {
        if (this.running.get(frame)?.controller === controller) this.running.delete(frame);
      });
      this.running.set(frame, { promise, controller });
    }
    return this.running.get(frame).promise;
  }

  async fetchBoth(frame, signal) {
    const image = async () => {
      if (this.images.has(frame)) return;
      const bitmap = await fetchImage(frame, signal);
      if (this.images.has(frame)) bitmap.close();
      else this.images.set(frame, bitmap);
    };
    const masks = async () => {
      if (this.masks.has(frame)) return;
      const fresh = await fetchMasks(frame, signal);
      if (!this.masks.has(frame)) this.masks.set(frame, fresh);
    };
    await Promise.all([image(), masks()]);
  }

  /**
   * Drop the requests of all other frames.
   * @param {Set<number>} kept
   */
  cancelExcept(kept) {
    this.prefetchRound += 1;
    for (const [frame, { controller }] of this.running) {
      if (!kept.has(frame)) {
        this.running.delete(frame);
        controller.abort();
      }
    }
  }

  /**
   * Load frames in order, until the next call of `prefetch` or `cancelExcept`.
   * @param {number[]} list
   */
  prefetch(list) {
    this.prefetchRound += 1;
    const round = this.prefetchRound;
    const waiting = list.filter((frame) => frame >= 0 && frame < this.numFrames);
    const work = async () => {
      while (waiting.length && round === this.prefetchRound) {
        try {
          await this.load(waiting.shift());
        } catch (error) {
          // A prefetch is optional: the seek to this frame shows the error.
          if (!isAbort(error)) return;
        }
      }
    };
    for (let i = 0; i < NUM_PREFETCH; i++) work();
  }

  /**
   * Forget a label map that changed on the server.
   * @param {number} frame
   * @param {number} revision The server's revision.
   */
  forget(frame, revision) {
    const known = this.masks.entries.get(frame);
    if (known && !this.isPinned(frame) && known.revision < revision) {
      this.masks.entries.delete(frame);
    }
    if (!known && this.running.has(frame)) {
      // The request that runs may bring the older label map.
      const { controller } = this.running.get(frame);
      this.running.delete(frame);
      controller.abort();
    }
  }

  /** Forget all label maps except the pinned ones, for example after a lost connection. */
  forgetAll() {
    for (const frame of [...this.masks.entries.keys()]) this.forget(frame, Infinity);
  }
}
