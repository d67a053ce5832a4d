"""A service that does what a test says, and a client of its app that leaves when it is told to."""

import asyncio
import json
from dataclasses import dataclass, field

import httpx

from diffpolicy.edge.serving.upstream import Answer

IMAGE = {"created": 7, "data": [{"b64_json": "aW1hZ2U="}], "size": "64x64"}


def image() -> Answer:
    return Answer(200, {"content-type": "application/json"}, json.dumps(IMAGE).encode())


def event(kind, image=None, line="\n"):
    """A server-sent event as OpenAI's API has it."""
    kind = f"image_generation.{kind}"
    return f"event: {kind}{line}data: {json.dumps({'type': kind, 'b64_json': image})}{line}{line}".encode()


@dataclass
class Server:
    name: str = "a"
    state: str = "ready"
    slots: int = 1
    outstanding: int = 0
    starts_s: float = 0.0
    models: tuple = ("tiny",)
    slower: float = 1.0
    foreign: int = 0


@dataclass
class Snapshot:
    time_s: float = 0.0
    policy: str = "least-finish"
    share: float = 1.0
    trial: dict = field(default_factory=dict)
    evidence: float | None = None
    left: int | None = None
    holds: bool = False
    draining: bool = False
    counts: dict = field(default_factory=dict)
    servers: tuple = (Server(),)
    waiting: tuple = ()
    queue: int = 0
    infinite: float = float("inf")


class FakeTicket:
    def __init__(self, service, request, chunk):
        self.number, self.service, self.cancelled = request.number, service, False
        self.task = asyncio.ensure_future(service.behave(request, chunk))

    async def answer(self):
        return await asyncio.shield(self.task)

    def cancel(self):
        self.cancelled = True
        self.task.cancel()


class FakeService:
    """`behave(request, chunk)` gives the answer; `refusal` is raised at once."""

    def __init__(self, behave=None, refusal=None):
        async def at_once(request, chunk):
            return image()

        self.behave, self.refusal = behave or at_once, refusal
        self.usable, self.draining, self.listeners, self.tickets, self.requests = True, False, [], [], []

    def submit(self, request, chunk=None):
        self.requests.append(request)
        if self.refusal:
            raise self.refusal
        self.tickets.append(FakeTicket(self, request, chunk))
        return self.tickets[-1]

    def tell(self, event):
        for listener in self.listeners:
            listener(event)

    def models(self):
        return ("tiny",)

    def snapshot(self):
        return Snapshot()


def client(app, **more):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", **more)


async def until(true):
    """Waits for what comes soon, and two seconds at most."""
    for _ in range(200):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("did not come")


class Caller:
    """One request, message by message: `sent` has what the app says, `leave()` hangs up; `stalls`: it never reads."""

    def __init__(self, app, path, body, headers=(), stalls=False, version="1.1"):
        self.sent, self.left, self.stalls = [], asyncio.Event(), stalls
        host = [] if any(name == b"host" for name, _ in headers) else [(b"host", b"test")]
        own = [(b"content-type", b"application/json"), *host, *headers]
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": version,
            "method": "POST", "scheme": "http", "path": path, "raw_path": path.encode(),
            "query_string": b"", "root_path": "", "headers": own, "server": ("test", 80), "client": ("127.0.0.1", 1),
        }  # fmt: skip
        pieces = [body] if isinstance(body, bytes) else list(body)
        self.unread = [
            {"type": "http.request", "body": piece, "more_body": k + 1 < len(pieces)} for k, piece in enumerate(pieces)
        ]
        self.task = asyncio.ensure_future(app(scope, self.receive, self.send))

    async def receive(self):
        if self.unread:
            return self.unread.pop(0)
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        if self.stalls:
            await asyncio.Event().wait()
        self.sent.append(message)

    def leave(self):
        self.left.set()

    @property
    def status(self):
        return self.sent[0]["status"]

    @property
    def body(self):
        return b"".join(message.get("body", b"") for message in self.sent)
