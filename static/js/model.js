/** @file What the page shows, as pure functions of the server's snapshot and what is under way. */

/** @typedef {import("./types.js").Snapshot} Snapshot */
/** @typedef {import("./types.js").View} View */
/** @typedef {import("./types.js").Request} Request */
/** @typedef {import("./types.js").Suggestion} Suggestion */
/** @typedef {import("./types.js").JointSet} JointSet */

/**
 * The first open suggestion behind `after`, going round; null when none is left.
 * @param {string[]} ids
 * @param {Record<string, unknown>} closed
 * @param {string|null} after
 */
export function nextUndecided(ids, closed, after) {
  const start = after === null ? 0 : ids.indexOf(after) + 1;
  return [...ids.slice(start), ...ids.slice(0, start)].find((id) => !(id in closed)) ?? null;
}

/**
 * The joint set that a suggestion belongs to: the joins at one end, or those at none. Null: a cut.
 * @param {Snapshot} view
 * @param {string|null} id
 * @returns {JointSet|null}
 */
export function jointSetOf(view, id) {
  const sets = view.list?.joint_sets ?? [];
  return sets.find((set) => id !== null && set.members.includes(id)) ?? null;
}

/**
 * Open joins that are closed because a rival at their end was accepted, with that rival: as the
 * server derives it.
 * @param {Snapshot} view
 * @returns {Record<string, string>}
 */
export function impliedOf(view) {
  /** @type {Record<string, string>} */
  const closed = {};
  for (const { joint, members } of view.list?.joint_sets ?? []) {
    const won = members.find((id) => view.verdicts[id] === "accept");
    if (joint === null || won === undefined) continue;
    for (const id of members) {
      if (["skip", "flag"].includes(view.verdicts[id] ?? "skip")) closed[id] = won;
    }
  }
  return closed;
}

/**
 * The joins that "none of these" at a suggestion would reject.
 * @param {View} view
 * @param {string} id
 */
export function openAt(view, id) {
  const done = ["accept", "reject"];
  return (jointSetOf(view, id)?.members ?? []).filter(
    (i) => !done.includes(view.verdicts[i]) && !(i in view.implied),
  );
}

/**
 * The id `step` rows away from the selected one, kept within the list.
 * @param {View} view
 * @param {number} step
 */
export function neighbour(view, step) {
  const ids = idsOf(view);
  if (ids.length === 0) return null;
  const at = view.selected === null ? -1 : ids.indexOf(view.selected);
  return ids[Math.max(0, Math.min(ids.length - 1, at + step))];
}

/**
 * The snapshot as it will be once the server has answered everything under way.
 * @param {Snapshot} snapshot
 * @param {Iterable<Request>} underWay in the order of the keys
 * @returns {View}
 */
export function project(snapshot, underWay) {
  /** @type {View} */
  const view = {
    ...snapshot,
    verdicts: { ...snapshot.verdicts },
    reasons: { ...snapshot.reasons },
    flags: { ...snapshot.flags },
    implied: {},
    pending: new Set(),
  };
  view.implied = impliedOf(view);
  const ids = idsOf(view);
  for (const request of underWay) {
    const id = request.suggestion;
    if (request.type === "decide" && id !== undefined) view.reason_for = reasonForOf(request);
    if (request.type === "undo" || request.type === "redo") view.reason_for = null;
    if (request.type === "preview") {
      view.preview = view.selected !== null && Boolean(request.shown);
    } else if (id && ids.includes(id)) {
      const before = view.selected;
      if (request.type === "select") view.selected = id;
      if (request.type === "decide" && request.verdict === "flag") {
        // it stays selected, and an answer stays what it is
        view.flags[id] = String(request.note);
        if ((view.verdicts[id] ?? "skip") === "skip") view.verdicts[id] = "flag";
        view.pending.add(id);
      } else if (request.type === "decide" && request.verdict) {
        const isNone = request.verdict === "none";
        for (const i of isNone ? openAt(view, id) : [id]) {
          view.verdicts[i] = isNone ? "reject" : request.verdict;
          delete view.reasons[i];
          view.pending.add(i);
        }
        view.implied = impliedOf(view);
        const closed = { ...view.implied, ...view.verdicts };
        if (view.selected === id && id in view.verdicts) {
          view.selected = nextUndecided(ids, closed, id) ?? id;
        }
      }
      if (request.type === "reason") view.reasons[id] = String(request.reason);
      if (view.selected !== before) {
        view.preview = false;
        // the hash is of the other suggestion's views
        view.views_sha256 = null;
      }
    }
  }
  return view;
}

const NEEDS_REASON = ["reject", "unsure", "none"];

/**
 * What the next reason would be about once a verdict is recorded.
 * @param {Request} decide
 */
function reasonForOf({ suggestion, verdict, idempotency_key }) {
  if (!suggestion || !NEEDS_REASON.includes(verdict ?? "")) return null;
  return { suggestion, verdict_key: String(idempotency_key) };
}

/**
 * The verdict that a reason given now is about: the selected row's, if that is a reject or unsure,
 * else the last one that was given.
 * @param {View} view
 */
export function reasonTarget(view) {
  const id = view.selected;
  if (id === null || !NEEDS_REASON.includes(view.verdicts[id])) return view.reason_for;
  return view.reason_for?.suggestion === id ? view.reason_for : { suggestion: id };
}

/**
 * The edit that `y` would take a step further: the first that waits for the person, else the first
 * whose fate is not known. A cut whose sides are being computed is passed over.
 * @param {Snapshot} view
 */
export function nextEdit(view) {
  const waiting = view.edits?.waiting ?? [];
  const known = waiting.filter((edit) => !edit.computing);
  return known.find((edit) => edit.state === "staged") ?? known[0] ?? waiting[0] ?? null;
}

/** @param {Snapshot} view */
export function idsOf(view) {
  return (view.list?.suggestions ?? []).map((s) => s.id);
}

/**
 * @param {Snapshot} view
 * @returns {Suggestion|null}
 */
export function selectedOf(view) {
  return view.list?.suggestions.find((s) => s.id === view.selected) ?? null;
}

/** @param {number} share */
export function percent(share) {
  if (share > 0 && share < 0.005) return "<1 %";
  if (share < 1 && share >= 0.995) return ">99 %";
  return `${Math.round(share * 100)} %`;
}

/**
 * What stands for a suggestion's confidence.
 * @param {Suggestion} s
 */
export function confidenceOf(s) {
  if (s.score_hidden) return "score hidden";
  return s.ood.flag ? "not reliable here" : percent(s.confidence);
}

/** @param {number[]} interval */
export function percentRange([low, high]) {
  const [from, to] = [Math.round(low * 100), Math.round(high * 100)];
  return from === to ? percent((low + high) / 2) : `${from}–${to} %`;
}

/**
 * The end of an id, which is where ids of one dataset differ.
 * @param {string} id
 */
export function shortId(id) {
  return id.length > 8 ? `…${id.slice(-6)}` : id;
}

/**
 * A reason's name for a person.
 * @param {string} reason
 */
export function wordsOf(reason) {
  return reason.replaceAll("_", " ");
}

/** @param {Suggestion} suggestion */
export function describe(suggestion) {
  const segment = shortId(suggestion.segment);
  return suggestion.partner === null
    ? `cut of ${segment}`
    : `join of ${segment} with ${shortId(suggestion.partner)}`;
}
