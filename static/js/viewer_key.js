/**
 * @file Runs in the viewer's iframe before its client: whatever the client changes on our server
 * carries the page's key. A plain script, since modules run after the client's.
 */

{
  const send = window.fetch;
  const { content } = document.querySelector("meta[name=cb2-server]");
  window.fetch = (resource, options) => {
    const { origin } = new URL(resource.url ?? resource, location.href);
    const method = options?.method ?? resource.method ?? "GET";
    if (origin !== location.origin || method === "GET" || method === "HEAD") {
      return send(resource, options);
    }
    const request = new Request(resource, options);
    request.headers.set("X-CB2-Assist-Key", localStorage.getItem(`cb2-assist-key-${content}`) ?? "");
    return send(request);
  };
}
