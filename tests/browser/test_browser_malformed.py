"""A page that goes wrong hurts nobody else."""

from __future__ import annotations

import pytest
from browser_harness import ServerProcess, Tab

pytestmark = pytest.mark.browser


def test_nonsense_on_the_socket_gets_words_and_the_session_goes_on(
    listed: Tab, shared_server: ServerProcess
) -> None:
    answers = listed.page.evaluate(
        """() => new Promise((done) => {
          const socket = cb2.page.api.dial();
          const heard = [];
          socket.onmessage = ({data}) => {
            const message = JSON.parse(data);
            if (message.type === "ack") heard.push(message);
            if (heard.length === 4) { socket.close(); done(heard); }
          };
          socket.onopen = () => {
            socket.send("nonsense");
            socket.send(JSON.stringify({id: "1", type: "propose", at_nm: [1, 2, 3],
              segment: 9007199254740993}));
            socket.send(JSON.stringify({id: "2", type: "explode"}));
            socket.send("x".repeat(1e6));
          };
        })"""
    )
    assert [a["ok"] for a in answers] == [False] * 4
    assert "text in digits" in answers[1]["error"]
    chosen = listed.decide("f")
    assert listed.verdicts == {chosen: "accept"}
    assert "Traceback" not in shared_server.log_path.read_text()
