"""What is done first when a worker is free, in virtual time: the next request is sent before anything else."""

import asyncio
import json

import httpx

from diffpolicy.edge.dispatch.held import Held
from diffpolicy.edge.dispatch.moment import Binding
from diffpolicy.edge.serving import headers
from diffpolicy.edge.serving.http_upstream import HttpUpstream
from diffpolicy.edge.serving.image_request import GENERATIONS, ImageRequest
from diffpolicy.edge.serving.service import Service
from diffpolicy.edge.serving.upstream import Answer, Health
from diffpolicy.edge.serving.worker_spec import WorkerSpec
from virtual_time import run

PICTURE = json.dumps({"data": [{"b64_json": "aW1hZ2U="}]}).encode()


class FirstCome:
    """Sends the longest waiting request to a free worker, and notes that it was asked."""

    holds = True

    def __init__(self, log):
        self.log = log

    def begin(self, seed): ...

    def decide(self, moment):
        self.log.append("decides")
        pairs = moment.feasible.nonzero()
        return Binding(int(pairs[0][0]), int(pairs[1][0]))


async def answers(service, numbers):
    """Submits requests at once, and waits for their answers."""
    tickets = [service.submit(ImageRequest.parse({"prompt": "a cat"}, number)) for number in numbers]
    return [(await ticket.answer()).body for ticket in tickets]


def test_the_next_request_is_sent_when_a_head_says_that_the_worker_is_free_before_its_pictures_are_read():
    log = []

    async def main():
        async def pieces(number):
            log.append(f"reads {number}")
            yield PICTURE

        async def worker(got):
            if got.url.path != GENERATIONS:
                return httpx.Response(200, json={"status": "ready"} if got.url.path == "/health" else {})
            number = got.headers[headers.REQUEST_ID]
            log.append(f"sent {number}")
            await asyncio.sleep(1.0)
            log.append(f"head {number}")
            return httpx.Response(200, content=pieces(number), headers={headers.SERVICE_S: "1.0"})

        def connect(spec):
            return HttpUpstream(spec, transport=httpx.MockTransport(worker))

        # a policy of somebody else's would decide in a thread, which takes more turns than can be told
        service = Service([WorkerSpec("http://w0:1")], connect, Held())
        await service.start()
        assert await answers(service, "abc") == 3 * [PICTURE]
        await service.stop()

    run(main())
    assert log == [
        *("sent a", "head a", "sent b", "reads a", "head b", "sent c", "reads b", "head c", "reads c"),
    ]


def test_a_request_is_sent_before_the_next_one_is_decided_on(monkeypatch):
    log = []

    class Worker:
        def __init__(self, spec):
            self.spec = spec

        async def call(self, request, *, timeout_s, chunk=None):
            log.append(f"sent {request.number}")
            await asyncio.sleep(1.0)
            return Answer(200, body=PICTURE)

        async def health(self):
            return Health(True, slots=2)

        async def aclose(self): ...

    async def main():
        # as one of ours, it decides in the event loop
        monkeypatch.setattr("diffpolicy.edge.serving.decider.OURS", (FirstCome,))
        service = Service([WorkerSpec("http://w0:1")], Worker, FirstCome(log))
        await service.start()
        assert await answers(service, "ab") == 2 * [PICTURE]
        await service.stop()

    run(main())
    assert log == ["decides", "sent a", "decides", "sent b"]
