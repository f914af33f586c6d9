/**
 * @file The key that proves to the server that a change comes from this page. Our cookie is sent to
 * every port of this host, the storage of an origin to none, so the key is kept there, for each
 * server that was ever at this address: two label files may use a port in turn.
 */

/** Where the viewer's frame finds it too (`viewer_key.js`). */
const NAME = `cb2-assist-key-${
  /** @type {HTMLMetaElement} */ (document.querySelector("meta[name=cb2-server]")).content
}`;

/** Take the key out of the address, where `forward.js` puts it; a place behind it stays. */
export function takeKey() {
  const [, key, place] = /^#key=([0-9a-f]*)&?(.*)$/.exec(location.hash) ?? [];
  if (key) localStorage.setItem(NAME, key);
  const rest = key === undefined ? location.hash : place && `#${place}`;
  history.replaceState(null, "", location.pathname + rest);
}

/** The key as the newest tab got it; empty before any did. */
export function pageKey() {
  return localStorage.getItem(NAME) ?? "";
}
