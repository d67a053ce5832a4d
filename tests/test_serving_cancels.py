"""Clients that go at any moment, and a wall clock that jumps: nothing is left, and nothing is decided otherwise."""

import asyncio
import json
import random
import time

import pytest

pytest.importorskip("fastapi")
from diffpolicy.edge.dispatch import OnArrival
from diffpolicy.edge.serving import Settings, WorkerSpec, events
from diffpolicy.edge.serving.api import ApiSettings, make_app
from diffpolicy.edge.serving.api.metrics import Metrics
from diffpolicy.edge.serving.api.recorder import RequestRecorder
from diffpolicy.edge.serving.room import Room
from diffpolicy.edge.serving.rules import make_policy
from diffpolicy.edge.serving.service import Service
from diffpolicy.edge.serving.upstream import Answer, Health, UpstreamError
from serving_fakes import Caller, event
from virtual_time import run

PATH = "/v1/images/generations"
PICTURE = json.dumps({"created": 1, "data": [{"b64_json": "AA=="}]}).encode()
ENDS = (events.Answered, events.Failed, events.Cancelled)


class Worker:
    """Takes a second or so for a request, and fails some of them; its times come from dice of its own."""

    def __init__(self, spec, dice):
        self.spec, self.dice, self.at_work = spec, dice, 0

    async def call(self, request, *, timeout_s, chunk=None):
        self.at_work += 1
        try:
            await asyncio.sleep(self.dice.uniform(0.1, 1.5))
            how = self.dice.random()
            if how < 0.1:
                raise UpstreamError("dropped the call", reached=how < 0.07)
            if how < 0.2:
                return Answer(429 if how < 0.15 else 500, {"retry-after": "1"})
            if chunk is not None:
                await chunk(event("partial_image", "AA=="))
                await asyncio.sleep(self.dice.uniform(0.0, 0.5))
                await chunk(event("completed", "AA=="))
                return Answer(200, {"content-type": "text/event-stream"})
            return Answer(200, {"content-type": "application/json"}, PICTURE)
        finally:
            self.at_work -= 1

    async def health(self):
        return Health(True)

    async def aclose(self):
        pass


def played(seed, binding, path=None):
    """A minute of requests through the whole app, whose clients leave or are cut off when the dice say so."""
    told = []

    async def main():
        dice, made, room = random.Random(seed), [], Room()

        def connect(spec):
            made.append(Worker(spec, random.Random(f"{seed} {spec.name}")))
            return made[-1]

        clock = asyncio.get_running_loop().time
        policy = make_policy("least-finish", binding=binding, servers=3)
        specs = [WorkerSpec(f"http://w{j}:1", f"w{j}") for j in range(3)]
        settings = Settings(first_s=1.0, patience_s=10.0, split=True, open_s=0.5, seed=seed)
        service = Service(specs, connect, policy.dispatcher, settings=settings, room=room, clock=clock)
        metrics = Metrics(service.snapshot)
        service.listeners += [told.append, metrics]
        recorder = None if path is None else RequestRecorder(path, clock())
        if recorder is not None:
            service.listeners.append(recorder)
        app = make_app(service, ApiSettings(comment_s=0.7), room)
        await service.start()

        async def one(k):
            await asyncio.sleep(dice.uniform(0, 60))
            body = {"prompt": "a cat", "n": dice.choice([1, 1, 3]), "stream": dice.random() < 0.4}
            headers = [(b"idempotency-key", b"k%d" % (k % 20))] if k % 2 else []
            headers += [(b"x-diffpolicy-deadline-s", b"4")] if k % 5 == 0 else []
            caller = Caller(app, PATH, json.dumps(body).encode(), headers)
            how = dice.random()
            if how < 0.6:  # at any moment, of virtual time or of turns of the loop
                await asyncio.sleep(dice.uniform(0, 2))
                for _ in range(dice.randrange(6)):
                    await asyncio.sleep(0)
                caller.leave() if how < 0.3 else caller.task.cancel()
            await asyncio.gather(caller.task, return_exceptions=True)

        await asyncio.gather(*(one(k) for k in range(120)))
        await service.stop(60.0)
        if recorder is not None:
            recorder.close()
        assert not service.waiting
        assert not service.running
        assert not service._gathering
        account = service.fleet.account
        assert (account.outstanding.sum(), account.outstanding_cost.sum()) == (0, 0)
        assert [server.coming for server in service.fleet.servers] == [0, 0, 0]
        assert [worker.at_work for worker in made] == [0, 0, 0]
        assert room.held == 0
        assert (metrics._bound, metrics._sent) == ({}, {})
        left = [work for work, _ in service.repeats._works.values() if not work.result.done()]
        assert not left
        arrived = [each.number for each in told if isinstance(each, events.Arrived)]
        assert sorted(each.number for each in told if isinstance(each, ENDS)) == sorted(arrived)
        assert len(arrived) > 50

    run(main())
    return [type(each).__name__ for each in told], [getattr(each, "time_s", None) for each in told]


@pytest.mark.parametrize("binding", ["arrival", "free"])
@pytest.mark.parametrize("seed", range(4))
def test_requests_whose_clients_go_at_any_moment_leave_nothing_behind(seed, binding):
    played(seed, binding)


def test_a_wall_clock_that_jumps_by_days_changes_nothing_but_dates(monkeypatch, tmp_path):
    calm = played(7, "free", tmp_path / "calm.csv")
    dice = random.Random(1)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 86_400 * dice.choice([-1, 0, 1]))
    assert played(7, "free", tmp_path / "jumps.csv") == calm

    def lines(name):
        rows = [line.split(",") for line in (tmp_path / name).read_text().splitlines()[1:]]
        return [(row[1], round(float(row[3]) - float(row[0]), 3), row[-2]) for row in rows]

    assert lines("jumps.csv") == lines("calm.csv")


def test_who_listens_and_raises_costs_a_request_that_is_refused_by_its_body_no_answer():
    """It is counted as one that is refused later is."""

    async def main():
        def raises(event):
            raise RuntimeError("odd")

        service = Service([WorkerSpec("http://w0:1")], lambda spec: Worker(spec, random.Random(0)), OnArrival())
        service.listeners.append(raises)
        app = make_app(service)
        caller = Caller(app, PATH, b'{"prompt": ""}')
        await caller.task
        assert caller.status == 400
        assert (service.counts["Refused"], service.counts["ListenerFailed"]) == (1, 1)

    run(main())
