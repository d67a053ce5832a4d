"""What a request, a workers file and a refusal look like on the wire."""

import json
import os
import sys

import pytest

from diffpolicy import InputError
from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.image_request import ImageRequest
from diffpolicy.edge.serving.limits import Limits
from diffpolicy.edge.serving.worker_spec import WorkerSpec, read_workers
from diffpolicy.edge.serving.workers_source import WorkersSource


def test_a_prompt_alone_is_a_request_and_unknown_fields_go_on() -> None:
    request = ImageRequest.parse({"prompt": "a cat", "style": {"x": 1}}, "r1")
    assert request.size is None
    assert request.images == 1
    assert request.body["style"] == {"x": 1}
    assert "a cat" not in repr(request)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ([], None),
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"prompt": "x" * 101}, "prompt"),
        ({"prompt": "x", "size": "10"}, "size"),
        ({"prompt": "x", "size": "0x10"}, "size"),
        ({"prompt": "x", "size": "1000x1001"}, "size"),
        ({"prompt": "x", "width": 1000, "height": 1001}, "size"),
        ({"prompt": "x", "size": "99999x1"}, "size"),
        ({"prompt": "x", "width": 99999}, "width"),
        ({"prompt": "x", "size": "64x64", "width": 512}, "size"),
        ({"prompt": "x", "guidance_scale": float("inf")}, None),
        ({"prompt": "x", "n": 0}, "n"),
        ({"prompt": "x", "n": True}, "n"),
        ({"prompt": "x", "n": 1.0}, "n"),
        ({"prompt": "x", "num_inference_steps": 51}, "num_inference_steps"),
        ({"prompt": "x", "partial_images": 4}, "partial_images"),
        ({"prompt": "x", "stream": "yes"}, "stream"),
        ({"prompt": "x", "model": 3}, "model"),
        ({"prompt": "x", "response_format": "file"}, "response_format"),
        ({"prompt": "x", "response_format": ["url"]}, "response_format"),
    ],
)
def test_what_is_no_request_is_refused_by_400_that_names_the_parameter(body: object, param: str | None) -> None:
    with pytest.raises(ApiError) as caught:
        ImageRequest.parse(body, "r1", limits=Limits(prompt=100, pixels=1000 * 1000, steps=50))
    assert caught.value.status == 400
    assert caught.value.body()["error"]["param"] == param


def test_a_workers_file_names_the_worker_and_the_key_that_are_wrong(tmp_path) -> None:
    path = tmp_path / "workers.json"
    path.write_text(json.dumps({"workers": [{"url": "http://a:1", "slots": 2, "models": ["sd3"]}]}))
    assert read_workers(str(path)) == (WorkerSpec("http://a:1", "a:1", slots=2, models=("sd3",)),)
    for entry, said in [
        ({"url": "ftp://a"}, "workers[1].url must begin with"),
        ({"url": "http://b:1", "slot": 1}, "workers[1] has no option 'slot'"),
        ({"url": "http://b:1", "slots": 0}, "workers[1].slots must be at least 1"),
        ({"name": "b"}, "workers[1].url is missing"),
        ({"url": "http://a:1"}, "twice"),
        ({"url": "http://b:1", "models": "sd3"}, "workers[1].models must be a list"),
        ({"url": "http://b:1", "models": 0.5}, "workers[1].models must be a list"),
        (7, "workers[1] must be an object"),
        ({"url": "http://b:1", "speed": 1e-320}, "workers[1].speed must be at least 1e-06"),
    ]:
        path.write_text(json.dumps({"workers": [{"url": "http://a:1"}, entry]}))
        with pytest.raises(InputError, match="workers") as caught:
            read_workers(str(path))
        assert said in str(caught.value)
    for text, said in (("[" * 20_000, "nested too deeply"), ('{"workers": [], "workers": []}', "'workers' twice")):
        path.write_text(text)
        with pytest.raises(InputError, match=said):
            read_workers(str(path))
    for text in ("gpu-1:8000,gpu-2:8000", "10.0.0.7:8000"):
        with pytest.raises(InputError, match="addresses of workers begin with http:// or https://, got '" + text):
            read_workers(text)
    assert [worker.url for worker in read_workers("http://a:1, http://b:1")] == ["http://a:1", "http://b:1"]


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_a_pipe_is_no_workers_file_and_nobody_waits_for_its_writer(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is a device, a pipe or a socket"):
        WorkersSource(str(tmp_path / "pipe"))
