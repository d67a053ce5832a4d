"""What may stand after `--policy` and `--workers` of `serve`."""

import asyncio
import json
import os
import threading
from types import SimpleNamespace as Of

import numpy as np
import pytest

from diffpolicy import InputError
from diffpolicy.edge.dispatch import Held, Moment, OnArrival
from diffpolicy.edge.serving.decider import Decider
from diffpolicy.edge.serving.reach import is_loopback
from diffpolicy.edge.serving.rules import LEARNED, NAMES, make_policy
from diffpolicy.edge.serving.worker_spec import WorkerSpec
from diffpolicy.edge.serving.workers_source import WorkersSource


def moment(starts=(3.0, 0.0, 1.0)):
    """Two requests on three servers; the second request cannot run on the first server."""
    service = np.array([[1.0, 5.0, 1.0], [np.inf, 2.0, 9.0]])
    return Moment.of(service_s=service, wait_s=[2.0, 1.0], starts_s=list(starts))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in LEARNED and ":" not in name])
@pytest.mark.parametrize("binding", ["arrival", "free"])
def test_every_rule_binds_what_may_be_bound_and_with_the_same_seed_the_same(name, binding):
    if (name, binding) == ("least-work", "free"):
        pytest.skip("is refused, see below")

    def decisions():
        made = make_policy(name, binding=binding, order="first-come" if binding == "free" else None, seed=3)
        assert made.dispatcher.holds == (binding == "free")
        made.dispatcher.begin(3)
        return [made.dispatcher.decide(moment()) for _ in range(12)]

    first = decisions()
    assert decisions() == first
    may = moment().feasible if binding == "free" else moment().runs
    assert all(may[b.request, b.server] for b in first)


def test_rules_choose_what_their_names_say():
    def chosen(name, at, count=200):
        dispatcher = make_policy(name).dispatcher
        return [dispatcher.decide(at).server for _ in range(count)]

    assert set(chosen("least-finish", moment())) == {2}
    assert set(chosen("opt-ts", moment())) == {2}
    assert set(chosen("least-work", moment())) == {1}
    assert chosen("round-robin", moment(), 5) == [0, 1, 2, 0, 1]
    # of two that are drawn it takes the one with fewer requests: the idle one is in two of three pairs, and wins both
    drawn = chosen("power-of-two", moment((3.0, 0.0, 3.0)), 900)
    assert 550 < drawn.count(1) < 650
    assert set(chosen("random", moment())) == {0, 1, 2}


def test_a_held_request_goes_where_the_rule_says_of_the_servers_that_are_free():
    held = make_policy("least-outstanding", binding="free", order="first-come:price=none").dispatcher
    assert held.decide(moment((0.0, 0.0, 0.0))).request == 0
    turns = make_policy("round-robin", binding="free", order="first-come:price=none").dispatcher
    assert [turns.decide(moment((0.0, 0.0, 1.0))).server for _ in range(4)] == [0, 1, 0, 1]
    assert isinstance(make_policy("least-finish", binding="free").dispatcher, Held)
    assert isinstance(make_policy("least-finish").dispatcher, OnArrival)


def test_a_function_of_ones_own_or_a_whole_dispatcher_serves(tmp_path, monkeypatch):
    (tmp_path / "mine_rules.py").write_text(
        "from diffpolicy.edge.dispatch import Held\n"
        "def dear(moment): return -moment.service_s[0]\n"
        "def wrong(moment): return [1.0]\n"
        "class Whole(Held): pass\n"
        "class Other:\n"
        "    holds = True\n"
        "    def begin(self, seed): pass\n"
        "    def decide(self, moment): return None\n"
        "whole = Whole()\n"
        "number = 7\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert make_policy("mine_rules:dear").dispatcher.decide(moment()).server == 1
    assert make_policy("mine_rules:whole", binding="free").dispatcher.holds
    with pytest.raises(InputError, match="a cost for each of 3 servers"):
        make_policy("mine_rules:wrong").dispatcher.decide(moment())
    for policy, more, said in [
        ("mine_rules:whole", {}, "give --binding free"),
        ("mine_rules:whole", {"binding": "free", "order": "first-come"}, "has no --order"),
        ("mine_rules:number", {}, "must be a function"),
        ("round-robbin", {}, "did you mean round-robin"),
        ("shortest-first:cap=6", {}, "order of waiting requests: --binding free --order shortest-first:cap=6"),
        ("first-come", {"binding": "free"}, "order of waiting requests: --binding free --order first-come"),
        ("pretrained:dispatch", {}, "order of waiting requests: --binding free --order pretrained:dispatch"),
        ("least-work", {"binding": "free"}, "--policy least-work works only with --binding arrival"),
        ("random", {"order": "first-come"}, "--order works only with --binding free"),
        ("random", {"binding": "free", "order": "mine_rules:Other"}, "a dispatcher of its own"),
    ]:
        with pytest.raises(InputError, match=said):
            make_policy(policy, **more)


def test_a_workers_file_is_read_when_it_changed_and_said_once_when_it_is_broken(tmp_path):
    path = tmp_path / "workers.json"

    def write(text):
        path.write_text(text)
        os.utime(path, ns=(0, write.times))
        write.times += 1

    write.times = 1

    def listed(*ports):
        return json.dumps({"workers": [{"url": f"http://127.0.0.1:{port}"} for port in ports]})

    write(listed(1, 2))
    source = WorkersSource(str(path))
    assert source.changed() is None
    write(listed(1, 2))  # touched: nothing new
    assert source.changed() is None
    write(listed(1, 2, 3))
    assert [w.name[-1] for w in source.changed()] == ["1", "2", "3"]
    write("{")
    with pytest.raises(InputError, match=r"workers\.json"):
        source.changed()
    assert source.changed() is None
    assert len(source.workers) == 3
    path.unlink()
    with pytest.raises(InputError, match=r"workers\.json"):
        source.changed()
    write(json.dumps({"workers": [{"url": "http://127.0.0.1:1", "api_key_env": "NOBODY_SET_THIS"}]}))
    with pytest.raises(InputError, match="NOBODY_SET_THIS"):
        source.changed()
    write(listed(1, 2, 3))
    assert len(source.changed()) == 3  # whole again, which is told
    write(listed(3))
    assert [w.name[-1] for w in source.changed()] == ["3"]
    assert WorkersSource("http://127.0.0.1:1").changed(always=True) is None


def test_a_workers_file_is_looked_at_again_after_what_nobody_foresaw_and_a_slow_disk_holds_nobody_up(caplog):
    serving_loop = pytest.importorskip("diffpolicy.edge.serving.api.serving_loop")
    read, disk = [], threading.Event()

    class Source:
        def changed(self, *, always=False):
            read.append(always)
            now = next(found, None)
            if isinstance(now, Exception):
                raise now
            if now is not None:
                disk.wait(30)
            return now

    found = iter([RuntimeError("odd"), None, (WorkerSpec("http://127.0.0.1:1"),), InputError("w.json is broken"), None])

    async def go():
        taken = []
        file = serving_loop.of_workers(Of(replace_workers=taken.append), Source())
        watching = asyncio.ensure_future(file.watch(0.001))

        async def until(true):
            while not true():
                await asyncio.sleep(0.001)

        await until(lambda: len(read) == 3)  # the disk is slow, and this loop goes on
        file.told.ring()
        assert not taken
        disk.set()
        await until(lambda: len(read) >= 5)
        assert len(taken) == 1
        watching.cancel()

    asyncio.run(go())
    assert read[:5] == [False, False, False, True, False]
    assert "could not be loaded: RuntimeError: odd" in caplog.text
    assert "w.json is broken; the workers stay as they were" in caplog.text


def test_rules_that_take_microseconds_decide_where_requests_are_and_all_others_in_a_thread(tmp_path, monkeypatch):
    (tmp_path / "own_rule.py").write_text("def cost(moment):\n    return moment.starts_s\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    threads = {}
    for name in ("round-robin", "power-of-two", "least-work", "least-finish", "random", "own_rule:cost"):
        decider = Decider(make_policy(name).dispatcher, name)
        threads[name] = decider._thread is not None
        decider.close()
    assert [name for name, aside in threads.items() if aside] == ["own_rule:cost"]


@pytest.mark.parametrize(
    ("host", "true"), [("127.0.0.1", 1), ("localhost", 1), ("::1", 1), ("0.0.0.0", 0), ("::", 0), ("gpu7", 0)]
)
def test_loopback_is_what_only_this_machine_reaches(host, true):
    assert is_loopback(host) == bool(true)
