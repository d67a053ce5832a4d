"""The worker in this process: what it answers, how it queues, and how requests end before their time."""

import asyncio
import base64
import contextlib
import io
import json

import httpx
import pytest
import torch

pytest.importorskip("fastapi")

from diffpolicy import InputError
from diffpolicy.edge.hardware.schema.server_profile import ServerProfile
from diffpolicy.edge.serving import headers
from diffpolicy.edge.serving.api.keys import ApiKeys
from diffpolicy.edge.serving.api.settings import ApiSettings
from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.http_upstream import HttpUpstream
from diffpolicy.edge.serving.image_request import ImageRequest, SentFile
from diffpolicy.edge.serving.limits import Limits
from diffpolicy.edge.serving.running import listen, serving
from diffpolicy.edge.serving.upstream import UpstreamError
from diffpolicy.edge.serving.worker.app import make_worker_app
from diffpolicy.edge.serving.worker.dead_time import check_scale, dead_time_s
from diffpolicy.edge.serving.worker.desk import Desk
from diffpolicy.edge.serving.worker.emulated import EmulatedEngine
from diffpolicy.edge.serving.worker.engine import Engine, Run, StoppedError
from diffpolicy.edge.serving.worker.engines import make_engine
from diffpolicy.edge.serving.worker.job import Job, Standard
from diffpolicy.edge.serving.worker.pipeline import PipelineEngine
from diffpolicy.edge.serving.worker.png import blank_png
from diffpolicy.edge.serving.worker_spec import WorkerSpec
from serving_fakes import Caller

PATH = "/v1/images/generations"


class Scripted:
    """An engine whose steps are taken by the test: `await engine.step()`; a prompt `now` is made at once."""

    model, standard, kinds, edits, slots = "scripted", Standard(64, 64, 4), ("png",), False, 1

    def __init__(self):
        self.made, self.steps = [], asyncio.Queue()

    async def load(self):
        pass

    def expected_s(self, job):
        return 2.0

    async def generate(self, job, run):
        self.made.append(job)
        if job.prompt == "broken":
            raise RuntimeError("secret prompt in a message")
        for done in range(job.steps if job.prompt != "now" else 0):
            await self.steps.get()
            run.step(done + 1)
        if job.prompt.startswith("file"):
            run.made()
            await self.steps.get()
        if job.prompt == "file is lost":
            raise OSError
        return [b"image %d" % (job.seed + i) for i in range(job.images)]

    async def step(self, count=1):
        for _ in range(count):
            self.steps.put_nowait(None)
        await settle()


async def settle():
    """Lets everything happen that can."""
    for _ in range(30):
        await asyncio.sleep(0)


def run(test, *, queue=2, **settings):
    """Runs `test(client, desk, engine)` against an app without a network."""

    async def main():
        engine = Scripted()
        desk = Desk(engine, queue)
        await desk.start()
        app = make_worker_app(desk, ApiSettings(**settings))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://worker") as client:
            await asyncio.wait_for(test(client, desk, engine), 60)
        await desk.stop(0)

    asyncio.run(main())


def ask(client, prompt="a cat", number=None, headers_=None, **body):
    told = dict(headers_ or {}) | ({headers.REQUEST_ID: number} if number else {})
    return asyncio.ensure_future(client.post(PATH, json={"prompt": prompt, **body}, headers=told))


def images(answer):
    return [base64.b64decode(entry["b64_json"]) for entry in answer.json()["data"]]


def test_a_request_is_answered_with_images_and_how_the_worker_stands():
    async def test(client, desk, engine):
        answer = await ask(client, "now", "my-number", n=2, seed=3)
        assert answer.status_code == 200
        assert images(answer) == [b"image 3", b"image 4"]
        assert answer.headers[headers.REQUEST_ID] == "my-number"
        assert float(answer.headers[headers.SERVICE_S]) >= 0
        for got in (answer, await client.get("/live"), await client.get("/health"), await client.get("/nothing")):
            assert got.headers[headers.BOOT] == desk.boot
            assert (got.headers[headers.RUNNING], float(got.headers[headers.REMAINING_S])) == ("0", 0.0)
        told = (await client.get("/health")).json()
        assert told == {
            "status": "ready", "boot": desk.boot, "models": ["scripted"], "running": 0, "waiting": 0, "slots": 1,
            "remaining_s": 0.0,
        }  # fmt: skip
        assert (await client.get("/v1/models")).json()["data"][0]["id"] == "scripted"
        assert 'diffpolicy_worker_requests_total{outcome="ok"} 1.0' in (await client.get("/metrics")).text

    run(test)
    assert isinstance(EmulatedEngine(ServerProfile.load("tiny-cpu")), Engine)


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"{", 400, None),
        (b"\xff", 400, None),
        (b'{"prompt": "x" ' + b" " * 2000 + b"}", 413, None),
        ({"prompt": "x", "n": 11}, 400, "n"),
        ({"prompt": "x", "model": "other"}, 404, "model"),
        ({"prompt": "x", "response_format": "url"}, 400, "response_format"),
        ({"prompt": "x", "output_format": "gif"}, 400, "output_format"),
        ({"prompt": "x", "seed": -1}, 400, "seed"),
        ({"prompt": "x", "seed": True}, 400, "seed"),
        ({"prompt": "x", "guidance_scale": "much"}, 400, "guidance_scale"),
        ({"prompt": "x", "negative_prompt": 3}, 400, "negative_prompt"),
    ],
)
def test_what_cannot_be_made_is_refused_in_openais_shape(body, status, param):
    async def test(client, desk, engine):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = await client.post(PATH, content=content, headers={"content-type": "application/json"})
        assert answer.status_code == status
        error = answer.json()["error"]
        assert error["param"] == param
        assert error["message"]
        assert not engine.made

    run(test, limits=Limits(body=1000))


def test_a_token_is_asked_for_where_one_is_set():
    async def test(client, desk, engine):
        assert (await ask(client, "now")).status_code == 401
        assert (await client.get("/v1/models")).status_code == 401
        assert (await client.get("/live")).status_code == 200
        assert (await ask(client, "now", headers_={"authorization": "Bearer 0123456789abcdef"})).status_code == 200

    run(test, keys=ApiKeys.parse("0123456789abcdef", "keys"))


def test_a_full_queue_refuses_and_says_when_to_come_back():
    async def test(client, desk, engine):
        taken = [ask(client) for _ in range(3)]
        await settle()
        assert (desk.standing().running, desk.standing().waiting) == (1, 2)
        refused = await ask(client)
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "2"
        assert refused.json()["error"]["code"] == "queue_full"
        assert float(refused.headers[headers.REMAINING_S]) == pytest.approx(6, abs=1.9)
        await engine.step(12)
        assert [answer.status_code for answer in await asyncio.gather(*taken)] == [200] * 3

    run(test)


def test_a_device_is_free_and_says_so_while_the_file_of_what_it_made_is_written():
    """The head of the answer tells a dispatcher that it may send the next request."""

    async def main():
        engine = Scripted()
        desk = Desk(engine)
        await desk.start()
        app, ends = make_worker_app(desk), []
        desk.heard.append(lambda outcome, waited_s, worked_s: ends.append(outcome))
        host = [(b"host", b"127.0.0.1"), (headers.HEAD_FIRST.encode(), b"1")]
        first = Caller(app, PATH, b'{"prompt": "file", "num_inference_steps": 1}', host)
        second = Caller(app, PATH, b'{"prompt": "a cat", "num_inference_steps": 1}', host)
        await settle()
        assert [job.prompt for job in engine.made] == ["file"]
        await engine.step()
        assert [job.prompt for job in engine.made] == ["file", "a cat"]
        assert [message["type"] for message in first.sent] == ["http.response.start"]
        told = {name.decode(): value.decode() for name, value in first.sent[0]["headers"]}
        assert float(told[headers.SERVICE_S]) >= 0
        assert (told[headers.RUNNING], "content-length" in told) == ("1", False)
        await engine.step(2)
        await asyncio.gather(first.task, second.task)
        assert all(json.loads(each.body)["data"] for each in (first, second))
        lost = Caller(app, PATH, b'{"prompt": "file is lost", "num_inference_steps": 1}', host)
        await settle()
        await engine.step()
        await engine.step()
        await lost.task
        assert [message["type"] for message in lost.sent] == ["http.response.start"]  # and no end, so it is dropped
        assert sorted(ends) == ["failed", "ok", "ok"]
        assert desk.standing().running == 0
        await desk.stop(0)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_who_does_not_ask_for_the_head_first_gets_the_length_and_the_status_that_an_answer_has():
    async def main():
        engine = Packing()
        desk = Desk(engine)
        await desk.start()
        app, told = make_worker_app(desk), (headers.HEAD_FIRST.encode(), b"1")
        for version, more, at_once in (("1.1", (), 0), ("1.0", (told,), 0), ("1.1", (told,), 1)):
            body = f'{{"prompt": "{version} {at_once}"}}'.encode()
            call = Caller(app, PATH, body, [(b"host", b"127.0.0.1"), *more], version=version)
            await settle()
            assert len(call.sent) == at_once
            await engine.step()
            await call.task
            assert (b"content-length" in dict(call.sent[0]["headers"])) == (not at_once)
        engine.lost = True
        call = Caller(app, PATH, b'{"prompt": "lost"}', [(b"host", b"127.0.0.1")])
        await settle()
        await engine.step()
        await call.task
        assert call.status == 500

    asyncio.run(asyncio.wait_for(main(), 60))


class Packing(Scripted):
    """Images are made at once, and their files when the test says so; `stopped`: by a thread that heeds it late."""

    stopped = lost = False

    async def generate(self, job, run):
        self.made.append(job)
        run.made()
        await self.steps.get()
        if self.stopped:
            self.stopped = False
            raise StoppedError
        if self.lost:
            raise OSError
        return [b"image"]


def asked(number):
    return ImageRequest.parse({"prompt": "a cat"}, number)


def test_files_that_are_written_more_slowly_than_images_are_made_fill_the_queue():
    async def main():
        engine = Packing()
        desk = Desk(engine, queue=2)
        await desk.start()
        claims = []
        for k in range(4):
            claims.append(desk.submit(asked(f"r{k}")))
            await settle()
        assert (len(engine.made), desk.standing().running, desk.standing().waiting) == (2, 1, 2)
        with pytest.raises(ApiError, match="queue is full"):
            desk.submit(asked("one too many"))
        await engine.step()
        assert len(engine.made) == 3
        await engine.step(3)
        assert [(await claim.answer()).status for claim in claims] == 4 * [200]
        assert desk.standing().running == 0

    asyncio.run(asyncio.wait_for(main(), 60))


def test_images_that_were_made_and_left_are_made_again_for_one_who_comes_back():
    async def main():
        engine = Packing()
        desk = Desk(engine)
        await desk.start()
        first = desk.submit(asked("r"))
        await settle()
        first.cancel()
        engine.stopped, back = True, desk.submit(asked("r"))
        await engine.step()
        made, done = back.ends
        assert (len(engine.made), await made >= 0, done.done()) == (2, True, False)
        await engine.step()
        assert (await back.answer()).status == 200

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_number_that_was_seen_joins_the_request_or_gets_its_answer():
    async def test(client, desk, engine):
        first, second = ask(client, number="r1"), ask(client, number="r1")
        other = ask(client, "another", number="r1")
        await settle()
        await engine.step(8)
        answers = await asyncio.gather(first, second, ask(client, number="r1"))
        assert len({answer.content for answer in answers}) == 1
        assert (await other).content != answers[0].content
        assert [job.prompt for job in engine.made] == ["a cat", "another"]
        await engine.step(4)
        await ask(client, number="r2")
        assert len(engine.made) == 3

    run(test)


def test_a_failure_is_forgotten_so_that_to_ask_again_is_to_try_again(caplog):
    async def test(client, desk, engine):
        for _ in range(2):
            answer = await ask(client, "broken", number="r1")
            assert answer.status_code == 500
            assert "secret" not in answer.text
        assert len(engine.made) == 2
        assert "secret" not in caplog.text
        assert "RuntimeError" in caplog.text
        assert (await ask(client, "now")).status_code == 200

    run(test)


async def leave(call):
    call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await call
    await settle()


def test_a_client_that_leaves_ends_its_request_between_steps_or_takes_it_out_of_the_queue():
    async def test(client, desk, engine):
        first, second, third = (ask(client, number=f"r{i}") for i in range(3))
        await settle()
        await engine.step()
        await leave(second)
        assert desk.standing().waiting == 1
        await leave(first)
        assert desk.standing().running == 1
        await engine.step()
        assert [job.prompt for job in engine.made] == ["a cat"] * 2
        await engine.step(4)
        assert (await third).status_code == 200
        assert 'requests_total{outcome="cancelled"} 2.0' in (await client.get("/metrics")).text

    run(test)


def test_one_of_two_clients_may_leave_and_one_that_comes_back_in_time_finds_its_request_going_on():
    async def test(client, desk, engine):
        first, second = ask(client, number="r1"), ask(client, number="r1")
        await settle()
        await leave(first)
        await engine.step()
        await leave(second)
        back = ask(client, number="r1")
        await settle()
        await engine.step(3)
        assert (await back).status_code == 200
        assert len(engine.made) == 1

    run(test)


def test_one_that_comes_back_the_moment_it_has_left_the_queue_is_queued_again():
    async def test(client, desk, engine):
        first = desk.submit(ImageRequest.parse({"prompt": "a cat"}, "r1"))
        waits = ImageRequest.parse({"prompt": "a cat"}, "r2")
        desk.submit(waits).cancel()
        again = desk.submit(waits)
        await engine.step(8)
        assert [(await claim.answer()).status for claim in (first, again)] == [200, 200]

    run(test)


def test_a_request_whose_deadline_passes_while_it_waits_is_refused():
    async def test(client, desk, engine):
        first = ask(client)
        await settle()
        late = await ask(client, headers_={headers.DEADLINE_S: "0.02"})
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_passed")
        assert late.headers["x-should-retry"] == "false"
        await engine.step(4)
        assert (await first).status_code == 200
        assert len(engine.made) == 1

    run(test)


def test_a_worker_that_drains_takes_no_more_and_ends_what_it_has():
    async def test(client, desk, engine):
        running, waiting = ask(client), ask(client)
        await settle()
        stopping = asyncio.ensure_future(desk.stop(60))
        await settle()
        health = await client.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "draining")
        assert (await client.get("/live")).status_code == 200
        refused = await ask(client)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
        await engine.step(8)
        assert [answer.status_code for answer in await asyncio.gather(running, waiting)] == [200, 200]
        await stopping

    run(test)


def test_what_is_not_done_in_the_time_of_grace_is_told_so():
    async def test(client, desk, engine):
        running, waiting = ask(client), ask(client)
        await settle()
        await desk.stop(0.01)
        for answer in await asyncio.gather(running, waiting):
            assert answer.status_code == 503
            assert answer.headers["x-should-retry"] == "true"

    run(test)


def test_until_its_model_is_loaded_a_worker_lives_and_is_not_ready():
    async def main():
        desk = Desk(Scripted())
        app = make_worker_app(desk)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://worker") as client:
            assert (await client.get("/live")).status_code == 200
            assert (await client.get("/health")).json()["status"] == "loading"
            assert (await ask(client)).status_code == 503
            await desk.start()
            assert (await client.get("/health")).status_code == 200
        assert Desk(Scripted()).boot != desk.boot

    asyncio.run(main())


def emulated(profile="mlenergy-a100-sd3-medium", **others):
    return EmulatedEngine(ServerProfile.load(profile), **others)


def test_a_stream_shows_pictures_on_the_way_and_one_that_joins_it_sees_all():
    async def main():
        desk = Desk(emulated(scale=0.01))
        await desk.start()
        app = make_worker_app(desk)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://worker") as client:
            calls = [ask(client, number="s", stream=True, partial_images=2, size="64x64")]
            await settle()
            calls.append(ask(client, number="s", stream=True, partial_images=2, size="64x64"))
            first, second = await asyncio.gather(*calls)
        assert first.content == second.content
        events = [dict(line.split(": ", 1) for line in part.split("\n")) for part in first.text.strip().split("\n\n")]
        names = [event["event"].removeprefix("image_generation.") for event in events]
        assert names == ["partial_image", "partial_image", "completed"]
        told = [json.loads(event["data"]) for event in events]
        assert [each.get("partial_image_index") for each in told] == [0, 1, None]
        assert all(base64.b64decode(each["b64_json"]) == blank_png(64, 64) for each in told)

    asyncio.run(main())


def test_an_edit_is_taken_where_the_engine_edits():
    async def main(engine):
        desk = Desk(engine)
        await desk.start()
        upstream = HttpUpstream(WorkerSpec("http://worker"), transport=httpx.ASGITransport(make_worker_app(desk)))
        files = (SentFile("image", "a.png", "image/png", blank_png(8, 8)),)
        return await upstream.call(ImageRequest.parse({"prompt": "a hat"}, "r1", files=files), timeout_s=30)

    assert asyncio.run(main(emulated("tiny-cpu", scale=0.001))).status == 200
    assert asyncio.run(main(Scripted())).status == 400


def test_emulated_requests_take_the_profiles_time_and_begin_where_the_one_before_should_have_ended():
    engine = emulated(speed=2.0, scale=0.01)
    job = Job("", 1024, 1024, 25, images=2)
    assert engine.expected_s(job) == pytest.approx(
        ServerProfile.load(engine.profile.name).service_s(1024, 1024, 25, 2) / 200
    )
    assert engine.mean_s == pytest.approx(engine.expected_s(Job("", 1024, 1024, 25)))

    async def main():
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for _ in range(5):
            await engine.generate(job, Run(begun))
            await asyncio.sleep(0.002)  # time between two requests that waited is not lost
        return begun, loop.time()

    begun, ended = asyncio.run(main())
    assert engine._free_s == pytest.approx([begun + 5 * engine.expected_s(job)])
    assert ended >= engine._free_s[0]


def test_an_emulated_request_ends_at_the_end_of_a_step():
    engine = emulated(scale=0.1)

    async def main():
        loop = asyncio.get_running_loop()
        work = Run(loop.time())
        task = asyncio.ensure_future(engine.generate(Job("", 1024, 1024, 25), work))
        await asyncio.sleep(0.02)
        work.stop()
        with pytest.raises(StoppedError):
            await task
        return loop.time() - work.begin_s, work.steps

    took, steps = asyncio.run(main())
    step_s = engine.expected_s(Job("", 1024, 1024, 1))
    assert 1 <= steps < 25
    assert took >= steps * step_s


def test_blank_pictures_are_pictures():
    pillow = pytest.importorskip("PIL.Image")
    for size in ((1, 1), (13, 7), (1024, 512)):
        with pillow.open(io.BytesIO(blank_png(*size))) as picture:
            picture.load()
            assert picture.size == size
            assert not picture.getbbox()


def test_a_time_scale_is_refused_at_which_this_machine_is_half_a_percent_of_a_request():
    engine = emulated(scale=0.05)
    check_scale(engine, 0.00094)
    with pytest.raises(InputError, match=r"--time-scale 0.05 makes a request 189 ms .* use at least 0.053"):
        check_scale(engine, 0.001)
    check_scale(emulated(), 1.0)  # at its own pace nothing is distorted
    assert 0 < asyncio.run(dead_time_s(engine)) < 10


@pytest.mark.parametrize(
    ("model", "others", "said"),
    [
        ("nonsense", {}, "nonsense"),
        ("emulate:nonsense", {}, "neither shipped"),
        ("emulate:tiny-cpu@fast", {}, "must be a number"),
        ("emulate:tiny-cpu@0", {}, "at least 1e-06"),
        ("emulate:tiny-cpu", {"device": "cpu"}, "--device"),
        ("tiny", {"scale": 0.5}, "--time-scale"),
        ("tiny", {"slots": 2}, "--slots"),
    ],
)
def test_a_model_that_is_none_is_refused(model, others, said):
    with pytest.raises(InputError, match=r"--model|model '|profile") as caught:
        make_engine(model, **others)
    assert said in str(caught.value)


def test_an_engine_of_ones_own_is_named_by_module_and_attribute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_engine.py").write_text("from test_serving_worker import Scripted\nother = dict\n")
    assert make_engine("mine_engine:Scripted").model == "scripted"
    with pytest.raises(InputError, match="mine_engine:other makes a dict, which lacks"):
        make_engine("mine_engine:other")
    with pytest.raises(InputError, match="no attribute 'nothing'"):
        make_engine("mine_engine:nothing")


class Pipeline:
    """What stands for a pipeline of diffusers."""

    def __init__(self):
        self.asked = []

    def __call__(self, prompt, *, generator, callback_on_step_end, num_inference_steps, guidance_scale=7.0, **others):
        self.asked.append(others)
        if others["width"] % 16:
            raise ValueError("`width` has to be divisible by 16")
        if others["width"] > 1024:
            raise MemoryError
        for step in range(num_inference_steps):
            assert callback_on_step_end(self, step, None, {"x": 1}) == {"x": 1}
        made = [Picture(torch.rand(2, generator=each)) for each in generator]
        return type("Made", (), {"images": made})


class Picture:
    def __init__(self, values):
        self.values = values

    def save(self, stream, **others):
        stream.write(f"{others['format']} {self.values.tolist()}".encode())


@pytest.fixture
def pipeline():
    engine = PipelineEngine("tiny", device="cpu")
    engine._pipeline = Pipeline()
    return engine


def made(engine, job, work=None):
    return asyncio.run(engine.generate(job, work or Run(0.0)))


def test_the_images_of_a_request_have_a_seed_each(pipeline):
    both = made(pipeline, Job("", 64, 64, 3, images=2, seed=5))
    assert both == [made(pipeline, Job("", 64, 64, 3, seed=5 + i))[0] for i in range(2)]
    assert both[0] != both[1]
    assert made(pipeline, Job("", 64, 64, 3, seed=5, kind="jpeg"))[0].startswith(b"JPEG")
    assert pipeline.expected_s(Job("", 64, 64, 30)) > pipeline.expected_s(Job("", 64, 64, 3)) > 0


def test_a_pipeline_ends_between_two_steps(pipeline):
    class Stops(Run):
        def step(self, done):
            if done == 2:
                self.stop()
            super().step(done)

    async def main():
        work = Stops(0.0)
        with pytest.raises(StoppedError):
            await pipeline.generate(Job("", 64, 64, 9), work)
        return work.steps

    assert asyncio.run(main()) == 2


@pytest.mark.parametrize(
    ("job", "param", "code"),
    [
        (Job("", 65, 64, 3), "size", "invalid_value"),
        (Job("", 4096, 64, 3), "size", "out_of_memory"),
        (Job("", 64, 64, 3, negative_prompt="no"), "negative_prompt", "invalid_value"),
    ],
)
def test_what_a_pipeline_does_not_take_is_the_requests_fault(pipeline, job, param, code):
    with pytest.raises(ApiError) as caught:
        made(pipeline, job)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)


@pytest.mark.slow
def test_the_tiny_model_makes_its_images_from_their_seeds():
    """The whole of diffusers in a worker: building, seeds, ending between steps; to import it takes long."""
    pytest.importorskip("diffusers")

    async def main():
        engine = make_engine("tiny", device="cpu")
        await engine.load()
        both = await engine.generate(Job("a cat", 64, 64, 3, images=2, seed=5), Run(0.0))
        first, again, other = [
            (await engine.generate(Job("a cat", 64, 64, 3, seed=seed), Run(0.0)))[0] for seed in (5, 5, 6)
        ]
        stopped = Run(0.0)
        stopped.stop()
        with pytest.raises(StoppedError):
            await engine.generate(Job("a cat", 64, 64, 50), stopped)
        assert stopped.steps == 1
        return both, first, again, other

    both, first, again, other = asyncio.run(main())
    assert len({*both}) == 2  # of a batch; products of matrices round otherwise there than alone
    assert first == again != other


def test_a_connection_that_is_closed_ends_the_request_and_one_that_is_lost_may_come_back():
    async def main():
        engine = Scripted()
        desk = Desk(engine)
        await desk.start()
        listening = listen("127.0.0.1", 0)
        async with serving(make_worker_app(desk), listening):
            upstream = HttpUpstream(WorkerSpec(f"http://127.0.0.1:{listening.getsockname()[1]}"))
            asked = ImageRequest.parse({"prompt": "a cat"}, "r1")
            with pytest.raises(UpstreamError) as caught:
                await upstream.call(asked, timeout_s=0.3)
            assert caught.value.late
            while not next(iter(desk._running)).run.stopped:
                await asyncio.sleep(0.01)
            again = asyncio.ensure_future(upstream.call(asked, timeout_s=30))
            while next(iter(desk._running)).run.stopped:
                await asyncio.sleep(0.01)
            await engine.step(4)
            assert (await again).status == 200
            assert len(engine.made) == 1
            assert (await upstream.health()).boot == desk.boot
            await upstream.aclose()
        await desk.stop(0)

    asyncio.run(asyncio.wait_for(main(), 60))
