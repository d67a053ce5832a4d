"""What listens to a service: metrics, the log of requests, lines on stderr, spans; each flat in memory."""

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import pytest

from diffpolicy import InputError
from diffpolicy.edge.dispatch import RequestLog
from diffpolicy.edge.serving.events import (
    Answered,
    Arrived,
    Bound,
    Cancelled,
    Failed,
    FellBack,
    Refused,
    Retried,
    WorkerChanged,
)

pytest.importorskip("prometheus_client")

from diffpolicy.edge.serving.api.log_file import HEADER, OLD_HEADER
from diffpolicy.edge.serving.api.logs import EventLog
from diffpolicy.edge.serving.api.metrics import GONE, Metrics
from diffpolicy.edge.serving.api.recorder import RequestRecorder
from diffpolicy.edge.serving.api.spans import Spans
from diffpolicy.edge.serving.trial import Side
from serving_fakes import FakeService, Snapshot, client


def life(number, server="a", at=0.0, **more):
    """A request that arrives, waits a second, takes two and loses .1 between its worker and here."""
    asked = {"model": "sd3", "width": 512, "height": 512, "steps": 20, "images": 1, "client": ""} | more
    yield Arrived(number, at, **asked)
    yield Bound(number, at + 1, server, 1.0, 2.5, 0.0002, "least-finish")
    yield Answered(number, at + 3.1, server, 200, at + 1.05, 2.0, 3.1, 2.5)


def told(listener, events):
    for event in events:
        listener(event)
    if isinstance(listener, RequestRecorder):
        listener.flush()
    return listener


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(f"diffpolicy_{name}", labels)


def test_metrics_count_what_happened_and_tell_dead_time_apart_from_waiting():
    metrics = told(Metrics(Snapshot), [*life("r1"), *life("r2", at=2.1)])
    assert value(metrics, "requests_total", worker="a", outcome="ok") == 2
    assert value(metrics, "request_seconds_sum", worker="a") == pytest.approx(6.2)
    assert value(metrics, "wait_seconds_count") == 2
    # the second was bound when the first was answered: each lost a tenth of a second
    assert value(metrics, "dead_time_seconds_sum", worker="a") == pytest.approx(0.2)
    # one that waited at the worker for the one before it lost nothing by that
    told(metrics, [Bound("r3", 10.0, "a", 0, 2, 0, "x"), Bound("r4", 10.0, "a", 0, 2, 0, "x")])
    told(metrics, [Answered("r3", 12.0, "a", 200, 10, 2, 2, 2), Answered("r4", 14.0, "a", 200, 12, 2, 4, 2)])
    assert value(metrics, "dead_time_seconds_sum", worker="a") == pytest.approx(0.2)
    assert value(metrics, "predicted_minus_actual_seconds_bucket", worker="a", le="0.5") == 4.0
    # until it is bound it loses time too, and none while its pictures come from a worker that is free
    told(metrics, [Bound("r5", 20.3, "b", 0, 2, 0, "x", 1, 0.3), Answered("r5", 24, "b", 200, 20, 2, 4, 2, 22.4)])
    told(metrics, [Bound("r6", 22.5, "b", 0, 2, 0, "x", 1, 9.0), Answered("r6", 25, "b", 200, 23, 2, 4, 2)])
    assert value(metrics, "dead_time_seconds_sum", worker="b") == pytest.approx(0.4 + 0.6)
    told(metrics, [Retried("r5", 0, "a", "died"), FellBack(0, "late"), Failed("r5", 0, "a", 503, "x")])
    told(metrics, [Cancelled("r6", 0, None), Refused("r7", 0, 429, "queue_full")])
    assert value(metrics, "retries_total", worker="a") == 1
    assert value(metrics, "fallbacks_total", why="late") == 1
    assert value(metrics, "requests_total", worker="a", outcome="failed") == 1
    assert value(metrics, "requests_total", worker="", outcome="refused") == 1
    assert value(metrics, "worker_state", worker="a", state="ready") == 1
    assert value(metrics, "queue_depth") == 0
    sides = {"policy": Side(3, 2.5), "other": Side(0, None)}
    tried = Metrics(lambda: Snapshot(trial=sides, evidence=12.5, left=7)).text().decode()
    assert [line for line in tried.splitlines() if line.startswith("diffpolicy_trial")] == [
        'diffpolicy_trial_answers{side="policy"} 3.0',
        'diffpolicy_trial_answers{side="other"} 0.0',
        'diffpolicy_trial_slowdown{side="policy"} 2.5',
        "diffpolicy_trial_evidence 12.5",
        "diffpolicy_trial_answers_left 7.0",
    ]
    none = Metrics(lambda: Snapshot(trial=sides)).text().decode().splitlines()
    assert not [
        line for line in none if line.startswith(("diffpolicy_trial_evidence", "diffpolicy_trial_answers_left"))
    ]
    assert value(Metrics(Snapshot), "wait_seconds_count") == 0  # another service has its own
    assert b"diffpolicy_decision_seconds_bucket" in metrics.text()


def test_dead_time_is_that_of_the_worker_though_answers_overtake_each_other_on_the_way():
    metrics = told(Metrics(Snapshot), [Bound(f"r{k}", 0, "a", 0, 10, 0, "x") for k in range(1, 5)])
    answers = [Answered("r2", 11.2, "a", 200, 10, 1, 11.2, 1, 11.0), Answered("r1", 13, "a", 200, 0, 10, 13, 10, 10.0)]
    told(metrics, [*answers, Answered("r4", 13.1, "a", 200, 12.5, 0.5, 13.1, 1, 13.0)])
    assert value(metrics, "dead_time_seconds_count", worker="a") == 2
    told(metrics, [Retried("r3", 14, "a", "died"), Bound("r3", 14, "b", 0, 1, 0, "x", 2)])
    told(metrics, [Answered("r3", 16, "b", 200, 14, 1, 16, 1)])
    assert value(metrics, "dead_time_seconds_count", worker="a") == 3
    assert value(metrics, "dead_time_seconds_sum", worker="a") == pytest.approx(13 - 11 - 0.5)
    assert value(metrics, "dead_time_seconds_sum", worker="b") == pytest.approx(1)


def test_the_log_is_what_advise_reads(tmp_path):
    path = tmp_path / "requests.csv"
    recorder = told(RequestRecorder(path, now_s=0.0), [*life("r1"), *life("r2", "b", 5.0, model="a,b", steps=30)])
    told(recorder, list(life("r3", at=9.0))[:2])
    told(recorder, [Failed("r3", 10.0, "a", 503, "worker_died"), Cancelled("nobody", 11.0, "a")])
    log = RequestLog.read(path)
    assert log.servers == ("a", "b")
    assert log.models == ("sd3", "a,b")
    assert log.left_out == {"of another status": 1}
    assert log.delay_s == pytest.approx([3.1, 3.1], abs=1e-5)
    assert log.service_s == pytest.approx([2.05, 2.05], abs=1e-5)
    assert log.size == pytest.approx([0.512**2 * 20, 0.512**2 * 30])
    assert log.started


def test_a_request_that_tells_no_size_counts_as_the_mean_of_its_model(tmp_path):
    path = tmp_path / "requests.csv"
    recorder, untold = RequestRecorder(path), {"width": None, "height": None, "steps": None}
    told(recorder, [*life("r1", steps=20), *life("r2", steps=40), *life("r3", **untold)])
    told(recorder, life("r4", model="other", **untold))
    log = RequestLog.read(path)
    assert log.size == pytest.approx([0.512**2 * x for x in (20, 40, 30, 30)])
    assert len(set(log.kind)) == 4
    path.write_text(HEADER)
    told(RequestRecorder(path), life("r1", **untold))
    assert RequestLog.read(path).size.tolist() == [1.0]


def test_the_log_goes_on_after_a_restart_and_loses_only_a_line_that_was_cut(tmp_path, caplog):
    path = tmp_path / "requests.csv"
    for k in range(2):
        recorder = told(RequestRecorder(path), life(f"r{k}"))
        recorder.close()
        with path.open("a") as file:
            file.write("12.5,a,1")  # killed while it wrote
    assert path.read_text().count("arrival_s") == 1
    RequestRecorder(path).close()
    assert len(RequestLog.read(path)) == 2
    assert path.read_text().startswith(HEADER)
    path.write_text(OLD_HEADER)  # as versions before the column `request` wrote it
    told(RequestRecorder(path), life("r1"))
    assert path.read_text().splitlines()[1].endswith(",ok")
    assert RequestLog.read(path).request.tolist() == [0]
    assert not caplog.messages
    recorder = told(RequestRecorder(path), [*life("r2-0", request="r2"), *life("r2-1", request="r2")])
    assert [message.partition(" was begun without")[0] for message in caplog.messages] == [str(path)]
    recorder.close()


def test_a_log_that_is_something_else_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("arrival_s,server\n1,a\n")
    with pytest.raises(InputError, match=r"results\.csv is not a log of requests"):
        RequestRecorder(path)
    assert path.read_text() == "arrival_s,server\n1,a\n"
    with pytest.raises(InputError, match="does not exist"):
        RequestRecorder(tmp_path / "nowhere" / "log.csv")
    with pytest.raises(InputError, match="folder"):
        RequestRecorder(tmp_path)


def test_a_rotated_log_is_begun_anew_and_a_full_disk_is_said_once(tmp_path, caplog):
    path = tmp_path / "requests.csv"
    recorder = told(RequestRecorder(path), life("r1"))
    path.rename(tmp_path / "old.csv")
    recorder.reopen()
    told(recorder, life("r2"))
    assert len(RequestLog.read(path)) == len(RequestLog.read(tmp_path / "old.csv")) == 1
    recorder.close()
    told(recorder, [*life("r3"), *life("r4")])
    assert caplog.text.count("loses lines") == 1
    assert recorder.lost == 2


def test_a_slow_disk_keeps_nobody_waiting_and_what_it_cannot_take_is_counted(tmp_path, monkeypatch, caplog):
    """Its lines are what a fast one has, as far as they are kept."""
    disk, write, slow = threading.Event(), os.write, tmp_path / "slow.csv"
    fast = told(RequestRecorder(tmp_path / "fast.csv", now_s=0.0), [x for k in range(7) for x in life(f"r{k}")])
    fast.close()
    recorder = RequestRecorder(slow, now_s=0.0, most=4)
    recorder.offset_s = fast.offset_s
    metrics = Metrics(Snapshot, [recorder])
    monkeypatch.setattr(os, "write", lambda handle, line: (disk.wait(30), write(handle, line))[1])
    for k in range(7):
        for each in life(f"r{k}"):
            recorder(each)  # none of which waits
    slow.rename(tmp_path / "old.csv")
    recorder.reopen()
    assert recorder.lost == 3
    assert value(metrics, "lost_total", of="log") == 3
    recorder.flush(0.01)
    assert (tmp_path / "old.csv").read_text() == HEADER
    disk.set()
    recorder.flush()
    recorder(next(life("r8")))
    recorder.reopen()
    told(recorder, list(life("r8"))[2:])
    recorder.close()
    whole = (tmp_path / "fast.csv").read_text().splitlines()
    assert (tmp_path / "old.csv").read_text().splitlines() == whole[:5]
    assert len(RequestLog.read(slow)) == 1
    assert caplog.text.count("the log loses lines: its disk does not keep up") == 1
    assert caplog.text.count("the log is not opened again: its disk does not keep up") == 1
    assert "the log has lost 3 lines" in caplog.text


def test_it_is_said_that_lines_are_written_again_once_none_was_lost_for_a_while(tmp_path, monkeypatch, caplog):
    now, write, full = [100.0], os.write, [False]
    recorder = RequestRecorder(tmp_path / "log.csv", now_s=0.0)

    def may_be_full(handle, line):
        if full[0]:
            raise OSError(28, "No space left on device")
        return write(handle, line)

    monkeypatch.setattr("diffpolicy.edge.serving.api.recorder.time.monotonic", lambda: now[0])
    monkeypatch.setattr(os, "write", may_be_full)
    monkeypatch.setattr(recorder, "flush", lambda within_s=5.0: recorder._behind._aside.submit(bool).result(30))
    for at, taken in ((100.0, False), (130.0, True), (150.0, False), (209.0, True), (211.0, True), (212.0, False)):
        now[0], full[0] = at, not taken
        told(recorder, life(f"r{at}"))
    assert recorder.lost == 3
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "the log loses lines",
        "the log is written again, after 2 lost lines in all",
        "the log loses lines",
    ]
    monkeypatch.undo()
    recorder.close()


def test_a_disk_that_hangs_keeps_the_end_waiting_only_so_long(tmp_path, monkeypatch, caplog):
    disk, write = threading.Event(), os.write
    recorder = RequestRecorder(tmp_path / "log.csv")
    monkeypatch.setattr(os, "write", lambda handle, line: (disk.wait(30), write(handle, line))[1])
    for k in range(3):
        for each in life(f"r{k}"):
            recorder(each)
    recorder.close(within_s=0.05)
    assert recorder.lost == 3
    assert "the log has lost 3 lines" in caplog.text
    disk.set()


def test_a_log_that_cannot_be_opened_again_goes_on_where_it_was(tmp_path, caplog):
    path = tmp_path / "log.csv"
    recorder = told(RequestRecorder(path), life("r1"))
    path.rename(tmp_path / "old.csv")
    path.write_text("something else\n")
    recorder.reopen()
    told(recorder, life("r2"))
    recorder.close()
    assert len(RequestLog.read(tmp_path / "old.csv")) == 2
    assert path.read_text() == "something else\n"
    assert "is not a log of requests" in caplog.text
    assert "lines go on to where they went" in caplog.text
    assert recorder.lost == 0


@pytest.mark.parametrize("alone", [True, False])
def test_a_disk_that_takes_half_a_line_costs_that_line_alone(tmp_path, monkeypatch, alone):
    path = tmp_path / "requests.csv"
    recorder, write = told(RequestRecorder(path), life("r1")), os.write

    def half(handle, line):
        count = write(handle, line[: len(line) // 2])
        if not alone:
            with path.open("a") as other:  # a process that shares the file
                other.write("1")
        return count

    monkeypatch.setattr(os, "write", half)
    told(recorder, life("r2"))
    monkeypatch.undo()
    told(recorder, [*life("r3"), *life("r4")])
    assert recorder.lost == 1
    lines = path.read_text().splitlines()
    assert [line.count(",") for line in lines if ",ok,r" in line] == [10, 10, 10]
    if alone:
        assert len(RequestLog.read(path)) == 3
    else:  # it is for a person to take out, and is named
        with pytest.raises(InputError, match=r"line 3: \d values for 11 columns"):
            RequestLog.read(path)


def test_a_disk_that_takes_half_a_header_is_said_at_the_start(tmp_path, monkeypatch):
    path = tmp_path / "requests.csv"
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, line: write(handle, line[:5]))
    with pytest.raises(InputError, match="No space left"):
        RequestRecorder(path)
    monkeypatch.undo()
    assert len(RequestLog.read(told(RequestRecorder(path), life("r1")).path)) == 1


def test_a_stream_that_takes_no_more_costs_lines_and_never_an_answer(monkeypatch):
    closed = io.StringIO()
    closed.close()

    class Full(io.StringIO):
        def flush(self):
            raise OSError("No space left on device")

    for stream in (closed, Full()):
        log = told(EventLog("json", every=True, stream=stream), life("r1"))
        assert log.lost == 3
        log.handler().emit(logging.LogRecord("a", logging.ERROR, "a", 1, "said", None, None))
        assert log.lost == 4
    reading, writing = os.pipe()
    os.close(reading)
    broken = os.fdopen(writing, "w")
    assert told(EventLog("text", every=True, stream=broken), life("r1")).lost == 3
    with suppress(OSError):
        broken.close()
    monkeypatch.setattr(sys, "stderr", None)
    assert told(EventLog("text", every=True), life("r1")).lost == 3


SAYS_MUCH = """
import logging, sys
from diffpolicy.edge.serving.api.logs import EventLog, messages_to

log = EventLog("text", every=True)
with messages_to(log):
    for k in range(2000):
        log.write(f"{k:0100}")
    logging.getLogger("diffpolicy.serving").warning("one of the package")
    print("said", flush=True)
print("the end", file=sys.stderr)
"""


def test_a_reader_of_stderr_that_stands_still_keeps_nobody_waiting_and_gets_all_in_its_order():
    """A pipe holds 64 KiB of the 200 KiB."""
    process = subprocess.Popen([sys.executable, "-c", SAYS_MUCH], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process, ThreadPoolExecutor() as beside:
        try:
            said = beside.submit(process.stdout.readline)
            assert said.result(60).strip() == b"said"
            lines = process.stderr.read().decode().splitlines()
        finally:
            process.kill()
    assert lines[:2000] == [f"{k:0100}" for k in range(2000)]
    assert [line.split(" ", 1)[1] for line in lines[2000:]] == ["warning one of the package", "end"]


def test_lines_that_stderr_does_not_take_are_counted_and_keep_the_end_waiting_only_so_long(monkeypatch):
    reader, write, wrote = threading.Event(), os.write, []

    class Own(io.StringIO):
        def fileno(self):
            return 2

    def waits(handle, data):
        if handle != 2:
            return write(handle, data)
        reader.wait(30)
        wrote.append(data[:4])
        return len(wrote[-1])  # of a line a part alone

    monkeypatch.setattr(os, "write", waits)
    monkeypatch.setattr(sys, "stderr", Own())
    log = EventLog("text", every=True, most=2)
    log.begin()
    for k in range(5):
        log.write(f"line {k}")
    assert log.lost == 3
    behind = log._behind
    log.close(within_s=0.05)
    assert log.lost == 5
    log.write("the last")
    assert sys.stderr.getvalue() == "the last\n"
    reader.set()
    assert behind.flush(30) == 0
    log = EventLog("text", every=True)
    log.begin()
    wrote.clear()
    log.write("line 1")
    log.close()
    assert (wrote, log.lost) == ([b"line", b" 1\n"], 0)


def test_a_tracer_that_raises_costs_spans_and_never_an_answer(caplog):
    class Tracer:
        def start_span(self, name, attributes):
            raise RuntimeError("a collector is gone")

    spans = told(Spans(Tracer()), [*life("r1"), *life("r2")])
    assert spans.lost == 2
    assert caplog.text.count("spans are lost") == 1


def test_a_json_line_an_event_and_words_for_people_only_of_trouble():
    """Times are seconds before the line, since nobody else has the dispatcher's clock."""
    *begun, last = life("r1", at=7000.0)
    begun += [replace(last, freed_s=last.time_s - 0.25)]
    events = [*begun, WorkerChanged(0.0, "a", "open", "5 failures\x1b[31m"), FellBack(1.0, "late")]
    stream = io.StringIO()
    told(EventLog("json", every=True, stream=stream), events)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["Arrived", "Bound", "Answered", "WorkerChanged", "FellBack"]
    assert lines[1]["number"] == "r1"
    assert (lines[2]["start_ago_s"], lines[2]["freed_ago_s"]) == pytest.approx((2.05, 0.25))
    assert not any(isinstance(value, float) and value > 60 for line in lines for value in line.values())
    stream = io.StringIO()
    told(EventLog("text", every=False, stream=stream), events)
    assert len(stream.getvalue().splitlines()) == 2
    assert "\x1b" not in stream.getvalue()
    assert "server=a state=open" in stream.getvalue()


def test_a_span_a_request():
    class Span:
        def __init__(self, attributes):
            self.attributes, self.events, self.ended = dict(attributes), [], False

        def set_attribute(self, key, value):
            self.attributes[key] = value

        def add_event(self, name, attributes):
            self.events.append((name, attributes["server"]))

        def end(self):
            self.ended = True

    class Tracer:
        spans = ()

        def start_span(self, name, attributes):
            self.spans = (*self.spans, Span(attributes))
            return self.spans[-1]

    tracer = Tracer()
    told(Spans(tracer), life("r1"))
    (span,) = tracer.spans
    assert span.ended
    assert span.events == [("bound", "a")]
    assert span.attributes["http.response.status_code"] == 200


def test_metrics_are_put_in_words_in_a_thread_since_those_of_hundreds_of_workers_take_a_while():
    """Of a snapshot that is taken where the service is, whose parts change meanwhile."""
    pytest.importorskip("fastapi")
    from diffpolicy.edge.serving.api import make_app

    threads, here = {}, threading.get_ident()

    class Writes:
        loses = "log"

        def __call__(self, event):
            pass

        @property
        def lost(self):
            threads["words"] = threading.get_ident()
            return 7

    class Observed(FakeService):
        def snapshot(self):
            threads["snapshot"] = threading.get_ident()
            return super().snapshot()

    async def go():
        service, resolved = Observed(), threading.Event()
        service.listeners.append(Writes())
        loop, few = asyncio.get_running_loop(), ThreadPoolExecutor(1)
        loop.set_default_executor(few)
        few.submit(resolved.wait)  # as for a name that does not resolve: those who watch are to see metrics then, too
        try:
            async with client(make_app(service)) as to:
                return (await asyncio.wait_for(to.get("/metrics"), 20)).text
        finally:
            resolved.set()

    text = asyncio.run(go())
    assert 'diffpolicy_lost_total{of="log"} 7.0' in text
    assert 'diffpolicy_worker_state{state="ready",worker="a"} 1.0' in text
    assert threads["snapshot"] == here
    assert threads["words"] != here


def test_metrics_of_workers_that_are_gone_are_kept_for_a_while_and_not_for_ever():
    """Where each start of a worker has a name of its own, as in a cluster, there is no end of names."""
    metrics = Metrics(Snapshot)

    def serves(name):
        told(metrics, [WorkerChanged(0.0, name, "ready"), *life(f"r-{name}", name)])
        told(metrics, [Retried("r", 0.0, name, "died"), Failed("r", 0.0, name, 503, "x")])
        metrics(WorkerChanged(9.0, name, "removed"))

    serves("stays")
    for k in range(GONE):
        serves(f"w{k}")
        metrics(WorkerChanged(9.0, "stays", "ready"))  # it is back
    size = len(metrics.text().splitlines())
    for k in range(GONE, 3 * GONE):
        serves(f"w{k}")
    assert len(metrics.text().splitlines()) == size
    assert len(metrics._end_s) == len(metrics._outcomes) == GONE + 1
    assert value(metrics, "requests_total", worker="stays", outcome="ok") == 1
    assert value(metrics, "requests_total", worker="w0", outcome="ok") is None
    assert value(metrics, "dead_time_seconds_count", worker=f"w{3 * GONE - 1}") == 1


def test_what_never_ends_is_forgotten_in_time(tmp_path, monkeypatch):
    for module in ("metrics", "recorder", "spans"):
        monkeypatch.setattr(f"diffpolicy.edge.serving.api.{module}.REMEMBERED", 10)
    recorder, metrics = RequestRecorder(tmp_path / "log.csv"), Metrics(Snapshot)
    for k in range(100):
        told(metrics, list(life(f"r{k}"))[:2])
        told(recorder, list(life(f"r{k}"))[:2])
    assert len(recorder._asked) == len(metrics._bound) == 10
