import io
import json
import resource
import struct
import sys

import pytest

from jhand.train import read_log
from jhand.train.logs import json_lines, progress_bar, tensorboard_events


def test_lines_are_there_at_once(tmp_path):
    with json_lines(tmp_path / "log") as report:
        report(1, {"loss": 0.5, "stage": "a"})
        assert read_log(tmp_path / "log") == [{"step": 1, "loss": 0.5, "stage": "a"}]
        report(2, {"loss": float("nan"), "rate": float("inf")})
    text = (tmp_path / "log").read_text()
    assert json.loads(text.splitlines()[1]) == {"step": 2, "loss": None, "rate": None}


def test_lines_after_the_step_a_run_goes_on_from_are_removed(tmp_path):
    with json_lines(tmp_path / "log") as report:
        for step in (1, 2, 2, 3, 4):
            report(step, {"loss": step})
    with (tmp_path / "log").open("a") as out:
        out.write('{"step": 5, "lo')  # cut off
    assert [line["step"] for line in read_log(tmp_path / "log")] == [1, 2, 2, 3, 4]
    with json_lines(tmp_path / "log", after=2) as report:
        report(3, {"loss": 33})
    assert [(line["step"], line["loss"]) for line in read_log(tmp_path / "log")] == [(1, 1), (2, 2), (2, 2), (3, 33)]


def test_a_full_disk_is_named_and_what_is_written_stays(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with json_lines(tmp_path / "log") as report:
        report(1, {"loss": 1})
        resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "log").stat().st_size + 10, hard))
        try:
            with pytest.raises(OSError, match=r"the log could not be written \(File too large\).*log'"):
                report(2, {"loss": 2})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_log(tmp_path / "log") == [{"step": 1, "loss": 1}]


def test_no_log_is_no_log(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_log(tmp_path / "log")


def test_tensorboard_needs_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"pip install 'jhand\[tensorboard\]'"), tensorboard_events(tmp_path):
        pass


def test_tensorboard_events(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    with tensorboard_events(tmp_path, after=4) as report:
        report(5, {"all/loss": 0.25, "stage": "first"})
    (file,) = tmp_path.iterdir()
    data, events = file.read_bytes(), []
    while data:  # records of length, its checksum, event, its checksum
        (length,) = struct.unpack("<Q", data[:8])
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    values = [(e.step, v.tag, v.simple_value) for e in events for v in e.summary.value]
    assert values == [(5, "all/loss", 0.25)]
    assert any(e.session_log.status and e.step == 5 for e in events)  # what came later is discarded


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "quiet"), [(io.StringIO, False), (Terminal, True), (Terminal, False)])
def test_progress_is_for_terminals(stream, quiet, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream())
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar(10, quiet=quiet) as report:
        report(4, {"stage": "first", "all/loss": 0.123456, "all/rms": 9.0})
    shown = sys.stderr.getvalue()
    if stream is Terminal and not quiet:
        assert "first all/loss 0.1235" in shown and "4/10" in shown and "rms" not in shown
    else:
        assert shown == ""
