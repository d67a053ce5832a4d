"""Adapters to other engines: a load balancer of vLLM-Omni, and deployments and routers of Ray Serve."""

import asyncio
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace as Of

import numpy as np
import pytest

from diffpolicy import InputError
from diffpolicy.edge.serving import ImageRequest, UpstreamError
from diffpolicy.edge.serving.load_balancer import PolicyBalancer
from diffpolicy.edge.serving.ray_upstream import RayUpstream

EXAMPLE = Path(__file__).parents[1] / "examples" / "serving" / "on_ray.py"


def task(steps):
    """As vLLM-Omni has it: a dictionary."""
    return {"request_id": "r", "sampling_params": Of(width=1000, height=1000, num_inference_steps=steps)}


def test_a_balancer_sends_each_task_where_it_ends_soonest_and_forgets_what_is_over() -> None:
    now = [0.0]
    balancer = PolicyBalancer("least-finish", speeds=[10.0, 4.9], clock=lambda: now[0])
    replicas = [Of(), Of()]
    assert [balancer.select(task(20), replicas) for _ in range(4)] == [0, 0, 1, 0]  # ends at 2, 4, 4.1, 6
    now[0] = 5.9
    assert balancer.select(task(20), replicas) == 0  # 2.1 s there, 4.1 s on the other, which is free


def test_a_balancer_keeps_a_task_that_its_replica_says_it_has_still() -> None:
    now = [0.0]
    balancer = PolicyBalancer("least-finish", speeds=[10.0, 9.0], clock=lambda: now[0])
    assert balancer.select(task(20), [Of(queue_length=0), Of(queue_length=0)]) == 0
    now[0] = 50.0
    assert balancer.select(task(20), [Of(queue_length=1), Of(queue_length=0)]) in (0, 1)
    assert len(balancer._account.servers[0]) >= 1
    with pytest.raises(InputError, match="2 speeds and 1 replicas"):
        balancer.select(task(20), [Of()])
    balancer = PolicyBalancer("least-outstanding", speeds={"a": 10.0, "b": 5.0, "c": 5.0}, clock=lambda: now[0])
    a, b, c = (Of(input_addr=name, queue_length=9) for name in "abc")
    assert [balancer.select(task(20), [a]) for _ in range(2)] == [0, 0]
    assert [balancer.select(task(20), [b, a]) for _ in range(1)] == [0]
    assert [balancer.select(task(20), [a, b, c]) for _ in range(1)] == [2]  # 2 and 1 outstanding, and none
    with pytest.raises(InputError, match="speeds has none for replica d"):
        balancer.select(task(20), [a, Of(input_addr="d")])
    with pytest.raises(InputError, match="speeds must be"):
        PolicyBalancer(speeds=[])


def test_a_balancer_reads_sizes_from_dictionaries_too_and_names_what_is_no_number() -> None:
    small = {"width": 64, "height": np.int64(500), "num_inference_steps": 1, "num_outputs_per_prompt": None}
    for params, size in ((small, 0.032), (Of(**small), 0.032), (None, 26.2144), ({}, 26.2144)):
        balancer = PolicyBalancer(speeds=np.array([1.0], np.float32))
        balancer.select({"sampling_params": params}, [Of()])
        assert balancer._account.outstanding_cost.tolist() == pytest.approx([size])
    for task in ({}, None):
        balancer.select(task, [Of()])
    assert balancer._account.outstanding_cost.tolist() == pytest.approx([3 * 26.2144])
    for width in ("64", float("nan"), -1, [64]):
        with pytest.raises(InputError, match=r"sampling_params\.width must be"):
            balancer.select({"sampling_params": {"width": width}}, [Of()])
    assert balancer._account.outstanding.tolist() == [3]
    wrong = {
        "speeds must be one number": (5, "12", {}, None, np.array(1.0)),
        r"speeds\[0\] must be": (["x"], [[1, 2], [3, 4]], [0.0], [float("inf")], np.ones((2, 2)), [True]),
        r"speeds\['a'\] must be": ({"a": "x"},),
    }
    for match, speeds in ((match, given) for match, all_ in wrong.items() for given in all_):
        with pytest.raises(InputError, match=match):
            PolicyBalancer(speeds=speeds)


class Handle:
    """A deployment's handle that does as it is told."""

    def __init__(self, how):
        self.how, self.cancelled = how, False

    def remote(self, body):
        outer = self

        class Response:
            def __await__(self):
                async def answer():
                    if outer.how == "raises":
                        raise ValueError("no")
                    await asyncio.sleep(60 if outer.how == "sleeps" else 0)
                    return {"data": [], "asked": body["n"]}

                return answer().__await__()

            def cancel(self):
                outer.cancelled = True

        return Response()


def test_a_deployment_of_ray_is_a_worker_whose_calls_end_in_time() -> None:
    request = ImageRequest.parse({"prompt": "x", "n": 2}, "r")
    answer = asyncio.run(RayUpstream(Handle("answers")).call(request, timeout_s=5))
    assert json.loads(answer.body)["asked"] == 2
    pieces: list[bytes] = []

    async def chunk(piece: bytes) -> None:
        pieces.append(piece)

    stream = ImageRequest.parse({"prompt": "x", "n": 2, "stream": True}, "r")
    whole = asyncio.run(RayUpstream(Handle("answers")).call(stream, timeout_s=5, chunk=chunk))
    # of JSON amid a stream no client reads anything, so it is for who answers the client to make events of it
    assert (pieces, whole) == ([], answer)
    with pytest.raises(UpstreamError, match="failed: ValueError"):
        asyncio.run(RayUpstream(Handle("raises")).call(request, timeout_s=5))
    slow = Handle("sleeps")
    with pytest.raises(UpstreamError) as caught:
        asyncio.run(RayUpstream(slow).call(request, timeout_s=0.05))
    assert caught.value.late
    assert slow.cancelled


@pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra ray")
@pytest.mark.parametrize("ends_first", [True, False])
def test_the_router_learns_from_answers_alone(ends_first, monkeypatch) -> None:
    from diffpolicy.edge.serving import ray_router

    now = [0.0]
    monkeypatch.setattr(ray_router, "time", Of(monotonic=lambda: now[0]))
    router = object.__new__(ray_router.PolicyRouter)
    router.initialize_state(first_s=5.0)

    class Result:
        def __init__(self):
            self.value = asyncio.get_running_loop().create_future()

        async def to_object_ref_async(self):
            return self.value

    async def play(number, seconds, error=None):
        result = Result()
        pending = Of(args=[{"num_inference_steps": 10, "size": "1000x1000"}], metadata=Of(internal_request_id=number))
        router.on_request_routed(pending, Of(unique_id="a"), result)
        now[0] += seconds
        for end in (True, False) if ends_first else (False, True):
            if end:
                router.on_request_completed(Of(unique_id="a"), number)
            elif error is None:
                result.value.set_result({})
            else:
                result.value.set_exception(error)
            await asyncio.sleep(0.001)

    def expected():
        return router._costs.expected_s("", 10.0)[0]

    asyncio.run(play("r1", 2.0))
    assert expected() == pytest.approx(2.0)
    asyncio.run(play("r2", 0.01, ValueError("no")))
    assert expected() == pytest.approx(2.0)
    assert not router._sent
    assert router._account.outstanding.tolist() == [0]


@pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra ray")
def test_the_router_numbers_requests_and_gives_the_places_of_replicas_that_went_to_others(monkeypatch) -> None:
    from diffpolicy.edge.serving import ray_router

    seen, replicas = [], [Of(replica_id=Of(unique_id=name)) for name in "abc"]
    router = object.__new__(ray_router.PolicyRouter)
    router.initialize_state(policy="power-of-two")
    monkeypatch.setattr(router._policy, "decide", lambda moment: seen.append(moment))
    monkeypatch.setattr(ray_router.RequestRouter, "update_replicas", lambda self, replicas: None)

    def pending(number):
        return Of(args=[], metadata=Of(internal_request_id=number))

    async def play():
        for number in ("r1", "r2", "r1"):  # Ray asks again where a replica was full
            await router.choose_replicas(replicas[:2], pending(number))
        router.on_request_routed(pending("r1"), replicas[0].replica_id, Of())
        router.update_replicas(replicas[1:])
        await router.choose_replicas(replicas[1:], pending("r3"))
        router.on_request_completed(replicas[0].replica_id, "r1")
        router.update_replicas(replicas[:2])
        await router.choose_replicas(replicas[:2], pending("r4"))

    asyncio.run(play())
    assert [int(moment.number[0]) for moment in seen] == [0, 1, 0, 2, 3]
    assert [len(moment.starts_s) for moment in seen] == [2, 2, 2, 3, 3]  # what a left had still to do, kept its place
    assert router._places == {"b": 1, "a": 0}
    assert "r1" not in router._numbers


@pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra ray")
def test_the_router_learns_nothing_of_a_new_replica_from_the_one_whose_place_it_has(monkeypatch) -> None:
    from diffpolicy.edge.serving import ray_router

    now = [0.0]
    monkeypatch.setattr(ray_router, "time", Of(monotonic=lambda: now[0]))
    monkeypatch.setattr(ray_router.RequestRouter, "update_replicas", lambda self, replicas: None)
    router = object.__new__(ray_router.PolicyRouter)
    router.initialize_state(first_s=5.0)
    old, new = (Of(replica_id=Of(unique_id=name)) for name in ("old", "new"))

    async def play():
        value = asyncio.get_running_loop().create_future()

        async def reference():
            return value

        pending = Of(args=[{"num_inference_steps": 10}], metadata=Of(internal_request_id="r"))
        router.on_request_routed(pending, old.replica_id, Of(to_object_ref_async=reference))
        now[0] = 40.0
        router.on_request_completed(old.replica_id, "r")
        router.update_replicas([new])
        await router.choose_replicas([new], pending)
        value.set_result({})
        await asyncio.sleep(0.001)

    asyncio.run(play())
    assert router._places == {"new": 0}
    assert router._costs.expected_s("", 10.0)[0] == 5.0


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra ray")
def test_on_ray_the_router_and_the_ingress_beat_power_of_two() -> None:
    """A minute and 1.3 GB: the example deploys three replicas of unlike speed three times, on the same arrivals."""
    done = subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True, timeout=300, check=True)
    means = {
        line.split(" {")[0]: json.loads("{" + line.split(" {", 1)[1])["mean_ms"]
        for line in done.stdout.splitlines()
        if "mean_ms" in line
    }
    assert means["PolicyRouter"] < means["Ray's power of two"]
    assert means["ingress that holds"] < means["Ray's power of two"]
