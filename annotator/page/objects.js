/** The list of objects: choose, add, rename, colour, show, lock, remove. */

import { postJson } from "./api.js";
import { $, batched, element, iconButton } from "./dom.js";
import { bright } from "./tint.js";

const STATE_TITLES = {
  drawn: "A person drew this mask. Propagation does not change it.",
  accepted: "A person accepted this propagated mask. Propagation does not change it.",
  propagated: "Propagation made this mask.",
  empty: "A person marked the object as absent from this frame.",
  unknown: "This object has no mask on this frame yet.",
};

/** The panel of objects. */
export class ObjectsPanel {
  /** @param {Object} app */
  constructor(app) {
    this.app = app;
    this.list = $("#objects");
    const update = batched(() => this.update());
    for (const part of ["objects", "states"]) app.session.addEventListener(part, update);
    app.seeker.addEventListener("shown", update);
  }

  /** Choose the object at a position in the list, from 0. */
  chooseIndex(index) {
    const object = this.app.session.objects[index];
    if (object) this.app.session.choose(object.label);
  }

  /** Add an object and choose it. */
  async add() {
    const { session } = this.app;
    const answer = await this.attempt(postJson("/api/objects"));
    if (!answer) return;
    session.setObjects(answer.objects);
    session.choose(answer.object.label);
  }

  /** Change properties of an object. */
  async change(label, properties) {
    const answer = await this.attempt(postJson(`/api/objects/${label}`, properties));
    if (answer) this.app.session.setObjects(answer.objects);
    else this.update();
  }

  async remove(object) {
    const { queue, session, frames, seeker, edits, status } = this.app;
    await queue.idle();
    const answer = await this.attempt(postJson(`/api/objects/${object.label}/remove`));
    if (!answer) return;
    session.setObjects(answer.objects);
    session.setHistory(answer.history);
    frames.forgetAll();
    await edits.attempt(edits.refresh(seeker.shown));
    status.say(`${object.name} was removed from all frames. Undo (Ctrl+Z) brings it back.`, "info");
  }

  /** @returns {Promise<Object|null>} null after a failure, which is shown */
  attempt(promise) {
    return this.app.edits.attempt(promise);
  }

  update() {
    if (this.list.contains(document.activeElement) && document.activeElement.tagName === "INPUT") return;
    const { session } = this.app;
    this.list.replaceChildren(...session.objects.map((object, i) => this.row(object, i)));
    $("#objects-empty").hidden = session.objects.length > 0;
    if (this.shownCurrent !== session.current) {
      this.shownCurrent = session.current;
      this.list.querySelector(".current")?.scrollIntoView({ block: "nearest" });
    }
    this.updateOperations();
  }

  /** Show on the buttons which states the current object's mask has and can get. */
  updateOperations() {
    const { session, seeker } = this.app;
    const frame = Math.max(0, seeker.shown);
    const state = session.state(frame, session.current);
    const accept = $("[data-action=accept]");
    accept.setAttribute("aria-pressed", String(state === "accepted"));
    accept.disabled = state !== "accepted" && state !== "propagated";
    $("[data-action=empty]").setAttribute("aria-pressed", String(state === "empty"));
    $("[data-action=accept-all]").disabled =
      !session.objects.some(({ label }) => session.state(frame, label) === "propagated");
  }

  row(object, index) {
    const { session, seeker } = this.app;
    const { label, name, colour, is_visible: isVisible, is_locked: isLocked } = object;
    const state = session.state(Math.max(0, seeker.shown), label);
    const isCurrent = label === session.current;
    const key = index < 9 ? ` (key ${index + 1})` : "";
    const swatch = element("input", {
      type: "color",
      class: "swatch",
      value: colour,
      "aria-label": `Colour of ${name}`,
      title: `Change the colour of ${name}`,
      onchange: (event) => {
        event.target.blur();
        this.change(label, { colour: event.target.value });
      },
      onclick: (event) => event.stopPropagation(),
    });
    const title = element("button", {
      type: "button",
      class: "object-name",
      "aria-label": `Choose ${name}`,
      "aria-pressed": String(isCurrent),
      title: `Choose ${name}${key}. Double click to rename.`,
      onclick: () => session.choose(label),
      ondblclick: () => this.rename(object),
    }, element("span", { class: "digit" }, index < 9 ? String(index + 1) : ""),
    element("span", { class: "name" }, name));
    const chip = element("span", { class: `chip ${state}`, title: STATE_TITLES[state] }, state);
    const button = (iconName, text, run) => {
      const made = iconButton(iconName, text, text, (event) => {
        event.stopPropagation();
        run();
      });
      made.classList.add("small");
      return made;
    };
    const eye = button(isVisible ? "eye" : "eye_off", `${isVisible ? "Hide" : "Show"} ${name}`,
      () => this.change(label, { is_visible: !isVisible }));
    const lock = button(isLocked ? "lock" : "lock_open", `${isLocked ? "Unlock" : "Lock"} ${name}`,
      () => this.change(label, { is_locked: !isLocked }));
    eye.classList.toggle("on", !isVisible);
    lock.classList.toggle("on", isLocked);
    const row = element("li", { class: isCurrent ? "current" : null, onclick: () => session.choose(label) },
      swatch, title, chip, eye, lock, button("remove", `Remove ${name}`, () => this.remove(object)));
    row.dataset.label = String(label);
    row.style.setProperty("--colour", bright(colour));
    return row;
  }

  /** Replace an object's name by a field. */
  rename(object) {
    const row = this.list.querySelector(`[data-label="${object.label}"]`);
    if (!row) return;
    const field = element("input", { type: "text", class: "rename", "aria-label": "Name of the object", maxlength: 80 });
    field.value = object.name;
    let isDone = false;
    const finish = (isKept) => {
      if (isDone) return;
      isDone = true;
      const name = field.value.trim();
      field.remove();
      if (isKept && name && name !== object.name) this.change(object.label, { name });
      this.update();
    };
    field.addEventListener("blur", () => finish(true));
    field.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Enter") finish(true);
      if (event.key === "Escape") finish(false);
    });
    row.querySelector(".object-name").replaceWith(field);
    field.focus();
    field.select();
  }

  /** Rename the current object. */
  renameCurrent() {
    const { session } = this.app;
    const object = session.object(session.current);
    if (object) this.rename(object);
  }
}
