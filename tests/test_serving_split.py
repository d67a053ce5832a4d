"""Requests of several images that are sent image by image, in virtual time."""

import asyncio
import json

import numpy as np
import pytest

pytest.importorskip("prometheus_client")

from diffpolicy.edge.dispatch import Arrivals, OnArrival, RequestLog, advise, make_held, simulate
from diffpolicy.edge.serving import events, split
from diffpolicy.edge.serving.api.metrics import Metrics
from diffpolicy.edge.serving.api.recorder import RequestRecorder
from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.image_request import ImageRequest
from diffpolicy.edge.serving.upstream import Answer
from test_serving_service import Bench
from virtual_time import run


def images(request):
    told = {"b64_json": f"{request.number}/{request.body.get('seed')}/{request.body['n']}"}
    usage = {"total_tokens": 10, "details": {"text_tokens": 2}}
    return json.dumps({"created": 5, "data": [told] * request.images, "usage": usage}).encode()


def bench(workers, policy=None, **more):
    made = Bench(workers, policy, split=True, **more)
    for fake in made.fakes.values():
        fake.body = images
    return made


def told(answer):
    return [image["b64_json"] for image in json.loads(answer.body)["data"]]


def test_images_run_on_all_workers_at_once_and_come_back_in_order_as_one_answer() -> None:
    async def main():
        one = bench(2, seconds=lambda j: lambda request: 1.0 + j)
        async with one:
            for j in range(2):
                for _ in range(40):
                    one.service.fleet.costs.observe(j, 1.0 + j)
            ticket = one.ask("r", body={"n": 4, "seed": 7})
            await asyncio.sleep(2.5)  # two of three images of the first are here, and one of the other is
            part = ImageRequest.parse({"prompt": "x", "n": 1, "seed": 7}, "r.1")
            assert one.service.room.held == 3 * len(images(part))
            answer = await ticket.answer()
            assert one.service.room.held == 0
            assert told(answer) == [f"r.{k + 1}/{7 + k}/1" for k in range(4)]
            said = json.loads(answer.body)
            assert (said["created"], said["usage"]) == (5, {"total_tokens": 40, "details": {"text_tokens": 8}})
            assert asyncio.get_running_loop().time() == pytest.approx(3.0)  # 1, 2, 3 on one and 2 on the other
            assert {len(fake.ended) for fake in one.fakes.values()} == {1, 3}

    run(main())


def test_it_is_what_the_simulator_does_with_the_same_requests_split(tmp_path) -> None:
    """And what log, metrics and advice tell is of whole requests."""
    count, generator = 100, np.random.default_rng(0)
    arrival = np.cumsum(generator.exponential(1.2, count))
    steps, parts = generator.choice([5, 11, 37], count), generator.choice([1, 2, 4], count)
    speed = np.array([1.7, 1.0])  # so that no two parts end at once
    service_s = parts[:, None] * steps[:, None] / 20 / speed
    policy = "shortest-first:cap=3,price=none"
    expected = simulate(Arrivals(arrival, service_s).split(parts), make_held(policy)).request_delay_s

    async def main():
        one = bench(2, make_held(policy), seconds=lambda j: lambda request: request.steps / 20 / speed[j])
        delay, metrics = np.zeros(count), Metrics(one.service.snapshot)
        recorder = RequestRecorder(tmp_path / "log.csv", now_s=0.0)
        one.service.listeners += [recorder, metrics]
        async with one:
            for j in range(2):
                for n in (5, 11, 37):
                    for _ in range(40):
                        one.service.fleet.costs.observe(j, n / 20 / speed[j], size=n * 1.0)
            begun = asyncio.get_running_loop().time()

            async def ask(k):
                await asyncio.sleep(begun + arrival[k] - asyncio.get_running_loop().time())
                body = {"size": "1000x1000", "num_inference_steps": int(steps[k]), "n": int(parts[k])}
                await one.ask(k, body=body).answer()
                delay[k] = asyncio.get_running_loop().time() - begun - arrival[k]

            await asyncio.gather(*(ask(k) for k in range(count)))
        sums = [metrics.registry.get_sample_value(f"diffpolicy_whole_request_seconds_{x}") for x in ("count", "sum")]
        assert sums == [(parts > 1).sum(), pytest.approx(delay[parts > 1].sum())]
        recorder.close()
        return delay

    np.testing.assert_allclose(run(main()), expected, atol=1e-6)
    log = RequestLog.read(tmp_path / "log.csv")
    np.testing.assert_allclose(log.request_delay_s, expected, atol=1e-5)
    advice = advise(log)
    assert (advice.requests, advice.more_parts) == (count, parts.sum() - count)
    assert advice.recorded_mean_s == pytest.approx(expected.mean())
    assert f"sent in {parts.sum()} parts" in advice.table()


def test_a_part_that_fails_is_tried_again_alone_and_one_that_cannot_be_done_ends_all() -> None:
    async def main():
        one = bench(3)
        async with one:
            modes = iter(["drops"])
            for fake in one.fakes.values():
                fake.mode = lambda: next(modes, "well")
            await asyncio.sleep(0.1)
            answer = await one.ask("r", body={"n": 3}).answer()
            assert [text.split("/")[0] for text in told(answer)] == ["r.1", "r.2", "r.3"]
            assert len(one.of(events.Retried)) <= 1
            assert sum(len(fake.ended) for fake in one.fakes.values()) == 3
            one.fakes[0].mode = one.fakes[1].mode = one.fakes[2].mode = "bad"
            assert (await one.ask("wrong", body={"n": 3}).answer()).status == 400
            for fake in one.fakes.values():
                fake.mode = "drops"
            with pytest.raises(ApiError, match="two workers failed"):
                await one.ask("lost", body={"n": 3}).answer()
            await asyncio.sleep(0.01)  # calls that were cancelled end
            assert not one.service.waiting
            assert one.service.fleet.account.outstanding.sum() == 0
        ended = {e.number for e in one.told if isinstance(e, (events.Answered, events.Failed, events.Cancelled))}
        assert ended == {e.number for e in one.of(events.Arrived)}

    run(main())


def test_a_client_that_goes_away_stops_all_parts_unless_another_joined_it() -> None:
    async def main():
        one = bench(2)
        async with one:
            first = one.ask("a", body={"n": 4}, repeat_key="k")
            await asyncio.sleep(0.2)
            second = one.ask("b", body={"n": 4}, repeat_key="k")
            assert second.started.is_set()
            first.cancel()
            assert len(told(await second.answer())) == 4
            assert told(await one.ask("late", body={"n": 4}, repeat_key="k").answer())[0].startswith("a.1/")
            gone = one.ask("gone", body={"n": 4}, repeat_key="g")
            await asyncio.sleep(0.2)
            gone.cancel()
            again = one.ask("again", body={"n": 4}, repeat_key="g")  # joins nothing that has ended
            assert again.number == "again"
            again.cancel()
            await asyncio.sleep(0.1)
            assert len(one.of(events.Cancelled)) == 8
            assert sum(len(fake.cancelled) for fake in one.fakes.values()) == 2
            assert one.service.fleet.account.outstanding.sum() == len(one.service.waiting) == 0

    run(main())


def test_streams_single_images_and_workers_of_several_seats_are_not_split() -> None:
    async def main():
        one = bench(2)
        async with one:

            async def take(piece): ...

            await one.ask("stream", body={"n": 2, "stream": True}, chunk=take).answer()
            await one.ask("single", body={"n": 1}).answer()
            one.service.fleet.servers[1].spec = one.service.fleet.servers[1].spec.__class__(
                "http://w1:1", "w1", slots=2
            )
            await one.ask("batch", body={"n": 2}).answer()
            assert [e.number for e in one.of(events.Arrived)] == ["stream", "single", "batch"]

    run(main())


def test_the_deadline_is_that_of_the_whole_and_parts_count_as_they_would_run() -> None:
    async def main():
        one = bench(2, OnArrival("least-finish"))
        async with one:
            assert len(told(await one.ask("in time", body={"n": 4}, deadline_s=2.1).answer())) == 4
            with pytest.raises(ApiError, match="earliest end is in 2 s"):
                one.ask("late", body={"n": 4}, deadline_s=1.9)
            for fake in one.fakes.values():
                fake.seconds = lambda request: 5.0
            with pytest.raises(ApiError, match="deadline passed"):
                await one.ask("slow", body={"n": 4}, deadline_s=3.0).answer()
            assert not one.service.waiting
            assert not one.service.running

    run(main())


def test_what_holds_no_images_is_said_to_hold_none() -> None:
    async def main():
        one = bench(2)
        async with one:
            one.fakes[1].body = lambda request: b"{}"
            with pytest.raises(ApiError, match="holds no images"):
                await one.ask("r", body={"n": 2}).answer()

    run(main())


def test_usage_beyond_measure_is_as_the_first_says_it_and_the_time_is_a_number() -> None:
    def deep(levels):
        return {"a": deep(levels - 1)} if levels else 1

    def answer(usage):
        return Answer(200, {}, json.dumps({"created": None, "data": [{"url": "a"}], "usage": usage}).encode())

    def summed(*usages):
        return json.loads(split.joined([answer(usage) for usage in usages]).body)["usage"]

    assert json.loads(split.joined([answer(1), answer(2)]).body)["created"] > 1e9
    huge = Answer(200, {}, b'{"created": 1%s, "data": [{"url": "a"}]}' % (b"0" * 400))
    assert 1e9 < json.loads(split.joined([huge, huge]).body)["created"] < 1e15
    assert summed({"t": 10**400, "u": 1}, {"t": 1.5, "u": 2}) == {"t": 10**400, "u": 3}
    assert summed({"t": 1.5}, {"t": 10**400}) == {"t": 1.5}
    assert summed(deep(7), deep(7)) == {"a": {"a": {"a": {"a": {"a": {"a": {"a": 2}}}}}}}
    assert summed(deep(300), deep(300)) == deep(300)


def test_answers_that_cannot_be_put_together_end_the_request_and_free_its_key(monkeypatch) -> None:
    def joined(answers):
        raise RecursionError

    async def main():
        one = bench(2)
        async with one:
            with monkeypatch.context() as patch:
                patch.setattr(split, "joined", joined)
                with pytest.raises(ApiError, match="cannot be put together") as caught:
                    await asyncio.wait_for(one.ask("a", body={"n": 2}, repeat_key="k").answer(), 60)
            assert caught.value.status == 502
            await asyncio.sleep(0.01)
            again = one.ask("b", body={"n": 2}, repeat_key="k")
            assert again.number == "b"
            assert (await again.answer()).status == 200

    run(main())
