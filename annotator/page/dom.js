/** Small helpers for the document: look-up, creation of elements, icons. */

const SVG = "http://www.w3.org/2000/svg";

/** Paths of the icons, drawn as strokes in a 24x24 box. */
const ICONS = {
  brush: "M9 14 L19 4 a1.4 1.4 0 0 1 2 2 L11 16 M9 14 a3.5 3.5 0 0 0 -4 3 c0 2 -2 2 -2 3 c5 1.5 8 0 8 -4",
  eraser: "M8 20 L3.5 15.5 L14 5 L20.5 11.5 L12 20 Z M9 10 L15.5 16.5 M12 20 H21",
  polygon: "M5 18 L4 8 L12 4 L20 9 L17 19 Z M5 18 h.01 M4 8 h.01 M12 4 h.01 M20 9 h.01 M17 19 h.01",
  hints: "M4 8 h8 M8 4 v8 M13 17 h8 M19 5 L6 20",
  refine: "M12 3 v4 M12 17 v4 M3 12 h4 M17 12 h4 M12 8.5 a3.5 3.5 0 1 0 .01 0 M6 6 l1.5 1.5 M16.5 16.5 L18 18",
  scissors: "M6 4 a2.5 2.5 0 1 0 .01 0 M6 15 a2.5 2.5 0 1 0 .01 0 M8 8 L20 18 M8 16 L20 6",
  undo: "M9 6 L4 11 L9 16 M4 11 H14 a5 5 0 0 1 0 10 H11",
  redo: "M15 6 L20 11 L15 16 M20 11 H10 a5 5 0 0 0 0 10 H13",
  backwards: "M13 6 L7 12 L13 18 M20 6 L14 12 L20 18 M3.5 5 V19",
  forwards: "M11 6 L17 12 L11 18 M4 6 L10 12 L4 18 M20.5 5 V19",
  both: "M8 7 L3 12 L8 17 M16 7 L21 12 L16 17 M3 12 H21",
  gaps: "M3 6 h4 M17 6 h4 M3 18 h4 M17 18 h4 M3 12 h18 M9 9 L12 12 L9 15",
  stop: "M6 6 H18 V18 H6 Z",
  play: "M7 5 L19 12 L7 19 Z",
  pause: "M8 5 V19 M16 5 V19",
  previous: "M15 6 L9 12 L15 18",
  next: "M9 6 L15 12 L9 18",
  first: "M18 6 L12 12 L18 18 M7 6 V18",
  last: "M6 6 L12 12 L6 18 M17 6 V18",
  marked_previous: "M14 7 L9 12 L14 17 M20 12 a2 2 0 1 0 .01 0 M4 6 V18",
  marked_next: "M10 7 L15 12 L10 17 M4 12 a2 2 0 1 0 .01 0 M20 6 V18",
  add: "M12 5 V19 M5 12 H19",
  minus: "M5 12 H19",
  fit: "M4 9 V4 H9 M15 4 H20 V9 M20 15 V20 H15 M9 20 H4 V15",
  bright: "M12 4 a8 8 0 1 0 .01 0 M12 4 V20 M15 6 V18 M18 8 V16",
  eye: "M2.5 12 C6 5.5 18 5.5 21.5 12 C18 18.5 6 18.5 2.5 12 Z M12 9.5 a2.5 2.5 0 1 0 .01 0",
  eye_off: "M2.5 12 C6 5.5 18 5.5 21.5 12 C18 18.5 6 18.5 2.5 12 Z M4 20 L20 4",
  lock: "M6 11 H18 V20 H6 Z M8.5 11 V8 a3.5 3.5 0 0 1 7 0 V11",
  lock_open: "M6 11 H18 V20 H6 Z M8.5 11 V7 a3.5 3.5 0 0 1 6.5 -2",
  remove: "M4 7 H20 M9 7 V4 H15 V7 M6.5 7 L7.5 20 H16.5 L17.5 7 M10 11 V16 M14 11 V16",
  import: "M12 15 V4 M8 8 L12 4 L16 8 M4 15 V20 H20 V15",
  export: "M12 4 V15 M8 11 L12 15 L16 11 M4 15 V20 H20 V15",
  keys: "M3 7 H21 V18 H3 Z M7 11 h.01 M11 11 h.01 M15 11 h.01 M8 15 H16",
  refresh: "M19 8 A8 8 0 1 0 20 13 M20 4 V9 H15",
  follow: "M12 5 a7 7 0 1 0 .01 0 M12 2 V8 M12 16 V22 M2 12 H8 M16 12 H22",
  close: "M6 6 L18 18 M18 6 L6 18",
};

/**
 * Return the first element that matches a selector.
 * @param {string} selector
 * @returns {HTMLElement}
 */
export function $(selector) {
  const found = document.querySelector(selector);
  if (!found) throw new Error(`index.html has no element "${selector}".`);
  return found;
}

/**
 * Create an element. Attributes that start with "on" are listeners; null attributes are left out.
 * @param {string} tag
 * @param {Object<string, *>} [attributes]
 * @param {...(Node|string)} children
 * @returns {HTMLElement}
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children);
  return made;
}

/**
 * Create an icon.
 * @param {string} name A name of ICONS.
 * @returns {SVGElement}
 */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/**
 * Create a button with an icon, an accessible name and a tooltip.
 * @param {string} iconName
 * @param {string} label The accessible name.
 * @param {string} title The tooltip.
 * @param {function(MouseEvent): void} onclick
 * @returns {HTMLElement}
 */
export function iconButton(iconName, label, title, onclick) {
  return element("button", { type: "button", "aria-label": label, title, onclick }, icon(iconName));
}

/** Put the icons into the elements with a `data-icon` attribute. */
export function fillIcons() {
  for (const holder of document.querySelectorAll("[data-icon]")) {
    holder.prepend(icon(holder.getAttribute("data-icon")));
  }
}

/**
 * Return a function that calls another one in the next animation frame, once for several calls.
 * @param {function(): void} work
 * @returns {function(): void}
 */
export function batched(work) {
  let isScheduled = false;
  return () => {
    if (isScheduled) return;
    isScheduled = true;
    requestAnimationFrame(() => {
      isScheduled = false;
      work();
    });
  };
}
