"""The dispatcher without HTTP: what becomes of requests when workers fail, hang, fill up, restart and go."""

import asyncio
import gc
import math
import random
import sys
from collections import Counter

import numpy as np
import pytest

from diffpolicy.edge.dispatch import Arrivals, Binding, Held, OnArrival, ShortestFirst, make_held, simulate
from diffpolicy.edge.dispatch.on_arrival import WEIGHINGS
from diffpolicy.edge.serving import (
    Answer,
    Health,
    ImageRequest,
    Limits,
    Service,
    Settings,
    UpstreamError,
    WorkerSpec,
    attempt,
    ending,
    events,
)
from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.breaker import Breaker
from virtual_time import run


class Fake:
    """A worker that sleeps: `seconds` of a request, one at a time, in the order in which they come."""

    def __init__(self, spec, seconds=lambda request: 1.0, *, tells=True):
        self.spec, self.seconds, self.tells = spec, seconds, tells
        self.begun, self.ended, self.cancelled = [], [], []
        self.mode, self.boot, self.models, self.extra, self.counts = "well", "b0", None, 0, False
        self.turn, self.accepts = asyncio.Lock(), False
        self.body = lambda request: request.number.encode()

    async def call(self, request, *, timeout_s, chunk=None):
        try:
            return await asyncio.wait_for(self.answer(request, chunk), timeout_s)
        except asyncio.TimeoutError:
            raise UpstreamError("did not answer in time", reached=True, late=True) from None

    async def answer(self, request, chunk):
        mode = self.mode() if callable(self.mode) else self.mode
        if mode == "refuses":
            raise UpstreamError("cannot be reached", reached=False)
        if mode in ("full", "later"):
            return Answer(429 if mode == "full" else 503, {"retry-after": "2"})
        self.begun.append(request.number)
        try:
            async with self.turn:
                await asyncio.sleep(self.seconds(request) / 2)
                if mode == "hangs":
                    await asyncio.sleep(1e9)
                if mode == "drops":
                    raise UpstreamError("dropped the call", reached=True)
                if mode == "500":
                    return Answer(500)
                if mode == "bad":
                    return Answer(400, body=b"no")
                if chunk is not None:
                    await chunk(b"half")
                if mode == "drops late":
                    raise UpstreamError("dropped the call", reached=True)
                await asyncio.sleep(self.seconds(request) / 2)
        except asyncio.CancelledError:
            self.cancelled.append(request.number)
            raise
        self.ended.append(request.number)
        return Answer(200, body=self.body(request), service_s=self.seconds(request) if self.tells else None)

    async def health(self):
        mode = self.mode() if callable(self.mode) else self.mode
        if mode == "refuses":
            raise UpstreamError("cannot be reached", reached=self.accepts, gone=True)
        if mode == "not asked":
            raise UpstreamError("cannot be reached: its name does not resolve", reached=False)
        if mode == "hangs":
            raise UpstreamError("did not answer in time", reached=True, late=True)
        running = len(self.begun) - len(self.ended) - len(self.cancelled) + self.extra
        return Health(
            mode != "draining",
            mode == "draining",
            self.boot,
            self.models,
            running if self.extra or self.counts else None,
        )

    async def aclose(self):
        self.mode = "closed"


class Bench:
    """A service over fakes in virtual time, and what it told."""

    def __init__(self, workers, policy=None, *, seconds=None, otherwise=None, shadow=False, fakes=None, **settings):
        specs = [WorkerSpec(f"http://w{j}:1", f"w{j}") for j in range(workers)]
        self.fakes = {} if fakes is None else fakes
        self.seconds = seconds or (lambda j: lambda request: 1.0)
        self.told = []

        def connect(spec):
            j = int(spec.name[1:])
            return self.fakes.setdefault(j, Fake(spec, self.seconds(j)))

        settings = {"first_s": 1.0, **settings}
        self.service = Service(
            specs,
            connect,
            policy or Held(ShortestFirst()),
            "policy",
            Settings(**settings),
            otherwise=otherwise,
            shadow=shadow,
            clock=lambda: asyncio.get_running_loop().time(),
        )
        self.service.listeners.append(self.told.append)

    def ask(self, number, **options):
        body = {"prompt": "x", **options.pop("body", {})}
        chunk = options.pop("chunk", None)
        return self.service.submit(
            ImageRequest.parse(body, str(number), limits=self.service.settings.limits, **options), chunk
        )

    def of(self, kind):
        return [event for event in self.told if isinstance(event, kind)]

    async def __aenter__(self):
        await self.service.start()
        return self

    async def __aexit__(self, *_):
        await self.service.stop(1e6)


async def until(condition):
    for _ in range(100_000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came true")


class Slow(Fake):
    """Its pictures come three seconds after it is done, and `lost` of them not at all."""

    lost, comes_s = (), 3.0

    async def call_telling(self, request, *, timeout_s, done, chunk=None):
        answer = await self.call(request, timeout_s=timeout_s, chunk=chunk)
        done()
        await asyncio.sleep(self.comes_s)
        if request.number in self.lost:
            raise UpstreamError("dropped the call", reached=True)
        return answer


def test_a_worker_is_free_when_it_is_done_though_its_pictures_are_still_on_the_way() -> None:
    async def main():
        fakes = {j: Slow(WorkerSpec(f"http://w{j}:1", f"w{j}")) for j in range(2)}
        async with Bench(1, fakes=fakes) as bench:
            tickets = [bench.ask(k) for k in range(2)]
            await asyncio.sleep(2.5)
            assert fakes[0].ended == ["0", "1"]
            assert bench.service.fleet.account.outstanding.tolist() == [1]
            # a place is nobody else's while answers come from it, and what comes late is answered once
            bench.service.replace_workers([WorkerSpec("http://w1:1", "w1")])
            assert [server.coming for server in bench.service.fleet.servers] == [1, 0]
            shown = {view.name: view for view in bench.service.snapshot().servers}["w0"]
            assert (shown.outstanding, shown.coming, shown.running) == (1, 1, ("0", "1"))
            await asyncio.sleep(2.0)
            assert [(view.name, view.outstanding, view.coming) for view in bench.service.snapshot().servers] == [
                ("w0", 0, 1),
                ("w1", 0, 0),
            ]
            await asyncio.gather(*(ticket.answer() for ticket in tickets))
            # one answer for each slot may be on the way: the second keeps its seat until the first has come
            assert [(round(x.time_s, 6), round(x.freed_s, 6)) for x in bench.of(events.Answered)] == [(4, 1), (5, 4)]
            # one whose pictures are lost is made again elsewhere
            fakes[1].lost = ("lost",)
            bench.service.replace_workers([WorkerSpec(f"http://w{j}:1", f"w{j}") for j in (1, 0)])
            await until(lambda: all(s.state(0) == "ready" for s in bench.service.fleet.servers))
            fakes[0].mode = "draining"
            await until(lambda: bench.service.fleet.servers[0].state(0) == "draining")
            ticket = bench.ask("lost")
            await until(lambda: fakes[1].ended)
            fakes[0].mode = "well"
            assert (await ticket.answer()).body == b"lost"
            assert fakes[0].ended[2:] == ["lost"]
            # and so is one whose worker is found dead and which does not come for some seconds
            await until(lambda: bench.service.fleet.servers[0].state(0) == "ready")
            fakes[0].mode = "draining"
            await until(lambda: bench.service.fleet.servers[0].state(0) == "draining")
            fakes[1].comes_s = 100.0
            ticket = bench.ask("gone")
            await until(lambda: "gone" in fakes[1].ended)
            fakes[0].mode, fakes[1].mode = "well", "refuses"
            begun = asyncio.get_running_loop().time()
            assert (await ticket.answer()).body == b"gone"
            assert 10 < asyncio.get_running_loop().time() - begun < 20
            assert fakes[0].ended[3:] == ["gone"]
            assert [server.coming for server in bench.service.fleet.servers] == [0, 0]

    run(main())


def test_a_worker_that_ends_in_order_and_takes_no_connections_any_more_may_send_the_answers_that_it_has_begun() -> None:
    async def main():
        fakes = {0: Slow(WorkerSpec("http://w0:1", "w0"))}
        fakes[0].comes_s = 5.0
        async with Bench(2, OnArrival("least-outstanding"), fakes=fakes, probe_s=0.5) as bench:
            tickets = [bench.ask(k) for k in range(4)]
            await asyncio.sleep(1.1)
            (sent,), (other,) = fakes[0].ended, set(fakes[0].begun) - set(fakes[0].ended)
            bench.service.replace_workers([WorkerSpec("http://w1:1", "w1")])
            fakes[0].mode = "refuses"
            await asyncio.gather(*(ticket.answer() for ticket in tickets))
            assert [x.number for x in bench.of(events.Retried)] == [other]
            assert [x.number for x in bench.of(events.Answered) if x.server == "w0"] == [sent]

    run(main())


class Linked(Fake):
    """Its pictures share a link, which takes `link_s` for each of them."""

    link_s = 1.6

    async def call_telling(self, request, *, timeout_s, done, chunk=None):
        self.link = getattr(self, "link", None) or asyncio.Lock()

        async def whole():
            answer = await self.answer(request, chunk)
            done()
            async with self.link:
                await asyncio.sleep(self.link_s)
            return answer

        try:
            return await asyncio.wait_for(whole(), timeout_s)
        except asyncio.TimeoutError:
            raise UpstreamError("did not answer in time", reached=True, late=True) from None


def test_a_link_that_is_slower_than_its_device_makes_no_answer_late() -> None:
    async def main():
        fakes = {j: Linked(WorkerSpec(f"http://w{j}:1", f"w{j}"), lambda request: 0.5) for j in range(2)}
        async with Bench(2, fakes=fakes) as bench:
            tickets = [bench.ask(k) for k in range(60)]
            await asyncio.gather(*(ticket.answer() for ticket in tickets))
            assert sum(len(fake.begun) for fake in fakes.values()) == 60
            assert asyncio.get_running_loop().time() < 30 * 1.6 + 1  # the link never stands still
            assert not bench.of(events.Retried)
            assert not [x for x in bench.of(events.WorkerChanged) if x.state == "open"]

    run(main())


def test_a_worker_whose_answers_get_stuck_on_the_way_gets_two_requests_at_once_and_no_more() -> None:
    async def main():
        fakes = {j: Linked(WorkerSpec(f"http://w{j}:1", f"w{j}")) for j in range(2)}
        fakes[0].link_s, fakes[1].link_s = 1e9, 0.0
        async with Bench(2, fakes=fakes, limits=Limits(queue=3), call_s=1e3, call_times=1.0) as bench:
            tickets = []
            for k in range(40):
                tickets.append(bench.ask(k))
                await asyncio.sleep(1.1)
            assert len(fakes[0].begun) == 2
            assert bench.service.fleet.servers[0].coming == 1
            # and what is on the way counts where the queue is bounded
            tickets.append(bench.ask("with a seat"))
            await asyncio.sleep(0.1)
            tickets += [bench.ask("waits"), bench.ask("waits too")]
            with pytest.raises(ApiError, match="queue is full"):
                bench.ask("one too many")
            fakes[0].link_s = 0.0
            await asyncio.gather(*(ticket.answer() for ticket in tickets))

    run(main())


def test_a_worker_on_trial_gets_one_request_until_its_whole_answer_is_here() -> None:
    async def main():
        fakes = {0: Slow(WorkerSpec("http://w0:1", "w0"))}
        async with Bench(1, fakes=fakes, faults=1, open_s=5.0) as bench:
            breaker = bench.service.fleet.servers[0].breaker
            breaker.fault(0.0)
            await asyncio.sleep(6.0)
            assert breaker.state(6.0) == "half-open"
            tickets = [bench.ask(k) for k in range(3)]
            await asyncio.sleep(3.5)
            assert fakes[0].begun == ["0"]
            await asyncio.gather(*(ticket.answer() for ticket in tickets))

    run(main())


def test_one_that_overrides_the_call_of_a_worker_that_tells_its_end_is_not_passed_by() -> None:
    class Counted(Slow):
        called = 0

        async def call(self, request, **more):
            self.called += 1
            return await super().call(request, **more)

    class Both(Counted):
        async def call_telling(self, request, **more):
            return await super().call_telling(request, **more)

    async def main():
        for kind, seconds in ((Counted, 1), (Both, 4)):
            fake = kind(WorkerSpec("http://w0:1", "w0"))
            async with Bench(1, fakes={0: fake}) as bench:
                begun = asyncio.get_running_loop().time()
                await bench.ask("r").answer()
                assert (fake.called, round(asyncio.get_running_loop().time() - begun)) == (1, seconds)

    run(main())


def test_deadlines_pass_while_binding_fails(monkeypatch) -> None:
    async def broken(self):
        raise RuntimeError("a fault of ours")

    async def main():
        async with Bench(1) as bench:
            with monkeypatch.context() as patch:
                patch.setattr(type(bench.service._binder), "_bind_one", broken)
                ticket, others = bench.ask("r", deadline_s=2.0), []
                for k in range(60):  # each rings
                    await asyncio.sleep(0.05)
                    others.append(bench.ask(k))
                with pytest.raises(ApiError, match="the deadline passed"):
                    await asyncio.wait_for(ticket.answer(), 0.01)
            await asyncio.gather(*(other.answer() for other in others))

    run(main())


def test_deadlines_pass_while_one_binding_follows_another(monkeypatch) -> None:
    """As where workers answer as fast as a dispatcher binds: there is always one more to be bound."""

    async def binds_on(self):
        await asyncio.sleep(0.05)
        return not self.ended

    async def main():
        async with Bench(1) as bench:
            with monkeypatch.context() as patch:
                patch.setattr(type(bench.service._binder), "_bind_one", binds_on)
                ticket = bench.ask("r", deadline_s=2.0)
                with pytest.raises(ApiError, match="the deadline passed"):
                    await asyncio.wait_for(ticket.answer(), 4.0)
            assert await bench.ask("s").answer()

    run(main())


def test_a_request_that_comes_while_the_policy_thinks_is_not_charged_with_what_was_before_it() -> None:
    async def main():
        async with Bench(2) as bench:
            bind_one = bench.service._binder._bind_one

            async def thinks():
                await asyncio.sleep(0.5)
                return await bind_one()

            bench.service._binder._bind_one = thinks
            tickets = [bench.ask("first")]
            await asyncio.sleep(0.7)
            tickets.append(bench.ask("second"))
            await asyncio.gather(*(ticket.answer() for ticket in tickets))
            assert [round(x.lag_s, 6) for x in bench.of(events.Bound)] == [0.5, 0.3]

    run(main())


def test_by_a_lead_the_next_request_waits_at_its_worker_when_the_one_before_ends() -> None:
    async def main():
        async with Bench(1, lead_s=0.2) as bench:
            await asyncio.gather(*(bench.ask(k).answer() for k in range(3)))
            assert [round(x.time_s, 6) for x in bench.of(events.Bound)] == [0.0, 0.8, 1.8]
            assert [round(x.time_s, 6) for x in bench.of(events.Answered)] == [1.0, 2.0, 3.0]

    run(main())


def test_the_next_request_is_sent_before_anything_is_told_of_an_answer() -> None:
    """What is learned and told takes longer than to bind, and the worker would stand still."""

    async def main():
        async with Bench(1) as bench:
            sent = []
            bench.service.listeners.append(lambda event: sent.append((event, list(bench.fakes[0].begun))))
            await asyncio.gather(*(bench.ask(k).answer() for k in range(3)))
            at = [begun for event, begun in sent if isinstance(event, events.Answered)]
            assert at == [["0", "1"], ["0", "1", "2"], ["0", "1", "2"]]

    run(main())


@pytest.mark.parametrize(
    "order", ["shortest-first:cap=3,price=none", "cost-minus-age:age=0.5,price=none", "least-finish", "least-cost"]
)
def test_it_does_in_time_what_the_simulator_does_on_the_same_arrivals(order) -> None:
    generator = np.random.default_rng(0)
    arrival = np.cumsum(generator.exponential(0.6, 300))
    steps = generator.choice([5, 10, 40], 300)
    speed = np.array([2.0, 1.0])
    service_s = steps[:, None] / 20 / speed
    policy = OnArrival(order) if order in WEIGHINGS else make_held(order)  # of which one draws among equals
    expected = simulate(Arrivals(arrival, service_s, cost=steps * 1.0), policy)

    async def main():
        bench = Bench(2, policy, seconds=lambda j: lambda request: request.steps / 20 / speed[j])
        delay = np.zeros(300)
        async with bench:
            # what each kind takes is known before the first request, as it is to the simulator
            for j in range(2):
                for n in (5, 10, 40):
                    for _ in range(40):
                        size = n * 1.0
                        bench.service.fleet.costs.observe(j, n / 20 / speed[j], size=size)
            begun = asyncio.get_running_loop().time()

            async def one(k):
                await asyncio.sleep(begun + arrival[k] - asyncio.get_running_loop().time())
                body = {"size": "1000x1000", "num_inference_steps": int(steps[k])}
                await bench.ask(k, body=body).answer()
                delay[k] = asyncio.get_running_loop().time() - begun - arrival[k]

            await asyncio.gather(*(one(k) for k in range(300)))
        return delay

    np.testing.assert_allclose(run(main()), expected.delay_s, atol=1e-6)


def test_a_worker_that_dies_in_mid_request_loses_nothing_and_no_request_is_answered_twice() -> None:
    async def main():
        bench = Bench(2)
        async with bench:
            tickets = [bench.ask(k) for k in range(6)]
            await asyncio.sleep(0.3)
            bench.fakes[0].mode = "drops"
            answers = await asyncio.gather(*(ticket.answer() for ticket in tickets))
            assert [a.body for a in answers] == [str(k).encode() for k in range(6)]
            ended = Counter(bench.fakes[0].ended + bench.fakes[1].ended)
            assert set(ended.values()) == {1}
            assert len(bench.of(events.Answered)) == 6
            assert bench.of(events.Retried)

    run(main())


def test_a_second_worker_that_fails_ends_the_request_and_tells_the_client_not_to_ask_again() -> None:
    async def main():
        bench = Bench(3)
        async with bench:
            for fake in bench.fakes.values():
                fake.mode = "drops"
            with pytest.raises(ApiError) as caught:
                await bench.ask("r").answer()
            assert caught.value.status == 503
            assert caught.value.headers()["x-should-retry"] == "false"
            assert sum(len(fake.begun) for fake in bench.fakes.values()) == 2

    run(main())


def test_a_worker_that_cannot_be_reached_costs_no_attempt_and_requests_wait_until_one_is_back() -> None:
    async def main():
        bench = Bench(2, patience_s=1000.0)
        async with bench:
            for fake in bench.fakes.values():
                fake.mode = "refuses"
            ticket = bench.ask("r")
            await asyncio.sleep(30)
            assert not bench.service.usable
            with pytest.raises(ApiError) as caught:
                bench.ask("later")
            assert caught.value.status == 503
            assert caught.value.retry_after_s
            bench.fakes[1].mode = "well"
            assert (await ticket.answer()).body == b"r"

    run(main())


def test_requests_that_nobody_can_take_are_given_up_after_a_while() -> None:
    async def main():
        bench = Bench(1, patience_s=20.0)
        async with bench:
            bench.fakes[0].mode = "refuses"
            ticket = bench.ask("r")
            with pytest.raises(ApiError) as caught:
                await ticket.answer()
            assert caught.value.code == "no_worker"
            assert 20 <= asyncio.get_running_loop().time() < 40

    run(main())


def test_a_worker_that_answers_500_opens_its_breaker_which_closes_again() -> None:
    async def main():
        bench = Bench(2, OnArrival("least-finish"), call_s=5.0, call_times=3.0, faults=1, probe_s=1e6)
        async with bench:
            bench.fakes[0].mode = bench.fakes[1].mode = "well"
            bench.fakes[0].mode = "500"
            answers = await asyncio.gather(*(bench.ask(k).answer() for k in range(4)))
            assert all(a.status == 200 for a in answers)
            assert [e.state for e in bench.of(events.WorkerChanged) if e.server == "w0"] == ["ready", "open"]
            before = len(bench.fakes[0].begun)
            await asyncio.sleep(3)
            bench.fakes[0].mode = "well"
            await asyncio.gather(*(bench.ask(f"b{k}").answer() for k in range(6)))
            assert len(bench.fakes[0].begun) > before
            assert bench.service.fleet.servers[0].state(asyncio.get_running_loop().time()) == "ready"

    run(main())


def test_a_hanging_worker_holds_a_request_for_its_time_out_alone() -> None:
    async def main():
        bench = Bench(2, call_s=5.0, call_times=3.0, probe_s=1e6)
        async with bench:
            bench.fakes[0].mode = "hangs"
            bench.fakes[1].mode = "hangs"
            first = bench.ask("a")
            await asyncio.sleep(1)
            stuck = next(j for j, fake in bench.fakes.items() if fake.begun)
            bench.fakes[1 - stuck].mode = "well"
            assert (await first.answer()).body == b"a"
            assert 5 <= asyncio.get_running_loop().time() < 8
            assert bench.of(events.Retried)[0].why == "did not answer in time"

    run(main())


async def in_vain(request, *, timeout_s, chunk=None):
    """A call whose connection is never closed, as to a machine without power."""
    await asyncio.sleep(timeout_s)
    raise UpstreamError("did not answer in time", reached=True, late=True)


@pytest.mark.parametrize("how", ["gone", "behind a proxy", "reset", "anew"])
def test_calls_of_a_worker_that_is_found_dead_go_elsewhere_at_once(how) -> None:
    async def main():
        bench = Bench(2, OnArrival("least-outstanding"), call_s=1e4, probe_s=1e6 if how == "reset" else 2.0)
        fake = bench.fakes[0]
        fake.boot = "b0"

        async def call(request, **more):
            if how == "reset" and fake.begun:
                await asyncio.sleep(2.5)
                raise UpstreamError("dropped the call", reached=True)
            fake.begun.append(request.number)
            await in_vain(request, **more)

        fake.call = call
        async with bench:
            tickets = [bench.ask(k) for k in range(4)]
            await asyncio.sleep(2.1)
            fake.mode, fake.boot = "well" if how == "anew" else "refuses", "b1"
            fake.accepts = how == "behind a proxy"
            answers = await asyncio.gather(*(ticket.answer() for ticket in tickets))
            assert [a.body for a in answers] == [b"0", b"1", b"2", b"3"]
            assert asyncio.get_running_loop().time() < 10
            assert len(bench.of(events.Retried)) == 2
            assert ("has started anew" if how == "anew" else "is gone") in bench.of(events.Retried)[-1].why
            assert bench.service.fleet.servers[0].breaker.in_a_row == (how == "reset")
            if how == "anew":  # what it was sent since then is its own
                del fake.call
                later = [bench.ask(f"later {k}") for k in range(4)]
                await asyncio.sleep(3)
                fake.boot = "b1"
                assert all([(await ticket.answer()).status == 200 for ticket in later])
                assert len(bench.of(events.Retried)) == 2
        assert bench.service.fleet.account.outstanding.sum() == 0

    run(main())


def test_what_keeps_the_dispatcher_from_looking_ends_no_calls() -> None:
    async def main():
        bench = Bench(2, seconds=lambda j: lambda request: 3.0, probe_s=0.5)
        async with bench:
            tickets = [bench.ask(k) for k in range(4)]
            await asyncio.sleep(1)
            for fake in bench.fakes.values():
                fake.mode = "not asked"
            await asyncio.sleep(1.2)
            assert [server.state for server in bench.service.snapshot().servers] == ["dead", "dead"]
            for fake in bench.fakes.values():
                fake.mode = "well"
            assert [(await ticket.answer()).status for ticket in tickets] == 4 * [200]
            assert sum(len(fake.begun) for fake in bench.fakes.values()) == 4
            assert not bench.of(events.Retried)

    run(main())


def test_two_machines_at_one_address_end_no_calls_and_are_said_to_be_there_once(caplog) -> None:
    async def main():
        bench = Bench(1, seconds=lambda j: lambda request: 5.0, probe_s=1.0)
        async with bench:
            fake, tickets = bench.fakes[0], [bench.ask(k) for k in range(2)]
            for boot in ("b1", "b0", "b1", "b0", *(3 * ("b1", "b0", "b2"))):  # the first switch among them
                await asyncio.sleep(1)
                fake.boot = boot
            assert [(await ticket.answer()).status for ticket in tickets] == [200, 200]
            assert not bench.of(events.Retried)

    run(main())
    assert caplog.text.count("several machines answer at the address of worker w0") == 1


def test_a_worker_that_was_removed_is_watched_until_it_has_ended_what_it_had() -> None:
    async def main():
        fakes = {0: Fake(WorkerSpec("http://w0:1", "w0"))}
        fakes[0].call = in_vain
        bench = Bench(2, OnArrival("least-outstanding"), call_s=1e4, fakes=fakes)
        async with bench:
            tickets = [bench.ask(k) for k in range(2)]
            await asyncio.sleep(1)
            bench.service.replace_workers([WorkerSpec("http://w1:1", "w1")])
            await asyncio.sleep(5)
            bench.fakes[0].mode = "refuses"
            assert [(await ticket.answer()).body for ticket in tickets] == [b"0", b"1"]
            assert asyncio.get_running_loop().time() < 12
            assert [x.server for x in bench.of(events.Retried)] == ["w0"]
            assert [x.server for x in bench.of(events.WorkerChanged) if x.state == "removed"] == ["w0"]
            await asyncio.sleep(3)
            assert [watch.done() for watch in bench.service.fleet._watches.values()] == [True, False]

    run(main())


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_worker_that_comes_back_in_the_turn_in_which_a_look_ends_has_one_watch(turns) -> None:
    """A watch may miss its cancellation then: before Python 3.12 `wait_for` forgets it if it has what it waited for."""

    class Gated(Fake):
        gate, looks = None, 0

        async def health(self):
            self.looks += 1
            if self.gate is not None:
                await self.gate
            return await super().health()

    async def main():
        w0, w1 = (WorkerSpec(f"http://w{j}:1", f"w{j}") for j in range(2))
        fake = Gated(w0, lambda request: 100.0)
        bench = Bench(2, OnArrival("least-outstanding"), fakes={0: fake}, probe_s=2.0)
        await bench.service.start()
        tickets = [bench.ask(k) for k in range(2)]
        await asyncio.sleep(0.5)
        bench.service.replace_workers([w1])
        gate = fake.gate = asyncio.get_running_loop().create_future()
        await asyncio.sleep(2.2)
        fake.gate = None
        gate.set_result(None)
        for _ in range(turns):
            await asyncio.sleep(0)
        bench.service.replace_workers([w1, w0])
        await asyncio.sleep(3)
        fake.looks = 0
        await asyncio.sleep(10)
        assert fake.looks == 5
        for ticket in tickets:
            ticket.cancel()
        await asyncio.wait_for(bench.service.stop(1), 60)

    run(main())


def test_calls_of_a_worker_that_starts_twice_anew_are_lost_with_either_start() -> None:
    async def main():
        fakes = {0: Fake(WorkerSpec("http://w0:1", "w0"))}
        fakes[0].mode = "hangs"
        fakes[0].health = lambda: asyncio.sleep(0, Health(True, boot=fakes[0].boot))
        bench = Bench(2, OnArrival("least-outstanding"), call_s=1e4, fakes=fakes)
        async with bench:
            tickets = [bench.ask(k) for k in range(2)]
            await asyncio.sleep(3)
            fakes[0].boot = "b1"
            await until(lambda: bench.service.fleet.servers[0].anew)
            tickets += [bench.ask(k) for k in range(2, 5)]
            await asyncio.sleep(0.2)
            fakes[0].boot = "b2"
            assert [(await ticket.answer()).status for ticket in tickets] == 5 * [200]
            assert [x.number for x in bench.of(events.Retried)] == fakes[0].begun
            assert len(fakes[0].begun) > 1
            assert asyncio.get_running_loop().time() < 15

    run(main())


@pytest.mark.parametrize("how", ["cancels itself", "a fault of ours"])
def test_a_call_that_ends_in_no_way_that_was_foreseen_is_answered(how, monkeypatch) -> None:
    def broken(*args, **more):
        raise RuntimeError("a fault of ours")

    async def cancelled(request, **more):
        raise asyncio.CancelledError

    async def main():
        bench = Bench(1)
        async with bench:
            with monkeypatch.context() as patch:
                if how == "cancels itself":
                    patch.setattr(bench.fakes[0], "call", cancelled)
                else:
                    patch.setattr(attempt, "_fault", broken)
                    bench.fakes[0].mode = "drops"
                with pytest.raises(ApiError, match="the call of a worker failed"):
                    await asyncio.wait_for(bench.ask("r", repeat_key="k").answer(), 60)
            bench.fakes[0].mode = "well"
            assert bench.of(events.Failed)
            assert bench.service.fleet.account.outstanding.tolist() == [0]
            assert (await bench.ask("next", repeat_key="k").answer()).body == b"next"

    run(main())


def test_a_worker_whose_health_nobody_can_read_is_looked_at_again(monkeypatch) -> None:
    async def health():
        return Health(True, running="many")

    async def main():
        bench = Bench(1, probe_s=1.0)
        async with bench:
            with monkeypatch.context() as patch:
                patch.setattr(bench.fakes[0], "health", health)
                await asyncio.sleep(3.1)
            bench.fakes[0].mode = "draining"
            await asyncio.sleep(1.1)
            assert bench.service.snapshot().servers[0].state == "draining"

    run(main())


def test_a_worker_that_is_dead_by_what_it_says_is_told_with_the_reason(monkeypatch) -> None:
    async def health():
        return Health(False, why="its /health answers with status 500")

    async def main():
        bench = Bench(1, probe_s=1.0)
        async with bench:
            with monkeypatch.context() as patch:
                patch.setattr(bench.fakes[0], "health", health)
                await asyncio.sleep(1.1)
            await asyncio.sleep(1.1)
            assert [(e.state, e.why) for e in bench.of(events.WorkerChanged)] == [
                ("ready", ""),
                ("dead", "its /health answers with status 500"),
                ("ready", ""),
            ]

    run(main())


def test_one_connection_that_is_refused_ends_no_calls() -> None:
    async def main():
        bench = Bench(1, seconds=lambda j: lambda request: 20.0)
        async with bench:
            ticket = bench.ask("r")
            await asyncio.sleep(1.9)
            bench.fakes[0].mode = "refuses"
            await asyncio.sleep(0.2)
            bench.fakes[0].mode = "well"
            assert (await ticket.answer()).status == 200
            assert not bench.of(events.Retried)

    run(main())


@pytest.mark.parametrize("says", ["full", "later"])
def test_workers_that_say_they_take_no_more_are_asked_again_later_and_not_taken_for_broken(says) -> None:
    async def main():
        bench = Bench(2)
        async with bench:
            storm = {"left": 30}

            def mode():
                storm["left"] -= 1
                return says if storm["left"] > 0 else "well"

            bench.fakes[0].mode = bench.fakes[1].mode = mode
            answers = await asyncio.gather(*(bench.ask(k).answer() for k in range(5)))
            assert all(a.status == 200 for a in answers)
            assert not bench.of(events.Retried)
            assert all(s.breaker.in_a_row == 0 for s in bench.service.fleet.servers)
            bound = [e for e in bench.of(events.Bound) if e.number == "4"]
            assert [e.attempt for e in bound] == list(range(1, len(bound) + 1))  # waits count for the first alone

    run(main())


@pytest.mark.parametrize("told_s", [None, 0.001])
def test_a_worker_that_answers_had_this_request_too_whether_or_not_its_seat_was_given_on_before(told_s) -> None:
    async def main():
        fake = (Fake if told_s is None else Slow)(WorkerSpec("http://w0:1", "w0"))
        fake.comes_s = told_s
        async with Bench(1, fakes={0: fake}) as bench:
            await bench.ask("r").answer()
            assert bench.service.fleet.servers[0].held == 1

    run(main())


@pytest.mark.parametrize(("bad", "binding"), [(0, "arrival"), (5, "arrival"), (5, "free")])
def test_a_worker_that_is_full_is_not_sent_all_that_wait_again_and_again_nor_left_idle(bad, binding) -> None:
    """Nor where some requests are refused by all, full or not: each would tell of a seat less."""

    async def main():
        policy = OnArrival("least-finish") if binding == "arrival" else Held(ShortestFirst())
        bench = Bench(2, policy, patience_s=5.0)
        refused = []

        def of_four_seats(fake):
            running = set()

            async def answer(request, chunk):
                if request.number.startswith("bad") or len(running) == 4:
                    refused.append(request.number)
                    await asyncio.sleep(0.001)
                    return Answer(429, {"retry-after": "1"})
                running.add(request.number)
                await asyncio.sleep(0.36 + 0.08 * (int(request.number) % 7) / 6)
                running.remove(request.number)
                return Answer(200, service_s=0.4)

            async def health():
                return Health(True, slots=4)

            fake.answer, fake.health = answer, health

        async with bench:
            for j, fake in bench.fakes.items():
                of_four_seats(fake)
                await bench.service.fleet.look(j)
            good, never = [], []
            for k in range(120):
                good.append(bench.ask(k))
                never += [bench.ask(f"bad{k}")] if bad and k % 24 == 12 else []
            assert {(await ticket.answer()).status for ticket in good} == {200}
            assert asyncio.get_running_loop().time() == pytest.approx(6.0, rel=0.1)  # of 120 at 20 a second
            assert sum(not number.startswith("bad") for number in refused) < 112 + 72  # some try for more room
            for ticket in never:
                with pytest.raises(ApiError, match="full"):
                    await ticket.answer()

    run(main())


@pytest.mark.parametrize(
    ("workers", "status", "retry", "bad", "every", "longest"),
    [
        (2, 429, "1", 1, 10, 1.0),
        (1, 429, "30", 1, 60, 1.0),
        (1, 429, "1", 5, 1000, 5.0),
        (1, 503, "30", 1, 60, 1.0),
        (3, 503, "30", 3, 1000, 1.0),
    ],
)
def test_a_request_that_no_worker_ever_takes_keeps_no_other_waiting_and_is_given_up(
    workers, status, retry, bad, every, longest
) -> None:
    """As by a limit of a model or of a size: a worker says 429, or 503, of that request alone."""

    async def main():
        bench = Bench(workers, OnArrival("least-finish"), seconds=lambda j: lambda request: 0.1)
        tries = Counter()

        def answers(fake, plain):
            async def answer(request, chunk):
                if request.number.startswith("bad"):
                    tries[request.number] += 1
                    return Answer(status, {"retry-after": retry})
                return await plain(request, chunk)

            fake.answer = answer

        async with bench:
            for fake in bench.fakes.values():
                answers(fake, fake.answer)
            refused, good = [], []
            for k in range(120):
                refused += [bench.ask(f"bad{k}.{i}") for i in range(bad if k % every == 0 else 0)]
                good.append(bench.ask(k))
                await asyncio.sleep(1.0)
            assert {(await ticket.answer()).status for ticket in good} == {200}
            assert max(e.delay_s for e in bench.of(events.Answered)) < longest
            for ticket in refused:
                with pytest.raises(ApiError) as caught:
                    await ticket.answer()
                assert caught.value.status == status
            assert max(n for number, n in tries.items() if int(number[3:-2]) < 60) <= 12 * workers  # others came
            assert {server.state for server in bench.service.snapshot().servers} == {"ready"}

    run(main())


def test_a_worker_that_others_have_filled_is_asked_by_two_and_not_by_all_that_wait() -> None:
    async def main():
        bench = Bench(1, patience_s=20.0)
        tries = Counter()

        def answers(fake, plain):
            async def answer(request, chunk):
                if asyncio.get_running_loop().time() < 10.0:
                    tries[request.number] += 1
                    return Answer(429, {"retry-after": "2"})
                return await plain(request, chunk)

            fake.answer = answer

        async with bench:
            answers(bench.fakes[0], bench.fakes[0].answer)
            tickets = [bench.ask(k) for k in range(20)]
            assert {(await ticket.answer()).status for ticket in tickets} == {200}
            assert tries.total() <= 12  # two each two seconds
            assert asyncio.get_running_loop().time() < 33

    run(main())


@pytest.mark.parametrize("emptied", [False, True])
def test_a_request_that_every_worker_fails_is_held_against_none_of_them_that_answer_others(emptied) -> None:
    """Otherwise a client whose requests nobody can run stops the service of all others, for a minute at last."""

    async def main():
        bench = Bench(3, OnArrival("least-outstanding"), seconds=lambda j: lambda request: 0.01)

        def answers(fake, plain):
            async def answer(request, chunk):
                if request.number.startswith("bad"):
                    await asyncio.sleep(0.005)
                    if emptied:  # as by a filter
                        raise UpstreamError("answers with no image", reached=True, answered=True)
                    return Answer(500)
                return await plain(request, chunk)

            fake.answer = answer

        async with bench:
            for fake in bench.fakes.values():
                answers(fake, fake.answer)
            for burst in range(10):
                good = [bench.ask(f"{burst}.{k}") for k in range(3)]
                assert {(await ticket.answer()).status for ticket in good} == {200}
                tickets = [bench.ask(f"bad{burst}.{k}") for k in range(10)]
                for ticket in tickets:
                    with pytest.raises(ApiError, match="two workers failed"):
                        await ticket.answer()
                assert {server.state for server in bench.service.snapshot().servers} == {"ready"}
            assert (await bench.ask("good").answer()).status == 200
            assert all(s.breaker.openings == 0 for s in bench.service.fleet.servers)
            bench.fakes[1].mode = "500"  # and one that fails what others do not is found out
            assert {(await bench.ask(k).answer()).status for k in range(36)} == {200}
            assert [s.state for s in bench.service.snapshot().servers] == ["ready", "open", "ready"]

    run(main())


@pytest.mark.parametrize(("broken", "most"), [((0, 1), 1), ((0, 1, 2), 16)])
@pytest.mark.parametrize("well_before", [False, True])
def test_workers_that_fail_together_open_their_breakers_and_clear_each_other_not(broken, well_before, most) -> None:
    """They answer fast and look idle; what one has failed goes to one whose last call did not fail, if there is any."""

    async def main():
        seconds = {j: 0.02 if j in broken else 1.0 for j in range(3)}
        bench = Bench(3, OnArrival("least-finish"), seconds=lambda j: lambda request: seconds[j])
        async with bench:
            if well_before:
                await asyncio.gather(*(bench.ask(f"well{k}").answer() for k in range(6)))
            for j in broken:
                bench.fakes[j].mode = "500"
            lost, refused, tickets = [], [], []
            for k in range(60):
                try:
                    tickets.append(bench.ask(k))
                except ApiError as error:
                    refused.append(error.code)
                await asyncio.sleep(0.1)
            for ticket in tickets:
                try:
                    assert (await ticket.answer()).status == 200
                except ApiError as error:
                    lost.append(error.code)
            assert set(lost) == {"worker_failed"}
            assert len(lost) <= most
            states = [server.state for server in bench.service.snapshot().servers]
            assert all(state in ("open", "half-open") for state in states[: len(broken)])
            assert all(state == "ready" for state in states[len(broken) :])
            assert set(refused) == (set() if len(broken) < 3 else {"no_worker"})

    run(main())


@pytest.mark.parametrize(("deadline_s", "longest_s"), [(math.inf, 8.0), (15.0, 3.0)])
def test_a_second_try_waits_not_for_a_slow_worker_beside_idle_ones_that_failed_once(deadline_s, longest_s) -> None:
    """Two drop all they have once and are well again; the one that stays well takes 20 s for each request."""

    async def main():
        seconds = {0: 1.0, 1: 1.0, 2: 20.0}
        bench = Bench(3, seconds=lambda j: lambda request: seconds[j])
        async with bench:
            await asyncio.gather(*(bench.ask(f"well{k}").answer() for k in range(40)))
            loop = asyncio.get_running_loop()
            until_s = loop.time() + 0.4
            for j in (0, 1):
                bench.fakes[j].mode = lambda: "drops" if loop.time() < until_s else "well"
            opts = {} if math.isinf(deadline_s) else {"deadline_s": deadline_s}
            tickets = [bench.ask(k, **opts) for k in range(2)]
            assert {(await ticket.answer()).status for ticket in tickets} == {200}
            delays_s = sorted(e.delay_s for e in bench.of(events.Answered) if e.number in ("0", "1"))
            assert delays_s[0] < longest_s  # one is at the slow worker, where no deadline forbids that
            assert (delays_s[1] < longest_s) == math.isfinite(deadline_s)

    run(main())


def test_a_fault_that_is_forgiven_leaves_a_breaker_as_if_it_had_not_been() -> None:
    def after(*faults, forgiven=()):
        breaker = Breaker(3, 2.0, 60.0)
        for fault_s in faults:
            breaker.fault(fault_s)
        for fault_s in forgiven:
            breaker.forgive(fault_s)
        return breaker.in_a_row, breaker.openings, breaker.until_s

    assert after(0.0, 0.1, 0.2, 2.5, forgiven=[2.5]) == after(0.0, 0.1, 0.2) == (3, 1, 2.2)  # the one that tried
    assert after(0.0, 0.1, 0.2, 2.5, forgiven=[0.1]) == after(0.0, 0.2, 2.5)
    assert after(0.0, 0.1, 0.2, forgiven=[0.0, 0.2, 0.1]) == (0, 0, None)
    breaker = Breaker(3, 2.0, 60.0)
    breaker.fault(0.0)
    breaker.success()
    breaker.fault(1.0)
    breaker.forgive(0.0)  # which the answer had ended
    assert breaker.in_a_row == 1


def test_what_is_wrong_with_a_request_goes_to_its_client_and_is_no_fault_of_the_worker() -> None:
    async def main():
        bench = Bench(1)
        async with bench:
            bench.fakes[0].mode = "bad"
            assert (await bench.ask("r").answer()).status == 400
            assert bench.service.fleet.servers[0].breaker.in_a_row == 0

    run(main())


def test_a_full_queue_is_refused_with_a_time_to_come_back() -> None:
    async def main():
        bench = Bench(1, limits=Limits(queue=3))
        async with bench:
            tickets = [bench.ask(k) for k in range(2)]
            await asyncio.sleep(0.1)
            tickets += [bench.ask(k) for k in range(2, 4)]
            with pytest.raises(ApiError) as caught:
                [bench.ask(k) for k in range(4, 6)]
            assert caught.value.status == 429
            assert 1 <= caught.value.retry_after_s <= 60
            await asyncio.gather(*(ticket.answer() for ticket in tickets))

    run(main())


def test_a_client_that_goes_away_frees_the_queue_and_stops_its_worker() -> None:
    async def main():
        bench = Bench(1)
        async with bench:
            running, waiting, last = bench.ask("runs"), bench.ask("waits"), bench.ask("last")
            await asyncio.sleep(0.2)
            waiting.cancel()
            running.cancel()
            assert (await last.answer()).body == b"last"
            assert bench.fakes[0].cancelled == ["runs"]
            assert bench.fakes[0].begun == ["runs", "last"]
            assert [e.server for e in bench.of(events.Cancelled)] == [None, "w0"]
            gone = bench.ask("gone")
            gone.cancel()  # before anything could begin
            await asyncio.sleep(1)
            assert bench.service.fleet.account.outstanding.tolist() == [0]

    run(main())


def test_a_call_that_is_cancelled_before_it_began_leaves_the_account_empty() -> None:
    async def main():
        bench = Bench(1)
        async with bench:
            ticket = bench.ask("r")
            await ticket.started.wait()
            ticket.cancel()
            await asyncio.sleep(5)
            assert bench.service.fleet.account.outstanding.tolist() == [0]
            assert not bench.service.running
            assert (await bench.ask("next").answer()).status == 200

    run(main())


def test_a_repeated_key_joins_the_running_request_and_gets_the_answer_afterwards() -> None:
    async def main():
        bench = Bench(1, keep_s=60.0)
        async with bench:
            first, second = bench.ask("a", repeat_key="k", client="c"), bench.ask("b", repeat_key="k", client="c")
            other = bench.ask("o", repeat_key="k", client="d")
            first.cancel()  # the second still wants it
            assert (await second.answer()).body == b"a"
            assert (await bench.ask("late", repeat_key="k", client="c").answer()).body == b"a"
            assert (await other.answer()).body == b"o"
            with pytest.raises(ApiError, match="used for another"):
                bench.ask("x", repeat_key="k", client="c", body={"n": 2})
            await asyncio.sleep(100)
            assert (await bench.ask("new", repeat_key="k", client="c").answer()).body == b"new"

    run(main())


def test_a_failed_request_may_be_tried_again_under_its_key() -> None:
    async def main():
        bench = Bench(2)
        async with bench:
            for fake in bench.fakes.values():
                fake.mode = "drops"
            with pytest.raises(ApiError):
                await bench.ask("a", repeat_key="k").answer()
            for fake in bench.fakes.values():
                fake.mode = "well"
            assert (await bench.ask("b", repeat_key="k").answer()).body == b"b"

    run(main())


def test_deadlines_refuse_what_cannot_be_done_and_end_what_was_not() -> None:
    async def main():
        bench = Bench(1, first_s=5.0)
        async with bench:
            assert (await bench.ask("in time", deadline_s=1.2).answer()).status == 200  # 5 s are made up
            first = bench.ask("a")
            await asyncio.sleep(0.1)
            with pytest.raises(ApiError) as caught:
                bench.ask("too soon", deadline_s=1.5)
            assert caught.value.status == 504
            assert caught.value.again is False
            second, third = bench.ask("b"), bench.ask("c", deadline_s=2.0)
            with pytest.raises(ApiError, match="deadline passed"):
                await third.answer()
            await asyncio.gather(first.answer(), second.answer())
            assert bench.fakes[0].ended == ["in time", "a", "b"]

    run(main())


@pytest.mark.parametrize(("loads_s", "most_begun", "answered"), [(1e9, 18, 0), (60.0, 4, 180), (0.0, 0, 200)])
def test_deadlines_that_no_worker_meets_take_it_now_and_then_alone(loads_s, most_begun, answered) -> None:
    """A worker takes ten seconds for ever, until its model is loaded, or never; clients wait for five."""

    async def main():
        bench = Bench(1, OnArrival(), first_s=10.0)
        async with bench:
            now = asyncio.get_running_loop().time
            bench.fakes[0].seconds = lambda request: 10.0 if now() < loads_s else 1.0
            ends = Counter()

            async def one(k):
                try:
                    ends[(await bench.ask(k, deadline_s=5.0).answer()).status] += 1
                except ApiError as error:
                    ends[error.code] += 1

            tasks = []
            for k in range(200):
                tasks.append(asyncio.create_task(one(k)))
                await asyncio.sleep(6.0)
            await asyncio.gather(*tasks)
            begun = len(bench.fakes[0].begun) - ends[200]
            assert begun <= most_begun
            assert ends[200] >= answered
            assert ends.total() == ends[200] + ends["deadline"] == 200

    run(main())


class Odd:
    """A policy that does what it should not."""

    holds = True

    def __init__(self, how):
        self.how, self.asked = how, 0

    def begin(self, seed): ...

    def decide(self, moment):
        self.asked += 1
        if self.how == "raises":
            raise RuntimeError("no")
        if self.how == "nan":
            return Binding(float("nan"), 0)
        return Binding(7, 99) if self.how == "impossible" else None


@pytest.mark.parametrize("how", ["raises", "nan", "impossible"])
def test_a_policy_that_fails_is_not_followed_and_that_is_counted(how, caplog) -> None:
    async def main():  # in real time: the policy runs in a thread
        bench = Bench(2, Odd(how), seconds=lambda j: lambda request: 0.001, decide_s=30.0)
        async with bench:
            answers = await asyncio.gather(*(bench.ask(k).answer() for k in range(4)))
            assert all(a.status == 200 for a in answers)
        assert {e.why for e in bench.of(events.FellBack)} == {"raised" if how == "raises" else "impossible"}
        assert {e.by for e in bench.of(events.Bound)} == {"least-finish"}

    asyncio.run(main())
    said = [record.getMessage() for record in caplog.records if "raised" in record.getMessage()]
    assert len(said) == (how == "raises")
    assert all("policy raised RuntimeError: no (test_serving_service.py, line" in text for text in said)


def test_a_policy_that_sleeps_delays_nobody_for_longer_than_it_may() -> None:
    import threading

    wakes = threading.Event()

    class Sleeps(Odd):
        def decide(self, moment):
            wakes.wait(20)

    async def main():
        bench = Bench(2, Sleeps(""), seconds=lambda j: lambda request: 0.001, decide_s=0.05)
        async with bench:
            answers = await asyncio.wait_for(asyncio.gather(*(bench.ask(k).answer() for k in range(4))), 15)
            assert all(a.status == 200 for a in answers)
            wakes.set()
        assert {e.why for e in bench.of(events.FellBack)} == {"late"}

    asyncio.run(main())


def test_workers_are_added_drained_and_removed_while_it_runs() -> None:
    async def main():
        bench = Bench(2, OnArrival("least-outstanding"))
        async with bench:
            specs = [server.spec for server in bench.service.fleet.servers]
            running = [bench.ask(k) for k in range(2)]
            await asyncio.sleep(0.1)
            bench.service.replace_workers([specs[1], WorkerSpec("http://w2:1", "w2")])
            await asyncio.gather(*(ticket.answer() for ticket in running))
            await asyncio.gather(*(bench.ask(f"n{k}").answer() for k in range(4)))
            assert len(bench.fakes[0].ended) == 1
            assert len(bench.fakes[2].ended) >= 1
            bench.fakes[1].mode = "draining"
            await asyncio.sleep(3)
            before = len(bench.fakes[1].begun)
            await asyncio.gather(*(bench.ask(f"d{k}").answer() for k in range(4)))
            assert len(bench.fakes[1].begun) == before
            for k in range(5):  # places of the removed are used again
                bench.service.replace_workers([WorkerSpec(f"http://w{k + 3}:1", f"w{k + 3}")])
                await asyncio.sleep(5)
                assert (await bench.ask(f"e{k}").answer()).status == 200
            assert len(bench.service.fleet.servers) <= 4

    run(main())


def test_a_worker_of_the_same_address_keeps_what_is_known_of_it_whatever_is_said_of_it_now() -> None:
    async def main():
        bench = Bench(2, OnArrival("least-finish"), seconds=lambda j: lambda request: 4.0)
        async with bench:
            for j in range(2):
                for _ in range(40):
                    bench.service.fleet.costs.observe(j, 4.0)
            running = [bench.ask(k) for k in range(2)]
            await asyncio.sleep(1)
            before = bench.service.fleet.costs.expected_s("", None).tolist()
            upstream = bench.service.fleet.servers[0].upstream
            first = WorkerSpec("http://w0:1", "w0", slots=3, models=("sd3",), speed=7.0)
            second = WorkerSpec("http://w1:1", "w1 of old", api_key_env="KEY")
            connected = []
            connect = bench.service.fleet._connect
            bench.service.fleet._connect = lambda spec: connected.append(spec) or connect(WorkerSpec(spec.url, "w1"))
            bench.service.replace_workers([second, first])
            assert [s.spec for s in bench.service.fleet.servers] == [first, second]
            assert bench.service.fleet.costs.expected_s("", None).tolist() == before
            assert bench.service.fleet.account.outstanding.tolist() == [1, 1]
            assert bench.service.fleet.account.seats == [3, 1]
            assert bench.service.fleet.servers[0].upstream is upstream
            assert connected == [second]
            assert [(e.server, e.state) for e in bench.of(events.WorkerChanged)[2:]] == [
                ("w1", "removed"),
                ("w1 of old", "ready"),
            ]
            assert all([(await ticket.answer()).status == 200 for ticket in running])
            assert not bench.of(events.Retried)
            bench.service.replace_workers([first])
            bench.service.replace_workers([first, second])  # a line that lacked for a moment
            assert len(bench.service.fleet.servers) == 2
            assert bench.service.fleet.costs.expected_s("", None).tolist() == pytest.approx(before, rel=0.1)
            await asyncio.sleep(3)
            assert [s.state for s in bench.service.snapshot().servers] == ["ready", "ready"]

    run(main())


def test_a_worker_that_restarts_with_another_model_gets_no_requests_of_the_old_one() -> None:
    async def main():
        bench = Bench(2)
        bench.service.fleet.replace([WorkerSpec("http://w0:1", "w0"), WorkerSpec("http://w1:1", "w1")])
        for fake in bench.fakes.values():
            fake.models = ("sd3",)
        async with bench:
            assert bench.service.models() == ("sd3",)
            await bench.ask("a", body={"model": "sd3"}).answer()
            bench.fakes[0].models, bench.fakes[0].boot = ("flux",), "b1"
            await asyncio.sleep(3)
            before = len(bench.fakes[0].begun)
            await asyncio.gather(*(bench.ask(k, body={"model": "sd3"}).answer() for k in range(4)))
            assert len(bench.fakes[0].begun) == before
            with pytest.raises(ApiError) as caught:
                bench.ask("b", body={"model": "sdxl"})
            assert caught.value.status == 404
            assert caught.value.param == "model"

    run(main())


def test_foreign_work_on_a_worker_is_seen_and_requests_go_where_they_end_soonest() -> None:
    async def main():
        bench = Bench(2)
        async with bench:
            bench.fakes[0].extra = 3
            await asyncio.sleep(5)
            assert [s.foreign for s in bench.service.snapshot().servers] == [3, 0]
            await asyncio.gather(*(bench.ask(k).answer() for k in range(3)))
            assert {e.why for e in bench.of(events.FellBack)} == {"foreign-work"}
            bench.fakes[0].extra = 0
            await asyncio.sleep(3)
            bench.told.clear()
            await bench.ask("alone").answer()
            assert not bench.of(events.FellBack)

    run(main())


def test_two_dispatchers_of_the_same_workers_see_each_other_and_lose_and_double_nothing() -> None:
    async def main():
        generator = np.random.default_rng(0)
        seconds = {f"{who}{k}": float(generator.choice([2.0, 8.0])) for who in "ab" for k in range(80)}
        one = Bench(2, seconds=lambda j: lambda request: seconds[request.number])
        two = Bench(2, fakes=one.fakes)
        for fake in one.fakes.values():
            fake.counts = True
        seen = []

        async def ask(bench, number, at_s):
            await asyncio.sleep(at_s)
            foreign = [view.foreign for view in bench.service.snapshot().servers]
            seen.append((bench is one, max(foreign)))
            return (await bench.ask(number).answer()).body.decode()

        async with one, two:
            when = np.cumsum(generator.exponential(6.5, (2, 80)), axis=1).ravel()
            asked = [ask(one if x < "b" else two, x, at_s) for x, at_s in zip(seconds, when, strict=True)]
            assert sorted(await asyncio.gather(*asked)) == sorted(seconds)
            assert Counter(one.fakes[0].ended + one.fakes[1].ended) == Counter(list(seconds))
            for bench in (one, two):
                assert max(count for first, count in seen if first == (bench is one)) > 0
                assert {e.why for e in bench.of(events.FellBack)} == {"foreign-work"}
                assert {e.by for e in bench.of(events.Bound)} == {"policy", "least-finish"}
                assert len(bench.of(events.Answered)) == 80
                assert not bench.of(events.Retried)
                assert bench.service.fleet.account.outstanding.sum() == 0
            await asyncio.sleep(10)
            two.told.clear()  # the other one sends nothing any more, so this one holds again
            seconds.update({f"last {k}": 5.0 for k in range(6)})
            await asyncio.gather(*(two.ask(f"last {k}").answer() for k in range(6)))
            assert {e.by for e in two.of(events.Bound)} == {"policy"}

    run(main())


def test_a_worker_that_becomes_four_times_as_slow_is_noticed_within_some_forty_answers() -> None:
    async def main():
        slow = {0: 1.0, 1: 1.0}
        bench = Bench(2, OnArrival("least-finish"), seconds=lambda j: lambda request: slow[j])
        async with bench:
            for k in range(60):
                await bench.ask(k).answer()
            slow[0] = 4.0
            for k in range(60):
                await asyncio.gather(*(bench.ask(f"b{k}.{i}").answer() for i in range(2)))
            tail = bench.of(events.Bound)[-40:]
            assert Counter(e.server for e in tail)["w1"] >= 30

    run(main())


def test_one_client_cannot_keep_another_waiting_by_a_flood_of_small_requests() -> None:
    async def main():
        bench = Bench(1, seconds=lambda j: lambda request: request.steps / 10)
        small, large = {"size": "1000x1000", "num_inference_steps": 5}, {"size": "1000x1000", "num_inference_steps": 20}
        async with bench:
            for n in (5, 20):
                for _ in range(40):
                    bench.service.fleet.costs.observe(0, n / 10, size=n * 1.0)
            flood = [bench.ask(f"f{k}", body=small, client="flood") for k in range(100)]
            quiet = [bench.ask(f"q{k}", body=large, client="quiet") for k in range(2)]
            await asyncio.gather(*(ticket.answer() for ticket in quiet))
            done = sum(ticket._work.result.done() for ticket in flood)
            assert done < 15
            await asyncio.gather(*(ticket.answer() for ticket in flood))

    run(main())


def test_streams_are_passed_on_and_joined_and_a_failure_in_the_middle_is_not_tried_again() -> None:
    async def main():
        bench = Bench(2)
        pieces, late = [], []

        async def take(piece):
            pieces.append(piece)

        async def take_late(piece):
            late.append(piece)

        async with bench:
            ticket = bench.ask("a", body={"stream": True}, chunk=take, repeat_key="k")
            await asyncio.sleep(0.6)
            again = bench.ask("b", body={"stream": True}, chunk=take_late, repeat_key="k")
            await asyncio.gather(ticket.answer(), again.answer())
            assert pieces == late == [b"half"]
            for fake in bench.fakes.values():
                fake.mode = "drops late"
            with pytest.raises(ApiError, match="middle of the stream"):
                await bench.ask("c", body={"stream": True}, chunk=take).answer()

    run(main())


def test_a_client_that_reads_no_stream_holds_up_no_other_that_joined_it() -> None:
    async def main():
        bench = Bench(1)
        pieces = []

        async def stuck(piece):
            await asyncio.sleep(1e9)

        async def take(piece):
            pieces.append(piece)

        async with bench:
            first = bench.ask("a", body={"stream": True}, chunk=stuck, repeat_key="k")
            second = bench.ask("b", body={"stream": True}, chunk=take, repeat_key="k")
            assert (await second.answer()).status == 200
            assert pieces == [b"half"]
            first.cancel()

    run(main())


def test_the_queue_is_bounded_under_rules_that_bind_on_arrival_too() -> None:
    async def main():
        bench = Bench(2, OnArrival("least-finish"), limits=Limits(queue=3))
        async with bench:
            taken = []
            for k in range(5):
                taken.append(bench.ask(k))
                await asyncio.sleep(0.001)  # it is bound
            with pytest.raises(ApiError, match="queue is full"):
                bench.ask(5)
            await asyncio.gather(*(ticket.answer() for ticket in taken))

    run(main())


def test_workers_that_are_full_for_ever_are_said_to_be_so() -> None:
    async def main():
        bench = Bench(2, patience_s=10.0)
        async with bench:
            calls = Counter()

            def mode():
                calls["all"] += 1
                return "full"

            for fake in bench.fakes.values():
                fake.mode = mode
            with pytest.raises(ApiError) as caught:
                await bench.ask("r").answer()
            assert caught.value.status == 429
            assert 10 <= asyncio.get_running_loop().time() < 15
            assert calls["all"] < 50

    run(main())


def test_what_waited_at_a_worker_is_no_service_where_it_does_not_say_what_it_took() -> None:
    async def main():
        bench = Bench(2, OnArrival("least-outstanding"))
        for fake in bench.fakes.values():
            fake.tells = False
        async with bench:
            tickets = [bench.ask(k) for k in range(6)]
            await asyncio.sleep(0.5)
            tickets[0].cancel()
            await asyncio.gather(*(ticket.answer() for ticket in tickets[1:]))
            took = [e.service_s for e in bench.of(events.Answered)]
            assert took == pytest.approx([1.0] * 5)

    run(main())


def test_foreign_work_of_a_worker_that_died_or_went_is_forgotten() -> None:
    async def main():
        for ends in ("refuses", "removed"):
            bench = Bench(2)
            async with bench:
                bench.fakes[0].extra = 3
                await asyncio.sleep(5)
                if ends == "removed":
                    bench.service.replace_workers([bench.service.fleet.servers[1].spec])
                else:
                    bench.fakes[0].mode = ends
                await asyncio.sleep(10)
                bench.told.clear()
                await bench.ask("r").answer()
                assert not bench.of(events.FellBack)

    run(main())


def test_what_nobody_can_read_of_a_worker_keeps_no_service_from_starting(caplog) -> None:
    async def main():
        fakes = {0: Fake(WorkerSpec("http://w0:1", "w0"))}

        async def odd():
            return Health(True, slots="two")

        fakes[0].health = odd
        bench = Bench(2, OnArrival(), fakes=fakes)
        async with bench:
            assert (await bench.ask("r").answer()).status == 200

    run(main())
    assert "a look at w0 failed" in caplog.text


def test_a_listener_that_fails_stops_nobody() -> None:
    async def main():
        bench = Bench(1)

        def fails(event):
            raise OSError("full")

        bench.service.listeners.insert(0, fails)
        async with bench:
            assert (await bench.ask("r").answer()).status == 200
        assert bench.service.counts["ListenerFailed"] >= 3

    run(main())


def test_a_policy_may_answer_by_a_pair_and_one_that_waits_for_ever_is_overruled_when_nothing_runs() -> None:
    class Pair(Odd):
        def decide(self, moment):
            return (0, int(np.argmax(moment.free)))

    async def main(policy, by):
        bench = Bench(2, policy)
        bench.service.decider._thread = None  # in virtual time there are no threads
        async with bench:
            answers = await asyncio.gather(*(bench.ask(k).answer() for k in range(4)))
            assert all(a.status == 200 for a in answers)
        assert {e.by for e in bench.of(events.Bound)} == {by}

    run(main(Pair(""), "policy"))
    run(main(Odd("waits"), "least-finish"))


def test_a_fleet_that_changes_while_a_policy_thinks_gets_its_decision_anew() -> None:
    async def main():
        bench = Bench(2)
        for fake in bench.fakes.values():
            fake.models = ("sd3",)
        service = bench.service
        decide, changed = service.decider.decide, []

        async def slow(moment):
            decision = await decide(moment)
            if not changed:
                changed.append(True)
                service.replace_workers([service.fleet.servers[1].spec, WorkerSpec("http://w2:1", "w2")])
                bench.fakes[2].models = ("flux",)
                await asyncio.sleep(0.1)
            return decision

        service.decider.decide = slow
        async with bench:
            await asyncio.gather(*(bench.ask(k, body={"model": "sd3"}, client=str(k)).answer() for k in range(3)))
            assert not bench.fakes[2].begun
            assert not service.counts["BindingFailed"]

    run(main())


def test_a_deadline_is_not_held_against_workers_that_pause() -> None:
    async def main():
        bench = Bench(1)
        async with bench:
            bench.fakes[0].mode = "full"
            first = bench.ask("a")
            await asyncio.sleep(0.1)
            bench.fakes[0].mode = "well"
            second = bench.ask("b", deadline_s=60.0)
            assert (await first.answer()).status == (await second.answer()).status == 200

    run(main())


def test_a_worker_that_is_well_and_takes_nothing_ends_in_a_refusal() -> None:
    async def main():
        bench = Bench(1, patience_s=20.0)
        async with bench:

            async def unkeyed(request, *, timeout_s, chunk=None):
                raise UpstreamError("answered 401", reached=False)

            bench.fakes[0].call = unkeyed
            with pytest.raises(ApiError, match="no worker takes the request"):
                await asyncio.wait_for(bench.ask("a").answer(), 600)

    run(main())


def test_time_outs_teach_how_long_a_request_takes_at_least() -> None:
    async def main():
        bench = Bench(2, seconds=lambda j: lambda request: 150.0, first_s=1.0, call_s=30.0, call_times=3.0, faults=100)
        async with bench:
            ends = []
            for k in range(4):
                try:
                    ends.append((await bench.ask(k).answer()).status)
                except ApiError:
                    ends.append(None)
            assert ends[0] is None
            assert ends[-1] == 200

    run(main())


def test_a_worker_that_hangs_under_deadlines_is_found_faulty() -> None:
    async def main():
        bench = Bench(1, faults=2)
        async with bench:
            await bench.ask("well").answer()

            async def hangs(request, *, timeout_s, chunk=None):
                await asyncio.sleep(timeout_s)
                raise UpstreamError("did not answer in time", reached=True, late=True)

            bench.fakes[0].call = hangs
            for k in range(2):
                with pytest.raises(ApiError):
                    await bench.ask(k, deadline_s=20.0).answer()
            assert bench.service.fleet.servers[0].breaker.state(asyncio.get_running_loop().time()) != "closed"

    run(main())


def test_keys_join_only_what_is_equal_and_keep_no_bodies() -> None:
    from diffpolicy.edge.serving.image_request import SentFile

    def edit(*files):
        return ImageRequest.parse({"prompt": "x"}, "r", files=files)

    image, mask = SentFile("image", "a.png", "image/png", b"A"), SentFile("mask", "a.png", "image/png", b"B")
    other = SentFile("mask", "a.png", "image/png", b"A"), SentFile("image", "a.png", "image/png", b"B")
    assert edit(image, mask).digest != edit(*other).digest
    one = SentFile("image", "a", "b", b"AB"), SentFile("image", "a", "b", b"C")
    two = SentFile("image", "a", "b", b"A"), SentFile("image", "a", "b", b"BC")
    assert edit(*one).digest != edit(*two).digest

    async def main():
        bench = Bench(1)
        async with bench:
            ticket = bench.ask("a", repeat_key="k", body={"image": "x" * 10_000})
            await ticket.answer()
            await asyncio.sleep(0.1)
            assert not ticket._work.request.body
            assert (await bench.ask("b", repeat_key="k", body={"image": "x" * 10_000}).answer()).body == b"a"

    run(main())


def test_several_images_without_a_size_count_as_so_many() -> None:
    async def main():
        bench = Bench(1, seconds=lambda j: lambda request: 1.0 * request.images)
        async with bench:
            for n in (1, 2, 3):
                await bench.ask(f"n{n}", body={"n": n}).answer()
            await bench.ask("ten", body={"n": 10}).answer()
            assert bench.of(events.Bound)[-1].expected_s == pytest.approx(10.0, rel=0.05)

    run(main())


def test_a_rule_that_holds_and_one_that_does_not_take_turns_on_trial() -> None:
    async def main():
        generator = np.random.default_rng(0)
        service_s = generator.choice([0.2, 4.0], 1500)
        bench = Bench(
            2,
            make_held("shortest-first:cap=6"),
            seconds=lambda j: lambda request: float(request.steps) / 10,
            otherwise=OnArrival("least-finish"),
            share=0.5,
            turn_s=60.0,
        )
        async with bench:
            tickets = []
            for k, seconds in enumerate(service_s):
                body = {"size": "1000x1000", "num_inference_steps": int(seconds * 10)}
                tickets.append(bench.ask(k, body=body))
                await asyncio.sleep(generator.exponential(1.25))
            await asyncio.gather(*(ticket.answer() for ticket in tickets))
            assert bench.service.trial.share == 0.5  # the better rule is not rolled back
            sides = bench.service.snapshot().trial
            assert sides["policy"].slowdown < sides["other"].slowdown
            assert min(side.answers for side in sides.values()) > 5  # turns
            assert {e.by for e in bench.of(events.Bound)} == {"policy", "least-finish"}

    run(main())


def test_it_drains_before_it_stops_and_gives_up_what_takes_too_long() -> None:
    async def main():
        bench = Bench(1)
        await bench.service.start()
        tickets = [bench.ask(k) for k in range(3)]
        await asyncio.sleep(0.1)
        stopping = asyncio.create_task(bench.service.stop(1.5))
        await asyncio.sleep(0.1)
        with pytest.raises(ApiError, match="being stopped"):
            bench.ask("late")
        await stopping
        assert (await tickets[0].answer()).status == 200
        with pytest.raises(ApiError, match="being stopped"):
            await tickets[2].answer()

    run(main())


def test_a_policy_on_trial_decides_on_its_share_and_is_rolled_back_when_it_is_worse() -> None:
    async def main():
        speed = {0: 1.0, 1: 10.0}
        policy = OnArrival(lambda moment: -moment.service_s[0])
        bench = Bench(2, policy, seconds=lambda j: lambda request: speed[j], otherwise=OnArrival(), share=0.3)
        bench.service.decider._thread = None  # in virtual time there are no threads
        async with bench:
            for j in range(2):
                for _ in range(40):
                    bench.service.fleet.costs.observe(j, speed[j])
            tickets = []
            for k in range(300):
                tickets.append(bench.ask(k))
                await asyncio.sleep(20.0)  # none waits: what is worse is the worker that the policy takes
            await asyncio.gather(*(ticket.answer() for ticket in tickets))
            assert bench.service.trial.share == 0.0
            assert [e.why for e in bench.of(events.FellBack)] == ["rolled-back"]
            share = Counter(e.by for e in bench.of(events.Bound))
            assert share["policy"] <= 12

    run(main())


@pytest.mark.parametrize("how", ["fails", "leaves"])
def test_a_trial_that_ends_without_an_answer_tells_so(how, caplog) -> None:
    async def main():
        async with Bench(1, OnArrival(), otherwise=OnArrival(), share=0.5) as bench:
            for j, arm in enumerate([False] * 50 + [True] * 60):
                work = bench.service._work(ImageRequest.parse({"prompt": "x"}, f"r{j}"), bench.service.clock(), arm)
                if not arm:
                    ending.answered(bench.service, work, 1.0, 1.0 + j % 5)
                elif how == "fails":
                    ending.failed(bench.service, work, "w0", ApiError(502, "no"))
                else:
                    work.arrived_s -= 30.0
                    ending.dropped(bench.service, work)
            assert bench.service.trial.share == 0.0
            assert [e.why for e in bench.of(events.FellBack)] == ["rolled-back"]

    run(main())
    (told,) = [r.getMessage() for r in caplog.records if "taken back" in r.getMessage()]
    slower = {"fails": "20", "leaves": "30"}[how]
    assert told == (
        f"the share of policy is taken back: its mean delay was {slower} times what its requests take alone, that of "
        "least-finish 3 times; least-finish decides on all from now on"
    )


def test_a_policy_in_the_shadow_is_asked_and_not_followed() -> None:
    async def main():
        policy = OnArrival(lambda moment: -moment.service_s[0])
        bench = Bench(2, policy, seconds=lambda j: lambda request: 1.0 + j, otherwise=OnArrival(), shadow=True)
        bench.service.decider._thread = None
        async with bench:
            for j in range(2):
                for _ in range(40):
                    bench.service.fleet.costs.observe(j, 1.0 + j)
            await bench.ask("a").answer()
            bound, shadowed = bench.of(events.Bound)[0], bench.of(events.Shadowed)[0]
            assert (bound.server, bound.by) == ("w0", "least-finish")
            assert (shadowed.number, shadowed.would) == ("a", "a to w1")

    run(main())


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_each_request_ends_once_and_the_account_ends_empty(seed) -> None:
    async def main():
        dice = random.Random(seed)
        bench = Bench(
            4,
            OnArrival(seed=seed) if seed % 2 else make_held("shortest-first:cap=4"),
            seconds=lambda j: lambda request: 0.5 + (int(request.number) % 7) / 4,
            call_s=20.0,
            patience_s=30.0,
        )
        ends = Counter()
        async with bench:

            async def mischief():
                while True:
                    await asyncio.sleep(dice.uniform(0.2, 3))
                    fake = bench.fakes[dice.randrange(4)]
                    fake.mode = dice.choice(["well", "well", "refuses", "drops", "500", "full", "hangs", "draining"])

            trouble = asyncio.create_task(mischief())

            async def one(k):
                await asyncio.sleep(dice.uniform(0, 45))
                try:
                    ticket = bench.ask(k, repeat_key=f"k{k % 50}" if k % 3 else None, client=str(k % 4))
                except ApiError as error:
                    ends[error.code] += 1
                    return
                if dice.random() < 0.1:
                    await asyncio.sleep(dice.uniform(0, 2))
                    ticket.cancel()
                    ends["gone"] += 1
                    return
                try:
                    answer = await asyncio.wait_for(ticket.answer(), 3000)
                    ends[answer.status] += 1
                except ApiError as error:
                    ends[error.code] += 1

            await asyncio.gather(*(one(k) for k in range(150)))
            trouble.cancel()
            await asyncio.gather(trouble, return_exceptions=True)
            await until(lambda: not bench.service.running and not bench.service.waiting)
            assert bench.service.fleet.account.outstanding.sum() == 0
        assert ends.total() == 150
        numbers = Counter(
            e.number for e in bench.told if isinstance(e, (events.Answered, events.Failed, events.Cancelled))
        )
        assert set(numbers.values()) == {1}
        assert set(numbers) == {e.number for e in bench.of(events.Arrived)}

    run(main())


@pytest.mark.parametrize("each", [200, pytest.param(2500, marks=pytest.mark.slow)])
def test_requests_leave_nothing_in_memory(each) -> None:
    """In the slow case ten thousand of them."""

    async def main():
        bench = Bench(3, keep=8)
        objects = []
        async with bench:
            bench.service.listeners.clear()
            for block in range(4):
                for start in range(0, each, 25):
                    keys = [f"{block}.{start}.{k}" for k in range(25)]
                    await asyncio.gather(*(bench.ask(key, repeat_key=key, client=key).answer() for key in keys))
                for fake in bench.fakes.values():
                    fake.begun.clear()
                    fake.ended.clear()
                gc.collect()
                objects.append(len(gc.get_objects()))
        return objects

    objects = run(main())
    assert max(objects[1:]) - min(objects[1:]) < 100, objects


def test_the_dispatcher_of_rules_loads_no_torch() -> None:
    import subprocess

    code = (
        "import sys, diffpolicy.edge.serving.service, diffpolicy.edge.dispatch.named; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0
