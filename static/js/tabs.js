/** @file Which tab this is, so that the server can give the session to one tab at a time. */

const KEPT_AS = "cb2-assist-tab";

/**
 * A name of this tab that outlives a reload. A tab that is duplicated takes the storage with it, so
 * the name lies there only between two pages of the same tab.
 * @param {string} fresh the name of a new tab
 */
export function tabName(fresh) {
  let name = "";
  try {
    name = sessionStorage.getItem(KEPT_AS) ?? "";
    sessionStorage.removeItem(KEPT_AS);
    window.addEventListener("pageshow", () => sessionStorage.removeItem(KEPT_AS));
    window.addEventListener("pagehide", () => sessionStorage.setItem(KEPT_AS, name));
  } catch {
    // storage is forbidden here: a reload then asks whether to take over
  }
  name ||= fresh;
  return name;
}
