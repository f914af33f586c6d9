/** @file What each key does: say so at once, ask the server, and leave the viewer for later. */

import { freshKey } from "./api.js";
import { describe, neighbour, nextEdit, openAt, reasonTarget, selectedOf, wordsOf } from "./model.js";

/** @typedef {import("./page.js").Page} Page */
/** @typedef {(page: Page, key: string, argument?: string) => void} Action */

const NOTHING_SELECTED = "Nothing is selected. Point at a segment and press p.";

/**
 * @param {"accept"|"reject"|"unsure"|"none"} verdict
 * @param {string} word
 * @param {(page: Page, id: string) => object} [more] further fields of the request
 * @returns {Action}
 */
function decide(verdict, word, more = () => ({})) {
  return (page, key) => {
    const chosen = page.view && selectedOf(page.view);
    if (!chosen) return page.say(NOTHING_SELECTED, "warn");
    // named here, at keydown: what was visible when the person decided
    page.send({
      type: "decide",
      suggestion: chosen.id,
      verdict,
      key,
      idempotency_key: freshKey(),
      ...page.activity.read(),
      ...more(page, chosen.id),
    });
    const waiting = page.api.isUp ? "" : " (kept until the connection is back)";
    page.say(`${word} ${describe(chosen)}${waiting} …`);
  };
}

const answerNone = decide("none", "None of these, at", (page, id) => ({
  members: page.view ? openAt(page.view, id) : [],
}));

/** @param {number} step @returns {Action} */
function move(step) {
  return (page) => {
    const id = page.view && neighbour(page.view, step);
    if (!id) return page.say(NOTHING_SELECTED, "warn");
    if (id === page.view?.selected) {
      return page.say(step > 0 ? "This is the last suggestion." : "This is the first suggestion.");
    }
    page.choose(id);
  };
}

/** @param {"undo"|"redo"} type @returns {Action} */
function turn(type) {
  return (page) => {
    // what it is about: on its way, another tab may decide something else
    const seen = page.view && { after: page.view.newest_event, ...page.api.turns() };
    page.send({ type, idempotency_key: freshKey(), seen });
    page.say(type === "undo" ? "Undoing …" : "Redoing …");
  };
}

/** @type {Record<string, Action>} */
export const ACTIONS = {
  propose(page) {
    const cursor = page.view && page.viewer.cursor(page.view.resolution_nm);
    if (!cursor) return page.say("Point at a segment in the viewer, then press p.", "warn");
    if (cursor.segment === "0") {
      return page.say("The cursor is on background. Point at a segment, then press p.", "warn");
    }
    page.send({ type: "propose", ...cursor });
    page.say("Looking for errors at the cursor …");
  },
  accept: decide("accept", "Accepting"),
  reject: decide("reject", "Rejecting"),
  unsure: decide("unsure", "Unsure about"),
  none(page, key) {
    const chosen = page.view && selectedOf(page.view);
    if (!chosen) return page.say(NOTHING_SELECTED, "warn");
    if (chosen.kind !== "join") {
      return page.say("0 answers joins, and a cut is selected. Select a join, or press d.", "warn");
    }
    if (openAt(page.view, chosen.id).length === 0) {
      return page.say("No join is open here: each has its answer, or a rival was accepted.", "warn");
    }
    answerNone(page, key);
  },
  next: move(1),
  previous: move(-1),
  reason(page, _key, reason = "") {
    const about = page.view && reasonTarget(page.view);
    if (!about) {
      return page.say(`A reason (${wordsOf(reason)}) needs a reject (d) or unsure (g) first.`, "warn");
    }
    page.send({ type: "reason", ...about, reason, idempotency_key: freshKey() });
    page.say(`Reason: ${wordsOf(reason)} …`);
  },
  layer(page, _key, name = "") {
    const shown = page.viewer.switchLayer(name);
    if (shown === null) return page.say("The viewer is not ready yet.", "warn");
    page.say(`Layer ${name} ${shown ? "on" : "off"}.`);
  },
  queue(page, key) {
    // named here, at keydown: pressed twice, q does not skip a site that was not seen
    page.send({
      type: "queue",
      suggestion: page.view?.queue?.site ?? null,
      key,
      idempotency_key: freshKey(),
      ...page.activity.read(),
    });
    page.say("Taking the next site of the queue …");
  },
  flag(page, key) {
    const chosen = page.view && selectedOf(page.view);
    if (!chosen) return page.say(NOTHING_SELECTED, "warn");
    // named here, at keydown: another row may be selected by the time the note is written
    page.note.enter(chosen.id, key);
    page.say(`Why is the ${describe(chosen)} set aside? Enter records it, Escape cancels.`);
  },
  undo: turn("undo"),
  redo: turn("redo"),
  preview(page) {
    if (!page.view || !selectedOf(page.view)) return page.say(NOTHING_SELECTED, "warn");
    const shown = !page.view.preview;
    page.send({ type: "preview", shown });
    page.say(shown ? "Preview on: as if the edit were made." : "Preview off.");
  },
  apply(page) {
    const edits = page.view?.edits;
    if (!edits) {
      return page.say(
        "Edits are not applied here: start with --apply stage, on a graph that can be edited.",
        "warn",
      );
    }
    const next = nextEdit(page.view);
    if (!next) return page.say("No edit waits. Accept a suggestion with f first.", "warn");
    // named here, at keydown: what was visible when the person said yes
    page.send({ type: "apply", edit: next.edit, number: next.number });
    page.say(`Applying: ${next.words} …`);
  },
  goto(page) {
    page.go.enter();
    page.say("Type or paste a place, then press Enter. Escape leaves the field.");
  },
  share_own(page) {
    page.share("own");
  },
  share_neuroglancer(page) {
    page.share("neuroglancer");
  },
  help(page) {
    page.help.hidden = !page.help.hidden;
    page.say(page.help.hidden ? "Help closed." : "Keys are listed on the left.");
  },
  harmless(page) {
    page.say("x does nothing here, so that a slip cannot clear the segments.");
  },
};
