/**
 * @file Runs in a document that only sends the browser on (`server/forward.py`): to the page, with
 * the key if there is one, and with the place that stood behind # in the address. A plain script,
 * since it asks for the element that it stands in.
 */

{
  const { key } = document.currentScript.dataset;
  const parts = [key && `key=${key}`, location.hash.slice(1)].filter(Boolean);
  // the question mark makes it another address than this document's, which is loaded then
  location.replace(`./${key ? "" : "?"}#${parts.join("&")}`);
}
