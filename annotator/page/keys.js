/** Keys: from a key press to an action, tooltips of the buttons, and the page of keys. */

import { $, element } from "./dom.js";

/** What the pointer does; the page of keys lists it after the keys. */
const POINTER = [
  ["1 to 9", "Choose an object"],
  ["Space+drag", "Move the picture; so does the middle button"],
  ["Shift+Enter", "Hints: add the preview to the object instead of replacing it"],
  ["Wheel", "Zoom at the pointer"],
  ["Right button", "Brush: erase. Hints: outside"],
  ["Alt+Enter", "Polygon and scissors: cut the shape out; so does Alt + the closing click"],
  ["Shift+click", "Brush: straight line"],
  ["Wheel", "Over the timeline: zoom into it; with Shift, move it"],
];

const SYMBOLS = { ArrowLeft: "←", ArrowRight: "→", Delete: "Del", Escape: "Esc" };

/**
 * Return the name of a pressed key with its modifiers, as in the table of actions.
 * @param {KeyboardEvent} event
 * @returns {string}
 */
export function keyName(event) {
  const { key } = event;
  const isSymbol = key.length === 1 && key.toLowerCase() === key.toUpperCase();
  // AltGr types symbols such as [ on many keyboards, and then reports Ctrl and Alt.
  const isTyped = event.getModifierState?.("AltGraph");
  const parts = [];
  if ((event.ctrlKey || event.metaKey) && !isTyped) parts.push("Ctrl");
  if (event.altKey && !isTyped) parts.push("Alt");
  if (event.shiftKey && !isSymbol) parts.push("Shift");
  parts.push(key.length === 1 ? key.toUpperCase() : key);
  return parts.join("+");
}

/** Write a key name for readers. */
function readable(name) {
  return name.split(/\+(?=.)/).map((part) => SYMBOLS[part] || part).join("+");
}

/** The keyboard. */
export class Keys {
  /**
   * @param {Object} app
   * @param {import("./actions.js").Action[]} actions
   */
  constructor(app, actions) {
    this.app = app;
    this.actions = actions;
    this.byKey = new Map();
    for (const action of actions) {
      for (const key of [...action.keys, ...action.aliases]) this.byKey.set(key, action);
    }
    this.help = $("#help");
    window.addEventListener("keydown", (event) => this.down(event));
    window.addEventListener("keyup", (event) => this.up(event));
    window.addEventListener("blur", () => app.pointer.setSpace(false));
    $("#help-close").addEventListener("click", () => this.help.close());
    this.connectButtons();
    this.fillHelp();
  }

  /** Give the buttons their names, tooltips and actions. */
  connectButtons() {
    for (const { id, name, keys, run } of this.actions) {
      for (const button of document.querySelectorAll(`[data-action="${id}"]`)) {
        const hint = keys.length ? ` (${keys.slice(0, 2).map(readable).join(" or ")})` : "";
        button.setAttribute("aria-label", name);
        button.title = (button.dataset.title || name) + hint;
        if (!button.dataset.tool) button.addEventListener("click", run);
      }
    }
    // A button that keeps the focus after a click would take the next Space or Enter.
    document.addEventListener("click", (event) => {
      if (event.detail > 0) event.target.closest("button")?.blur();
    });
  }

  down(event) {
    if (this.help.open || event.isComposing) {
      if (event.key === "?") this.help.close();
      return;
    }
    const target = event.target instanceof HTMLElement ? event.target : document.body;
    if (target.matches("input[type=text], input[type=number]")) return;
    const isFocused = target !== document.body;
    if (event.key === " ") {
      if (isFocused && target.matches("button, input")) return;
      event.preventDefault();
      this.app.pointer.setSpace(true);
      return;
    }
    if (event.key === "Alt") event.preventDefault();
    if (event.key === "Enter" && target.matches("button")) return;
    if (event.key.startsWith("Arrow") && target.matches("input[type=range]")) return;
    const name = keyName(event);
    if (/^[1-9]$/.test(name)) {
      this.app.objects.chooseIndex(Number(name) - 1);
      return;
    }
    const action = this.byKey.get(name);
    if (!action) return;
    event.preventDefault();
    if (!event.repeat || action.isRepeated) action.run(event);
  }

  up(event) {
    if (event.key === " ") this.app.pointer.setSpace(false);
  }

  /** Open or close the page of keys. */
  toggleHelp() {
    if (this.help.open) this.help.close();
    else this.help.showModal();
  }

  fillHelp() {
    const groups = new Map();
    for (const { group, name, keys } of this.actions) {
      if (!keys.length) continue;
      if (!groups.has(group)) groups.set(group, []);
      groups.get(group).push([keys.map(readable), name]);
    }
    groups.set("Pointer and digits", POINTER.map(([keys, name]) => [[keys], name]));
    $("#help-keys").replaceChildren(...[...groups].map(([title, rows]) => element("section", {},
      element("h3", {}, title),
      element("dl", {}, ...rows.flatMap(([keys, name]) => [
        element("dt", {}, ...keys.map((key) => element("kbd", {}, key))),
        element("dd", {}, name),
      ])))));
  }
}
