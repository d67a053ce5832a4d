"""ComfyUI as a worker, played by a small server of the test's own."""

import asyncio
import base64
import contextlib
import copy
import json

import httpx
import pytest

from diffpolicy import InputError
from diffpolicy.edge.dispatch.cost_model import CostModel
from diffpolicy.edge.serving import comfy_history, comfyui
from diffpolicy.edge.serving.breaker import Breaker
from diffpolicy.edge.serving.comfy_workflow import Workflow
from diffpolicy.edge.serving.comfyui import ComfyUpstream
from diffpolicy.edge.serving.image_request import ImageRequest, SentFile
from diffpolicy.edge.serving.limits import Limits
from diffpolicy.edge.serving.moments import Costs, expected_s
from diffpolicy.edge.serving.server import Server
from diffpolicy.edge.serving.upstream import Health, Upstream, UpstreamError
from diffpolicy.edge.serving.upstreams import connect
from diffpolicy.edge.serving.work import Work
from diffpolicy.edge.serving.worker_spec import WorkerSpec, read_workers
from diffpolicy.edge.serving.workers_source import WorkersSource

GRAPH = {
    "3": {
        "class_type": "KSampler",
        "inputs": {"seed": 5, "steps": 20, "cfg": 8, "model": ["4", 0], "positive": ["9", 0], "negative": ["7", 0],
                   "latent_image": ["5", 0]},
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd3_medium.safetensors"}},
    "5": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 512, "height": 768, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "old", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "ugly", "clip": ["4", 1]}},
    "8": {"class_type": "SaveImage", "inputs": {"images": ["10", 0]}},
    "9": {"class_type": "FluxGuidance", "inputs": {"conditioning": ["6", 0], "guidance": 3.5}},
    "10": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
}  # fmt: skip
ADVANCED = {
    "1": {"class_type": "RandomNoise", "inputs": {"noise_seed": 1}},
    "2": {"class_type": "BasicScheduler", "inputs": {"steps": 4, "model": ["9", 0]}},
    "3": {"class_type": "CLIPTextEncodeFlux", "inputs": {"text": "old", "clip": ["8", 0]}},
    "4": {"class_type": "SamplerCustomAdvanced", "inputs": {"noise": ["1", 0], "sigmas": ["2", 0]}},
}


class Comfy:
    """A queue of which the test says when the first is done; `old` releases give numbers of their own."""

    def __init__(self, old=False):
        self.old, self.running, self.pending, self.history, self.graphs, self.calls = old, None, [], {}, {}, []

    def __call__(self, got):
        self.calls.append((got.method, got.url.path, json.loads(got.content or b"null")))
        body = self.calls[-1][2]
        match got.method, got.url.path.split("/")[1:]:
            case "POST", ["prompt"]:
                if body["prompt"]["3"]["inputs"].get("steps") == 13:
                    wrong = {"3": {"class_type": "KSampler", "errors": [{"message": "Value 13 is unlucky"}]}}
                    return httpx.Response(400, json={"error": {"message": "invalid prompt"}, "node_errors": wrong})
                number = f"own-{len(self.graphs)}" if self.old else body["prompt_id"]
                self.graphs[number] = body["prompt"]
                self.pending.append(number)
                self.begin()
                return httpx.Response(200, json={"prompt_id": number, "number": 1, "node_errors": {}})
            case "GET", ["queue"]:
                lists = ([self.running] if self.running else []), self.pending
                entries = [[[0, number, {}, {}, []] for number in numbers] for numbers in lists]
                return httpx.Response(200, json=dict(zip(("queue_running", "queue_pending"), entries, strict=True)))
            case "POST", ["queue"]:
                self.pending = [number for number in self.pending if number not in body["delete"]]
            case "GET", ["history", number]:
                done = self.history.get(number)
                return httpx.Response(200, json={number: done} if done else {})
            case "GET", ["view"]:
                return httpx.Response(200, content=f"image {got.url.params['filename']}".encode())
            case "POST", ["interrupt"]:
                self.done(status_str="error", messages=[["execution_interrupted", {}]])
            case _:
                return httpx.Response(404)
        return httpx.Response(200)

    def begin(self):
        if self.running is None and self.pending:
            self.running = self.pending.pop(0)

    def done(self, images=1, status_str="success", messages=()):
        names = [{"filename": f"{i}.png", "subfolder": "", "type": "output"} for i in range(images)]
        outputs = {"1": {"images": [{"filename": "p.png", "subfolder": "", "type": "temp"}]}, "8": {"images": names}}
        times = [["execution_start", {"timestamp": 1000}], ["execution_success", {"timestamp": 3500}]]
        status = {"status_str": status_str, "completed": status_str == "success", "messages": messages or times}
        self.history[self.running] = {"outputs": outputs, "status": status}
        self.running = None
        self.begin()


@pytest.fixture
def spec(tmp_path, monkeypatch):
    monkeypatch.setattr(comfyui, "SOONEST_S", 0.002)
    path = tmp_path / "flow.json"
    path.write_text(json.dumps(GRAPH))
    return WorkerSpec("http://comfy:8188", kind="comfyui", workflow=str(path))


def request(number="r1", files=(), **body):
    return ImageRequest.parse({"prompt": "a cat", **body}, number, files=tuple(files))


def play(spec, test, comfy=None, **others):
    """Runs `test(upstream, comfy)`."""
    comfy = comfy or Comfy()

    async def main():
        upstream = ComfyUpstream(spec, transport=httpx.MockTransport(comfy), **others)
        try:
            return await asyncio.wait_for(test(upstream, comfy), 30)
        finally:
            await upstream.aclose()

    return asyncio.run(main())


async def begun(comfy, count=1):
    while len(comfy.graphs) < count:
        await asyncio.sleep(0.001)


async def failed(task):
    with pytest.raises(UpstreamError) as caught:
        await task
    return caught.value


@pytest.mark.parametrize("old", [False, True])
def test_a_request_is_filled_into_the_workflow_and_its_saved_images_come_back(spec, old):
    async def test(upstream, comfy):
        assert isinstance(upstream, Upstream)
        asked = request(size="640x320", num_inference_steps=7, n=2, seed=11, negative_prompt="dull")
        task = asyncio.ensure_future(upstream.call(asked, timeout_s=30))
        await begun(comfy)
        assert (await upstream.health()).running == 1
        comfy.done(images=2)
        return await task, next(iter(comfy.graphs.values()))

    answer, graph = play(spec, test, Comfy(old))
    assert (answer.status, answer.service_s) == (200, 2.5)
    told = json.loads(answer.body)
    assert [base64.b64decode(image["b64_json"]) for image in told["data"]] == [b"image 0.png", b"image 1.png"]
    assert told["output_format"] == "png"
    wanted = copy.deepcopy(GRAPH)
    wanted["3"]["inputs"] |= {"seed": 11, "steps": 7}
    wanted["5"]["inputs"] |= {"width": 640, "height": 320, "batch_size": 2}
    wanted["6"]["inputs"]["text"], wanted["7"]["inputs"]["text"] = "a cat", "dull"
    assert graph == wanted


def test_what_a_request_leaves_open_is_as_the_workflow_has_it_but_for_the_seed(spec):
    async def test(upstream, comfy):
        for n in (1, 2):
            task = asyncio.ensure_future(upstream.call(request(), timeout_s=30))
            await begun(comfy, n)
            comfy.done()
            await task
        health = await upstream.health()
        assert (health.usable, health.models, health.running, health.slots) == (True, ("sd3_medium.safetensors",), 0, 1)
        assert (health.width, health.height, health.steps) == (512, 768, 20)
        return [graph["3"]["inputs"] for graph in comfy.graphs.values()]

    first, second = play(spec, test)
    assert (first["steps"], first["cfg"]) == (20, 8)
    assert first["seed"] != second["seed"]  # ComfyUI makes nothing anew of which nothing has changed
    flow = Workflow.read(spec.workflow, {})
    assert (flow.width, flow.height, flow.steps) == (512, 768, 20)


def test_a_request_costs_what_the_workflow_makes_of_what_it_leaves_open(spec) -> None:
    """Of two servers that take a second a megapixel and step, one has a workflow of 20 steps at 1000x500."""

    def server(**told):
        return Server(spec, None, Breaker(3, 1.0, 9.0), health=Health(True, **told))

    servers = [server(width=1000, height=500, steps=20), server()]
    costs = CostModel(2)
    for j in (0, 1):
        for size in (1.0, 10.0, 40.0):
            costs.observe(j, size, size=size)

    def seconds(**body):
        return [round(x) for x in expected_s(costs, servers, request(**body))]

    def seconds_of(asked):
        return float(expected_s(costs, servers, asked)[0])

    assert seconds(size="1000x1000", num_inference_steps=10) == [10, 10]
    assert seconds() == [10, 17]  # the other has the mean of what it was seen to do
    assert seconds(n=4) == [40, 68]
    assert seconds(num_inference_steps=2)[0] == 1
    assert seconds(size="1000x2000")[0] == 40
    assert servers[0].size_of(request(size="1000x2000")) == 40.0
    assert servers[1].size_of(request(size="1000x2000")) is None
    two = [request(size="1000x500"), request(size="1000x2000")]  # neither tells its size, which is not the same
    for asked in (two, two[::-1]):
        shown = Costs(costs, servers, 0.0, [0, 0])
        works = [Work(each, 0.0, k, True, None) for k, each in enumerate(asked)]
        assert [float(row[0]) for row in shown.service_s(works)] == [seconds_of(each) for each in asked]
        assert [float(shown.base_s(each)[0]) for each in asked] == [seconds_of(each) for each in asked]


def test_one_that_is_given_up_is_interrupted_if_it_runs_and_taken_out_if_it_waits(spec):
    async def test(upstream, comfy):
        first, second = (asyncio.ensure_future(upstream.call(request(), timeout_s=30)) for _ in range(2))
        await begun(comfy, 2)
        waits = comfy.pending[0]
        second.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await second
        while comfy.pending:
            await asyncio.sleep(0.001)
        assert not any(path == "/interrupt" for _, path, _ in comfy.calls)
        first.cancel()
        while comfy.running:
            await asyncio.sleep(0.001)
        assert [path for _, path, _ in comfy.calls].count("/interrupt") == 1
        assert waits not in comfy.history

    play(spec, test)


def test_one_that_takes_too_long_is_late_and_interrupted(spec):
    async def test(upstream, comfy):
        error = await failed(upstream.call(request(), timeout_s=0.05))
        assert (error.reached, error.late) == (True, True)
        while comfy.running:
            await asyncio.sleep(0.001)

    play(spec, test)


def test_a_request_that_a_restart_has_lost_is_seen_to_be(spec):
    async def test(upstream, comfy):
        task = asyncio.ensure_future(upstream.call(request(), timeout_s=30))
        await begun(comfy)
        comfy.running = None
        error = await failed(task)
        assert "lost the request" in str(error)
        assert error.reached

    play(spec, test)


def test_what_goes_wrong_there_is_told_in_openais_shape_and_without_the_prompt(spec):
    async def test(upstream, comfy):
        refused = await upstream.call(request(num_inference_steps=13), timeout_s=30)
        assert refused.status == 400
        assert "KSampler: Value 13 is unlucky" in json.loads(refused.body)["error"]["message"]
        edit = await upstream.call(request(files=[SentFile("image", "a", "image/png", b"")]), timeout_s=30)
        assert (edit.status, json.loads(edit.body)["error"]["code"]) == (400, "no_edits")
        wrong = {"node_type": "VAEDecode", "exception_type": "RuntimeError", "exception_message": "a cat"}
        untold = dict.fromkeys(wrong)
        for messages, status, said in (
            ([["execution_error", wrong]], 500, "VAEDecode: RuntimeError"),
            ([["execution_error", untold]], 500, "?: ?"),
            ([["execution_interrupted", {}]], None, ""),
        ):
            task = asyncio.ensure_future(upstream.call(request(), timeout_s=30))
            await begun(comfy, len(comfy.graphs) + 1)
            comfy.done(status_str="error", messages=messages)
            if status is None:
                assert (await failed(task)).reached
            else:
                message = json.loads((await task).body)["error"]["message"]
                assert message == f"ComfyUI failed in node {said}"
        task = asyncio.ensure_future(upstream.call(request(n=2), timeout_s=30))
        await begun(comfy, len(comfy.graphs) + 1)
        comfy.done(images=1)
        assert "made 1 images instead of 2" in str(await failed(task))

    play(spec, test)


def test_null_in_what_comfyui_says_is_what_it_does_not_say():
    assert comfy_history.messages({"messages": None}) == {}
    assert comfy_history.seconds({"execution_start": {"timestamp": None}, "execution_success": {}}) is None
    begun = {"execution_start": {"timestamp": 0}}
    for wrong in (10**400, float("nan"), -1):
        assert comfy_history.seconds({**begun, "execution_success": {"timestamp": wrong}}) is None
    image = {"filename": "a.png", "subfolder": None, "type": None}
    nodes = {"1": None, "2": {"images": None}, "3": {"images": {}}, "4": {"images": [None, image]}}
    assert comfy_history.files(nodes) == [{"filename": "a.png", "subfolder": "", "type": ""}]
    assert comfy_history.files(None) == []
    told = {"message": "no"}
    wrong = {"1": None, "2": {"errors": None}, "3": {"class_type": None, "errors": [None, told, {"message": None}]}}
    assert comfy_history.reason({"error": told, "node_errors": wrong}) == "no; 3: no; 3: "
    assert comfy_history.reason({"error": {"message": None}, "node_errors": None}) == "it does not say why"


def test_images_together_are_bounded(spec):
    async def test(upstream, comfy):
        task = asyncio.ensure_future(upstream.call(request(n=2), timeout_s=30))
        await begun(comfy)
        comfy.done(images=2)
        assert "answers with more than" in str(await failed(task))

    play(spec, test, limits=Limits(response=15))


def test_a_server_that_is_not_there_has_begun_nothing_and_one_that_goes_may_have(spec):
    def refuse(got):
        raise httpx.ConnectError("refused")

    async def gone(upstream, comfy):
        assert not (await failed(upstream.call(request(), timeout_s=30))).reached
        with pytest.raises(UpstreamError):
            await upstream.health()

    play(spec, gone, refuse)
    comfy = Comfy()
    assert play(
        spec,
        lambda u, c: failed(u.call(request(), timeout_s=30)),
        lambda got: refuse(got) if comfy.graphs else comfy(got),
    ).reached


def test_all_that_wait_are_looked_for_together_and_a_look_that_fails_loses_none(spec):
    """Each look at the queue brings the workflows of all, and is answered by the process that makes the images."""

    class Hiccups(Comfy):
        fails = 0

        def __call__(self, got):
            if (got.method, got.url.path) == ("GET", "/queue") and self.fails:
                self.fails -= 1
                raise httpx.ReadTimeout("busy") if self.fails % 2 else httpx.ReadError("reset")
            return super().__call__(got)

    async def test(upstream, comfy):
        tasks = [asyncio.ensure_future(upstream.call(request(), timeout_s=30)) for _ in range(40)]
        await begun(comfy, 40)
        looks = [len(comfy.calls)]
        for k in range(40):
            comfy.fails = 2 if k % 10 == 5 else 0
            comfy.done()
            await asyncio.sleep(0.002)
        assert {answer.status for answer in await asyncio.gather(*tasks)} == {200}
        paths = [path for _, path, _ in comfy.calls[looks[0] :]]
        assert paths.count("/queue") < 150  # of each alone they were a thousand
        assert sum(path.startswith("/history") for path in paths) == 40
        comfy.fails = 9
        error = await failed(upstream.call(request(), timeout_s=30))
        assert (error.reached, error.late) == (True, False)
        comfy.fails = 0
        while comfy.running:  # what was lost sight of is not made twice
            await asyncio.sleep(0.001)
        assert ("POST", "/interrupt") in [call[:2] for call in comfy.calls]

    play(spec, test, Hiccups())


def test_one_whose_client_left_before_its_number_was_told_is_taken_out_once_it_is_there(spec, monkeypatch):
    monkeypatch.setattr(comfyui, "AGAIN_S", (0.01, 0.02))

    class Late(Comfy):
        """It takes a request while it is being given up, as one does that sees to the workflow first."""

        held = None

        async def __call__(self, got):
            if got.url.path == "/prompt":
                self.held = json.loads(got.content)
                await asyncio.sleep(60)
            return super().__call__(got)

    async def test(upstream, comfy):
        task = asyncio.ensure_future(upstream.call(request(), timeout_s=30))
        while comfy.held is None:
            await asyncio.sleep(0.001)
        task.cancel()
        while not any(path == "/queue" for _, path, _ in comfy.calls):
            await asyncio.sleep(0.001)
        number = comfy.running = comfy.held["prompt_id"]
        while comfy.running:
            await asyncio.sleep(0.001)
        assert comfy.calls[-1] == ("POST", "/interrupt", {"prompt_id": number})

    play(spec, test, Late())


def test_nodes_are_found_by_class_and_by_where_their_text_goes():
    assert Workflow.of(GRAPH).nodes == {"prompt": "6", "negative": "7", "size": "5", "steps": "3", "seed": "3"}
    flow = Workflow.of(ADVANCED)
    assert flow.nodes == {"prompt": "3", "steps": "2", "seed": "1"}
    assert (flow.width, flow.models) == (None, ())
    assert flow.filled(request(), 9)["1"]["inputs"]["noise_seed"] == 9
    for body in ({"size": "64x64"}, {"n": 2}, {"negative_prompt": "x"}, {"seed": -1}):
        with pytest.raises(Exception, match=r"size|n |negative_prompt|seed"):
            flow.filled(request(**body), 9)
    flux = {**GRAPH, "11": {"class_type": "ModelSamplingFlux", "inputs": {"width": 512, "height": ["5", 0]}}}
    assert Workflow.of(flux).filled(request(size="64x32"), 9)["11"]["inputs"] == {"width": 64, "height": ["5", 0]}
    two = {**GRAPH, "11": GRAPH["3"]}
    assert Workflow.of(two, {"steps": "11", "seed": "11"}).nodes["seed"] == "11"


@pytest.mark.parametrize(
    ("graph", "named", "said"),
    [
        ([], {}, "must be an object of nodes"),
        ({"1": {}}, {}, "must be an object of nodes"),
        ({"nodes": [], "links": []}, {}, "Export (API)"),
        ({**GRAPH, "11": GRAPH["3"]}, {}, "2 nodes that could take the steps (3, 11)"),
        ({k: v for k, v in ADVANCED.items() if k != "2"}, {}, "has no steps node"),
        (GRAPH, {"prompt": "99"}, "no node '99' with text"),
        (GRAPH, {"size": "3"}, "no node '3' with width or height"),
        (GRAPH, {"sampler": "3"}, "no option 'sampler'"),
    ],
)
def test_a_workflow_in_which_a_request_has_no_place_is_refused(graph, named, said):
    with pytest.raises(InputError) as caught:
        Workflow.of(graph, named)
    assert said in str(caught.value)


def test_a_workers_file_names_the_workflow_beside_it(tmp_path):
    (tmp_path / "flow.json").write_text(json.dumps({**GRAPH, "11": GRAPH["3"]}))
    path = tmp_path / "workers.json"
    worker = {
        "url": "http://comfy:8188",
        "kind": "comfyui",
        "workflow": "flow.json",
        "nodes": {"steps": "3", "seed": "11"},
    }
    path.write_text(json.dumps({"workers": [worker]}))
    (found,) = read_workers(str(path))
    upstream = connect(found)
    assert isinstance(upstream, ComfyUpstream)
    assert upstream.workflow.nodes["seed"] == "11"
    assert len({found, found}) == 1
    for change in (
        {"kind": "openai"},
        {"workflow": None},
        {"workflow": 3},
        {"nodes": ["3"]},
        {"nodes": {"steps": 3}},
        {"workflow": None, "kind": "openai"},
    ):
        path.write_text(json.dumps({"workers": [{**worker, **change}]}))
        with pytest.raises(InputError, match=r"workers\[0\].(workflow|nodes) must be"):
            read_workers(str(path))
    path.write_text(json.dumps({"workers": [{**worker, "nodes": {}}]}))
    with pytest.raises(InputError, match=r"workflow 'flow.json' has 2 nodes"):
        connect(read_workers(str(path))[0])


def test_a_workflow_is_read_with_the_workers_file_and_not_where_requests_wait_for_the_disk(tmp_path):
    flow, path = tmp_path / "flow.json", tmp_path / "workers.json"
    worker = {"url": "http://comfy:8188", "kind": "comfyui", "workflow": "flow.json"}
    flow.write_text(json.dumps(GRAPH))
    path.write_text(json.dumps({"workers": [worker]}))
    source = WorkersSource(str(path))
    path.write_text(json.dumps({"workers": [worker, {**worker, "url": "http://comfy:8189"}]}))
    found = source.changed()
    flow.unlink()  # by now, a thread has read it
    limits = Limits(response=7)
    upstreams = [source.connect(each, limits) for each in found]
    assert [upstream.workflow.steps for upstream in upstreams] == [20, 20]
    assert upstreams[0]._limits is limits
    path.write_text(json.dumps({"workers": [worker]}))
    with pytest.raises(InputError, match=r"flow\.json"):
        source.changed()
    assert source.connect(found[1]).workflow.steps == 20
