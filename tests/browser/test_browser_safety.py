"""Other pages, other programs and hostile words, in a real browser."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from browser_harness import ServerProcess, Tab, toy_process
from page_fakes import BASE
from playwright.sync_api import Browser

from cb2_assist.labels.store import labels_url, open_store
from cb2_assist.server.browser import write_redirect

pytestmark = pytest.mark.browser

EVIL = """<img src=x onerror="window.top.broken=1">'"&amp;<script>window.top.broken=1</script>"""


def _token(server: ServerProcess) -> str:
    return server.url.partition("?token=")[2]


def test_the_redirect_file_leads_to_the_page_and_the_token_stays_behind(
    browser: Browser, server: ServerProcess, tmp_path: Path
) -> None:
    context = browser.new_context()
    page = context.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request))
    page.goto(write_redirect(tmp_path / "open", server.url).as_uri())
    page.wait_for_function("window.cb2?.page.view && cb2.page.api.isUp")
    assert page.url == server.url.partition("?")[0]
    assert page.evaluate("document.referrer") == ""
    for request in asked:
        secret = _token(server) in request.url
        assert not secret or request.url == server.url, "the one exchange"
        assert _token(server) not in request.all_headers().get("referer", "")
    assert page.evaluate("document.cookie") == "", "no script reads the cookie"
    (cookie,) = context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    page.go_back()
    assert _token(server) not in page.url, "going back does not show it either"
    again = context.new_page()
    again.goto(server.url.partition("?")[0])
    again.wait_for_function("window.cb2?.page.api.isUp")
    context.close()


def test_a_page_without_its_key_says_what_to_open(browser: Browser, server: ServerProcess) -> None:
    """As at another forwarded port of the same browser: the cookie goes there, the key does not."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(server.url)
    page.wait_for_function("window.cb2?.page.api.isUp")
    page.evaluate("localStorage.clear()")
    page.reload()
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert "Open the address that it printed when it started" in alert.inner_text()
    page.goto(server.url)
    page.wait_for_function("window.cb2?.page.api.isUp")
    assert not page.get_by_role("alert").is_visible()
    context.close()


def test_two_label_files_used_in_turn_at_one_port_keep_their_keys(
    browser: Browser, toy_data: Path, tmp_path: Path
) -> None:
    first = toy_process(toy_data, tmp_path).start()
    context = browser.new_context()
    tab = Tab(context.new_page())
    tab.go(first.url)
    # or it may be back before the tab below and hold the session, which that one waits for
    tab.page.close()
    first.stop()
    port = first.url.partition("?")[0].split(":")[2].strip("/")
    (tmp_path / "other").mkdir()
    second = toy_process(toy_data, tmp_path / "other")
    second.command = [*second.command, port]
    second.start()
    other = context.new_page()
    other.goto(second.url)
    other.wait_for_function("window.cb2?.page.api.isUp")
    other.close()
    second.stop()
    first.start()
    again = Tab(context.new_page())
    refused: list[str] = []
    again.page.on("response", lambda r: refused.append(r.url) if r.status == 403 else None)
    again.go(first.url.partition("?")[0])
    again.point_at()
    again.propose()
    assert refused == [], "nor do the viewer's own requests lack it"
    context.close()
    first.stop()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_a_link_of_ours_on_any_page_opens_where_it_leads(
    browser: Browser, server: ServerProcess, neighbour: Neighbour, name: str
) -> None:
    """Cross-site from the one name and same-site from the other."""
    ours = server.url.partition("?")[0]
    link = f"{ours}#at=160,160,160&segment={BASE}"
    context = browser.new_context()
    page = context.new_page()

    def click() -> None:
        page.goto(f"http://{name}:{neighbour.server_address[1]}/")
        page.evaluate(
            """(href) => document.body.append(Object.assign(document.createElement("a"),
              {href, textContent: "link", target: "_self"}))""",
            link,
        )
        page.get_by_text("link").click()

    click()
    page.get_by_text("this browser was not let in yet").wait_for()
    assert context.cookies() == []
    page.goto(server.url)
    page.wait_for_function("window.cb2?.page.api.isUp")
    click()
    page.wait_for_function("(s) => window.cb2?.page.view?.list?.segment === s", arg=str(BASE))
    assert page.url == ours
    assert page.evaluate("window.opener") is None
    context.close()


def test_a_place_behind_the_printed_address_is_gone_to(
    browser: Browser, server: ServerProcess
) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{server.url}#at=160,160,160&segment={BASE}")
    page.wait_for_function("(s) => window.cb2?.page.view?.list?.segment === s", arg=str(BASE))
    assert page.url == server.url.partition("?")[0]
    context.close()


class Neighbour(ThreadingHTTPServer):
    """Another program on this machine, with a page at a port of its own."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _NeighbourPage)
        self.cookies: list[str] = []


class _NeighbourPage(BaseHTTPRequestHandler):
    server: Neighbour

    def do_GET(self) -> None:
        self.server.cookies.append(self.headers.get("Cookie", ""))
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<title>neighbour</title>")

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def neighbour() -> Iterator[Neighbour]:
    made = Neighbour()
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join(10)


def test_a_page_at_another_port_can_do_nothing(
    browser: Browser, server: ServerProcess, neighbour: Neighbour, tmp_path: Path
) -> None:
    """It is same-site, so that the browser sends our cookie along with its requests."""
    ours = server.url.partition("?")[0]
    context = browser.new_context()
    tab = Tab(context.new_page())
    tab.go(server.url)
    viewer = tab.page.evaluate("new URL(cb2.page.viewer.frame.src).pathname").split("/")[2]
    other = context.new_page()
    answers: dict[str, int] = {}
    other.on("response", lambda r: answers.update({f"{r.request.method} {r.url}": r.status}))
    other.goto(f"http://127.0.0.1:{neighbour.server_address[1]}/")
    got = other.evaluate(
        """async ([ours, viewer]) => {
          const tried = {};
          const plain = {method: "POST", mode: "no-cors", credentials: "include",
            headers: {"Content-Type": "text/plain"}, body: "{}"};
          for (const path of ["state", "action", "credentials"]) {
            const answer = await fetch(`${ours}${path}/${viewer}`, plain);
            tried[path] = answer.type;
          }
          tried.socket = await new Promise((done) => {
            const socket = new WebSocket(ours.replace("http", "ws") + "ws", ["cb2-assist"]);
            socket.onopen = () => done("open");
            socket.onerror = () => done("refused");
          });
          tried.read = await fetch(`${ours}data/toy/seg/info`, {credentials: "include"})
            .then((r) => r.text(), () => "refused");
          tried.frame = await new Promise((done) => {
            const frame = document.createElement("iframe");
            frame.src = ours;
            frame.onload = () => {
              try { done(frame.contentDocument ? "open" : "refused"); } catch { done("refused"); }
            };
            document.body.append(frame);
          });
          return tried;
        }""",
        [ours, viewer],
    )
    assert (got["socket"], got["read"], got["frame"]) == ("refused", "refused", "refused")
    with other.expect_navigation():
        other.evaluate(
            """(action) => {
              const form = document.createElement("form");
              Object.assign(form, {method: "post", action, enctype: "text/plain"});
              document.body.append(form);
              setTimeout(() => form.submit());
            }""",
            f"{ours}state/{viewer}?by=form",
        )
    assert other.inner_text("body").startswith("403: ")
    posts = {url: status for url, status in answers.items() if url.startswith("POST")}
    assert len(posts) == 4
    assert set(posts.values()) == {403}

    # what that program does by itself with the cookie that the browser brought it
    stolen = next(c for c in neighbour.cookies if c.startswith("cb2-assist-"))
    host = ours.split("/")[2]
    forged = {"Host": host, "Origin": f"http://{host}", "Cookie": stolen}
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    for method, path, more in (("GET", "/ws", upgrade), ("POST", f"/state/{viewer}", {})):
        connection = http.client.HTTPConnection(host, timeout=60)
        connection.request(method, path, headers={**forged, **more})
        assert connection.getresponse().status == 403, path
        connection.close()
    for path in ("/", "/?token", "/?token=", "/?token=x"):
        connection = http.client.HTTPConnection(host, timeout=60)
        connection.request("GET", path, headers={"Host": host, "Cookie": stolen})
        answer = connection.getresponse()
        assert "key=" not in answer.getheader("Location", "") + answer.read().decode(), path
        assert answer.getheader("Set-Cookie") is None, path
        connection.close()
    context.close()
    assert tab.faults == []
    with open_store(labels_url(tmp_path / "labels.sqlite"), read_only=True) as store:
        assert list(store.events()) == []


def test_names_and_notes_are_text(browser: Browser, toy_data: Path, tmp_path: Path) -> None:
    """Dataset, version, licence, citation, species, user, model and reasons say it all at once."""
    server = toy_process(toy_data, tmp_path, EVIL).start()
    try:
        tab = Tab.open(browser, server.url)
        tab.point_at()
        tab.propose()
        tab.decide("f")
        shown = tab.page.locator("aside").inner_text()
        assert shown.count(EVIL) >= 6, "name, species, licence, model and each reason"
        assert EVIL in tab.page.locator("h1").get_attribute("title")
        for window in ("window", "cb2.page.viewer.window"):
            for tag in ("img:not([data-view] img)", "aside script, main > script"):
                found = f"{window}.document.querySelectorAll({tag!r}).length"
                assert tab.page.evaluate(found) == 0, (window, tag)
        # the client shows a marker's description; ours are text there too
        tab.page.evaluate(
            """(words) => {
              const viewer = cb2.page.viewer;
              viewer.showMarkers([{id: "evil", point: [48, 48, 48], properties: [0.5, 1, 0, 0],
                description: words}]);
              viewer.client.layerManager.getLayerByName("suggestions").name = words;
            }""",
            EVIL,
        )
        tab.wait_for_viewer()
        assert tab.page.evaluate("window.broken") is None
        assert tab.snapshot["user"] == EVIL
        tab.page.close()
        assert tab.faults == []
    finally:
        server.stop()


def test_no_inline_script_runs_in_page_or_viewer(listed: Tab) -> None:
    """Were something to let markup through, the policy would still stop it."""
    listed.page.evaluate(
        """() => {
          for (const inner of [window, cb2.page.viewer.window]) {
            const script = inner.document.createElement("script");
            script.textContent = "window.top.broken = 1";
            inner.document.body.append(script);
            const image = inner.document.createElement("img");
            image.setAttribute("onerror", "window.top.broken = 1");
            image.src = "data:,";
            inner.document.body.append(image);
          }
        }"""
    )
    listed.settle()
    assert listed.page.evaluate("window.broken") is None
