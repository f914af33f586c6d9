"""Progress on a terminal and in a log file."""

from __future__ import annotations

import io

from cb2_assist.cli.progress import ProgressLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_one_percentage_at_a_time_and_ends_on_a_fresh_line():
    terminal = Terminal()
    with ProgressLine(terminal) as line:
        for text in ("writing EM", "writing EM: 1%", "writing EM: 2%", "3 meshes written", "x: 9%"):
            line(text)
    assert line.every_s == 1
    shown = terminal.getvalue()
    assert shown.split("\n") == [
        "cb2-assist: writing EM",
        "cb2-assist: writing EM: 1%\r\x1b[Kcb2-assist: writing EM: 2%"
        "\r\x1b[Kcb2-assist: 3 meshes written",
        "cb2-assist: x: 9%\r\x1b[K",
    ]


def test_a_log_file_gets_whole_lines_and_seldom():
    file = io.StringIO()
    with ProgressLine(file) as line:
        line("writing EM")
        line("writing EM: 1%")
    assert line.every_s == 10
    assert file.getvalue() == "cb2-assist: writing EM\ncb2-assist: writing EM: 1%\n"
