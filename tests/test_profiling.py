"""Profiling: the file, the law, the adapters and the command, with a tiny pipeline and a small server."""

import base64
import io
import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from diffpolicy.cli.main import main
from diffpolicy.edge.hardware.adapters.diffusers_ import DiffusersAdapter
from diffpolicy.edge.hardware.adapters.http_ import HttpAdapter
from diffpolicy.edge.hardware.adapters.simulated_ import SimulatedAdapter
from diffpolicy.edge.hardware.calibration import service_of
from diffpolicy.edge.hardware.measuring.grid import Grid, parse_grid, parse_sizes
from diffpolicy.edge.hardware.measuring.plausibility import check_speed
from diffpolicy.edge.hardware.measuring.profiler import profile
from diffpolicy.edge.hardware.measuring.throughput import slots_of
from diffpolicy.edge.hardware.models.architectures import architecture
from diffpolicy.edge.hardware.models.building import count_parameters, step_flops
from diffpolicy.edge.hardware.schema.published import from_mlenergy
from diffpolicy.edge.hardware.schema.records import Fit, ServerInfo, SizeFit, Throughput
from diffpolicy.edge.hardware.schema.server_profile import ServerProfile, shipped
from diffpolicy.edge.hardware.server_adapter import GenerateRequest, GenerateTiming, OutOfMemoryError
from diffpolicy.edge.scenario.service_times import ServerService
from diffpolicy.errors import InputError

H100 = "mlenergy-h100-sd3-medium"
GRID = Grid(steps=(5, 10, 25), sizes=((512, 512), (1024, 1024)), batches=(1, 4), repeats=3)


def simulated(**options):
    return SimulatedAdapter(H100, **options)


@pytest.mark.parametrize("name", shipped())
def test_shipped_profiles_are_valid_and_tell_their_source(name):
    got = ServerProfile.load(name)
    assert got.name == name
    assert got.source.notice or got.source.command
    assert got.service_s(1024, 1024, 25) > 0
    assert ServerProfile.from_dict(got.to_dict()) == got


def test_shipped_figures_are_the_published_ones():
    assert ServerProfile.load(H100).service_s(1024, 1024, 25) == pytest.approx(1.90, abs=0.01)
    assert ServerProfile.load("mlenergy-a100-sd3-medium").service_s(1024, 1024, 25) == pytest.approx(3.78, abs=0.01)
    assert ServerProfile.load("mlperf-orin-sdxl").service_s(1024, 1024, 20) == pytest.approx(9.964)


def test_the_published_table_is_read_row_by_row(tmp_path):
    path = tmp_path / "table.csv"
    head = "commit,gpu,model,batch_size,denoising_steps,batch_latency_s,energy_per_image_j\n"
    gpu, model = "NVIDIA H100 80GB HBM3", "stabilityai/stable-diffusion-2-1"
    path.write_text(f"{head}x,{gpu},{model},2,25,3.0,7\nx,{gpu},{model},1,25,2.0,9\n")
    (got,) = from_mlenergy(path)
    assert [(p.width, p.batch, p.latency_s.p50, p.energy_j) for p in got.points] == [
        (768, 1, 2.0, 9.0),
        (768, 2, 3.0, 7.0),
    ]
    path.write_text(f"{head}x,{gpu},someone/else,2,25,3.0,7\n")
    with pytest.raises(InputError, match=r"line 2 names an unknown GPU or model: .*someone/else"):
        list(from_mlenergy(path))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": "diffpolicy.server_profile/2"}, "schema must be 'diffpolicy.server_profile/1'"),
        ({"colour": 1}, "unknown key 'colour'"),
        ({"points": 3}, "points must be a list"),
        ({"fit": {"text_s": 0.0, "sizes": []}}, "fit.sizes must hold at least one size"),
        ({"complete": 1}, "complete"),
    ],
)
def test_a_broken_profile_is_refused_with_its_key(tmp_path, change, words):
    path = tmp_path / "p.json"
    path.write_text(json.dumps(ServerProfile.load(H100).to_dict() | change))
    with pytest.raises(InputError, match=words):
        ServerProfile.load(path)


def test_profiling_finds_the_law_again():
    got = profile(simulated(scatter_sigma=0.01), GRID)
    for width, steps, batch in ((1024, 25, 1), (512, 10, 4), (1024, 5, 4)):
        assert got.service_s(width, width, steps, batch) == pytest.approx(
            ServerProfile.load(H100).service_s(width, width, steps, batch), rel=0.05
        )
    assert got.fit.ok
    assert got.fit.r2 > 0.99
    assert 0.003 < got.scatter_sigma < 0.03
    assert all(len(p.latency_s.values) == 3 for p in got.points)
    assert ServerProfile.from_dict(json.loads(json.dumps(got.to_dict()))) == got


def test_noise_alone_is_a_poor_fit_and_says_so():
    heard = []
    got = profile(
        simulated(scatter_sigma=2.0, seed=1), Grid((4, 5, 6), ((512, 512),), repeats=1), progress=heard.append
    )
    assert not got.fit.ok
    assert any("does not describe the times well" in line for line in heard)


class Struck:
    """A simulated server whose calls end as they are told to."""

    concurrent, device = False, None

    def __init__(self, strike):
        self.inner, self.strike, self.calls = simulated(), strike, 0

    def generate(self, request):
        self.calls += 1
        self.strike(self.calls, request)
        return self.inner.generate(request)

    def __getattr__(self, name):
        return getattr(self.inner, name)


def test_a_point_that_needs_too_much_memory_is_skipped_and_named():
    def strike(call, request):
        if request.batch == 4 and request.width == 1024:
            raise OutOfMemoryError("out of it")

    got = profile(Struck(strike), GRID)
    assert {(s.width, s.batch) for s in got.skipped} == {(1024, 4)}
    assert len(got.points) == 9
    assert "out of it" in got.skipped[0].reason


def test_an_interruption_keeps_what_was_measured():
    def strike(call, request):
        if call == 25:
            raise KeyboardInterrupt

    got = profile(Struck(strike), GRID)
    assert not got.complete
    assert got.points
    with pytest.raises(KeyboardInterrupt):
        profile(Struck(lambda call, request: (_ for _ in ()).throw(KeyboardInterrupt)), GRID)


def test_an_impossible_speed_is_rejected_and_a_slow_one_warned_of():
    server = ServerInfo("x", "cuda", 1, gpu="NVIDIA H100 80GB HBM3")

    def fit(step_s):
        return Fit(0.0, (SizeFit(1024, 1024, 1, step_s, 0.0),))

    flops = step_flops(architecture("sd3-medium"), 1024, 1024)
    assert flops == pytest.approx(17.81e12, rel=0.01)
    with pytest.raises(InputError, match=r"is impossible: 0.001 s a step implies"):
        check_speed(fit(0.001), server, "float16", lambda *size: flops)
    assert check_speed(fit(0.076), server, "float16", lambda *size: flops) == []
    assert "of the peak" in check_speed(fit(5.0), server, "float16", lambda *size: flops)[0]


def test_full_size_architectures_have_the_published_sizes():
    without = count_parameters(architecture("sd3-medium"))
    assert sum(without.values()) == 2_930_457_827
    assert sum(count_parameters(architecture("sd3-medium", t5=True)).values()) == 7_692_768_483
    assert count_parameters(architecture("sdxl"))["unet"] == 2_567_463_684
    assert count_parameters(architecture("sd15"))["unet"] == 859_520_964


def test_a_tiny_pipeline_is_built_timed_and_described():
    adapter = DiffusersAdapter("tiny", device="cpu")
    # steps far apart, and several times, since the time of one is a difference, which a busy machine may turn around
    got = profile(adapter, Grid((2, 12, 24), ((64, 64),), repeats=3))
    timing = got.points[0]
    assert timing.step_s is not None
    assert len(timing.step_s.values) == 2 * 3
    assert 0 < timing.step_s.p50 * 2 + timing.text_s + timing.decode_s <= timing.latency_s.p50 * 1.01
    assert got.model.weights == "random"
    assert got.model.text_tokens == 333
    assert got.memory.source == "computed from parameters"
    assert got.points[0].peak_bytes is None
    assert got.cold_start.build_s > 0


def test_devices_and_models_that_are_not_there():
    with pytest.raises(InputError, match=r"device cuda:7 is not there|cuda:7"):
        DiffusersAdapter("tiny", device="cuda:7")
    with pytest.raises(InputError, match="offloading encoders needs a GPU"):
        DiffusersAdapter("tiny", device="cpu", offload_encoders=True)


def test_a_pipeline_without_a_known_denoiser_is_refused():
    adapter = DiffusersAdapter("tiny", device="cpu")
    with pytest.raises(InputError, match="without a component transformer or unet"):
        adapter._ready(type("Odd", (), {"components": {}})())


def holding(sent):
    file = io.BytesIO()
    Image.new("RGB", tuple(map(int, sent["size"].split("x")))).save(file, "PNG")
    return {"created": 1, "data": [{"b64_json": base64.b64encode(file.getvalue()).decode()}] * sent["n"]}


class Images(BaseHTTPRequestHandler):
    """A small server of the images API; what it answers is set on the class, or is what was asked for."""

    status, body, seen = 200, None, []

    def do_POST(self):
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).seen.append((self.path, sent, self.headers.get("Authorization")))
        body = holding(sent) if self.body is None else self.body
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    handler = type("Handler", (Images,), {"seen": []})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}", handler
    http.shutdown()
    http.server_close()


def test_a_server_behind_a_url_is_asked_and_timed(server, monkeypatch):
    url, handler = server
    monkeypatch.setenv("IMAGES_KEY", "secret-token")
    adapter = HttpAdapter(url, model="m", api_key_env="IMAGES_KEY")
    timing = adapter.generate(GenerateRequest("a cat", 64, 96, steps=7, batch=1, seed=3))
    assert isinstance(timing, GenerateTiming)
    path, sent, authorization = handler.seen[0]
    assert path == "/v1/images/generations"
    assert (sent["prompt"], sent["n"], sent["size"], sent["num_inference_steps"]) == ("a cat", 1, "64x96", 7)
    assert authorization == "Bearer secret-token"
    got = profile(adapter, Grid((2, 4, 6), ((64, 64),), repeats=1), concurrency=2)
    assert "secret-token" not in json.dumps(got.to_dict())
    assert {t.concurrency for t in got.throughput} == {1, 2}
    assert got.slots in (1, 2)


@pytest.mark.parametrize(
    ("rates", "slots", "together"),
    [({1: 1.0}, None, 1.0), ({1: 1.0, 2: 1.05, 4: 1.08}, 1, 1.0), ({1: 1.0, 2: 1.6, 4: 1.7, 8: 2.4}, 8, 8 / 2.4)],
)
def test_slots_are_the_fewest_that_no_more_beat_by_a_tenth(rates, slots, together):
    throughput = tuple(Throughput(n, 1, 64, 64, 20, rate) for n, rate in rates.items())
    assert slots_of(throughput) == slots
    found = replace(ServerProfile.load("tiny-cpu"), throughput=throughput, slots=slots_of(throughput))
    assert ServerProfile.from_dict(found.to_dict()) == found
    assert found.together == pytest.approx(together)
    service = service_of(found)
    assert (service.slots, service.together) == (slots or 1, pytest.approx(together))
    assert ServerService.from_dict(service.to_dict(), "service") == service


@pytest.mark.parametrize(("status", "body"), [(500, {}), (200, b"no json"), (200, {"data": []})])
def test_a_server_that_answers_wrongly_is_named(server, status, body):
    url, handler = server
    handler.status, handler.body = status, body
    with pytest.raises(InputError, match=r"127.0.0.1"):
        HttpAdapter(url).generate(GenerateRequest("a", 64, 64, 2))


def test_a_server_that_is_not_there_and_a_key_that_is_not_set():
    with pytest.raises(InputError, match=r"127.0.0.1:9"):
        HttpAdapter("http://127.0.0.1:9").generate(GenerateRequest("a", 64, 64, 2))
    with pytest.raises(InputError, match=r"'NO_SUCH_KEY'.* is not set"):
        HttpAdapter("http://127.0.0.1:9", api_key_env="NO_SUCH_KEY")
    with pytest.raises(InputError, match="url must begin with http"):
        HttpAdapter("ftp://x")


def test_grids_are_read():
    assert parse_grid("steps=4,10;sizes=64;batch=1") == {"steps": "4,10", "sizes": "64", "batches": "1"}
    assert parse_sizes("64,96x128", "sizes") == ((64, 64), (96, 128))
    with pytest.raises(InputError, match="--grid must be"):
        parse_grid("steps")


def test_the_command_measures_and_writes(tmp_path, capsys):
    out = tmp_path / "tiny.json"
    grid = "steps=2,8,16;sizes=64;batch=1"
    assert (
        main(["profile", "--model", "tiny", "--device", "cpu", "--grid", grid, "--repeats", "1", "--out", str(out)])
        == 0
    )
    printed = capsys.readouterr()
    assert "seconds of a call = text + steps x step + decode" in printed.out
    assert "round 1 of 1" in printed.err
    got = ServerProfile.load(out)
    assert got.source.command.startswith("diffpolicy profile --model tiny")
    assert str(tmp_path) not in out.read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--device", "cuda:5"], "cuda:5"),
        (["--model", "no-such/model"], "no-such"),
        (["--grid", "steps=x;sizes=64"], "steps must be whole numbers"),
        (["--url", "http://127.0.0.1:9", "--grid", "steps=2;sizes=64;batch=1"], "127.0.0.1:9"),
        (["--concurrency", "2"], "--concurrency needs --url"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(tmp_path, capsys, options, words):
    out = tmp_path / "p.json"
    assert main(["profile", *options, "--out", str(out)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("diffpolicy: ")
    assert words in error
    assert not out.exists()


def test_a_dry_run_tells_parameters_and_operations(capsys):
    assert main(["profile", "--model", "sd3-medium", "--dry-run", "--grid", "sizes=512;batch=1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["parameters"]["transformer"] == 2_028_328_000
