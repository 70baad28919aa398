/** Requests to the server. Every failure is an ApiError whose message is a sentence for the user. */

/** Time after which a request without an answer counts as a lost connection, in milliseconds. */
const TIMEOUT = 60000;

/**
 * Part of the addresses of images. The browser keeps images, and the same address can belong to
 * another clip tomorrow.
 */
const VERSION = Date.now();

/** A failed request. `status` is the HTTP status, or 0 if the server did not answer. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {number} status
   */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/**
 * Return whether an error only says that the page itself aborted the request.
 * @param {Error} error
 * @returns {boolean}
 */
export function isAbort(error) {
  return error.name === "AbortError";
}

/** @returns {Promise<Response>} the answer; throws ApiError for a refusal and for no answer. */
async function request(path, { signal, timeout = TIMEOUT, ...options } = {}) {
  const limits = [signal, timeout ? AbortSignal.timeout(timeout) : null].filter(Boolean);
  let response;
  try {
    response = await fetch(path, { ...options, signal: limits.length ? AbortSignal.any(limits) : null });
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new ApiError("The server does not answer.", 0);
  }
  if (response.ok) return response;
  let sentence = `The server answered with status ${response.status}.`;
  try {
    sentence = (await response.json()).error || sentence;
  } catch {
    // The body is not JSON (a proxy's page, for example); the status is all that is known.
  }
  throw new ApiError(sentence, response.status);
}

/** Read a body; a connection that breaks in the middle counts as no answer. */
async function body(reading) {
  try {
    return await reading;
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new ApiError("The connection broke while the answer came.", 0);
  }
}

/**
 * GET a JSON document.
 * @param {string} path
 * @param {AbortSignal} [signal]
 * @returns {Promise<Object>}
 */
export async function getJson(path, signal) {
  return body((await request(path, { signal })).json());
}

/**
 * POST a JSON document and return the JSON answer.
 * @param {string} path
 * @param {Object} [document]
 * @returns {Promise<Object>}
 */
export async function postJson(path, document = {}) {
  return body((await postRaw(path, document)).json());
}

/** POST a JSON document and return the response. */
async function postRaw(path, document, signal) {
  const headers = { "Content-Type": "application/json" };
  return request(path, { method: "POST", headers, body: JSON.stringify(document), signal });
}

/**
 * Compress bytes with gzip.
 * @param {Uint8Array} bytes
 * @returns {Promise<ArrayBuffer>}
 */
export async function gzip(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

/**
 * Fetch and decode a frame's image.
 * @param {number} frame
 * @param {AbortSignal} [signal]
 * @returns {Promise<ImageBitmap>}
 */
export async function fetchImage(frame, signal) {
  const blob = await body((await request(`/api/frames/${frame}/image?page=${VERSION}`, { signal })).blob());
  try {
    return await createImageBitmap(blob);
  } catch {
    throw new ApiError(`The image of frame ${frame} cannot be decoded.`, 500);
  }
}

/**
 * Fetch a frame's label map.
 * @param {number} frame
 * @param {AbortSignal} [signal]
 * @returns {Promise<{labels: Uint8Array, revision: number, states: Object<string, string>}>}
 */
export async function fetchMasks(frame, signal) {
  const response = await request(`/api/frames/${frame}/masks`, { signal, cache: "no-store" });
  return {
    labels: new Uint8Array(await body(response.arrayBuffer())),
    revision: Number(response.headers.get("X-Revision")),
    states: JSON.parse(response.headers.get("X-States") || "{}"),
  };
}

/**
 * Send the new labels of a rectangle.
 * @param {{frame: number, label: number, kind: string, x: number, y: number, width: number,
 *   height: number, data: Uint8Array}} patch
 * @param {number} revision The frame's revision that the patch was drawn on.
 * @returns {Promise<Object>} the frame reply
 */
export async function paint(patch, revision) {
  const { frame, label, kind, x, y, width, height } = patch;
  const query = new URLSearchParams({ label, revision, x, y, width, height, kind });
  const response = await request(`/api/frames/${frame}/paint?${query}`, {
    method: "POST",
    headers: { "Content-Type": "application/gzip" },
    body: await gzip(patch.data),
  });
  return body(response.json());
}

/**
 * Ask for a preview mask (watershed or GrabCut).
 * @param {string} path
 * @param {Object} document
 * @param {AbortSignal} [signal]
 * @returns {Promise<{x: number, y: number, width: number, height: number, mask: Uint8Array}>}
 *   `mask` has 1 inside; a width of 0 means an empty mask.
 */
export async function fetchPreview(path, document, signal) {
  const response = await postRaw(path, document, signal);
  const [x, y, width, height] = response.headers.get("X-Box").split(",").map(Number);
  return { x, y, width, height, mask: new Uint8Array(await body(response.arrayBuffer())) };
}

/**
 * Upload a mask file for a frame.
 * @param {number} frame
 * @param {File} file
 * @returns {Promise<Object>} the frame reply
 */
export async function importMask(frame, file) {
  const headers = { "Content-Type": file.type || "application/octet-stream" };
  const options = { method: "POST", headers, body: file };
  return body((await request(`/api/import?frame=${frame}`, options)).json());
}

/**
 * Download an export.
 * @param {string} what Comma-separated: masks, overlay, coco.
 * @param {function(number): void} onProgress Called with the number of bytes so far.
 * @returns {Promise<{blob: Blob, name: string}>}
 */
export async function fetchExport(what, onProgress) {
  const response = await request(`/api/export?what=${what}`, { timeout: 0 });
  const disposition = response.headers.get("Content-Disposition") || "";
  const encoded = /filename\*=UTF-8''([^;]+)/i.exec(disposition);
  const plain = /filename="?([^";]+)"?/i.exec(disposition);
  let total = 0;
  const meter = new TransformStream({
    transform(chunk, controller) {
      total += chunk.length;
      onProgress(total);
      controller.enqueue(chunk);
    },
  });
  const blob = await body(new Response(response.body.pipeThrough(meter)).blob());
  const name = encoded ? decodeURIComponent(encoded[1]) : plain ? plain[1] : "annotation.zip";
  return { blob, name };
}
