"""Progress: percent, speed, time left; not too often."""

from __future__ import annotations

from cb2_assist.datasets.meter import Meter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_percent_speed_and_time_left_follow_from_what_is_done():
    clock, lines = Clock(), []
    meter = Meter(lines.append, clock=clock)
    meter.plan(100)
    meter.plan(300)
    meter.stage("reading")
    clock.now += 10
    meter.add(100, 50e6)
    clock.now += 30
    meter.add(100, 50e6)
    assert lines == [
        "reading",
        "reading: 25%, 5 MB/s, about 30 s left",
        "reading: 50%, 2 MB/s, about 40 s left",
    ]


def test_lines_of_a_stage_keep_their_distance():
    clock, lines = Clock(), []
    meter = Meter(lines.append, every_s=2, clock=clock)
    meter.plan(100)
    meter.stage("a")
    for _ in range(100):
        clock.now += 0.1
        meter.add(1)
    meter.stage("b")
    assert len(lines) == 2 + 4


def test_more_work_than_planned_is_not_more_than_all():
    clock, lines = Clock(), []
    meter = Meter(lines.append, clock=clock)
    meter.plan(10)
    meter.stage("a")
    clock.now += 5
    meter.add(30)
    assert lines[-1] == "a: 100%, 0 MB/s, about 0 s left"
