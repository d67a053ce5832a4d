"""Trained policies, and rules that know more than a moment tells, in front of real servers."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from diffpolicy import InputError
from diffpolicy.edge.dispatch import Moment
from diffpolicy.edge.pricing import law
from diffpolicy.edge.serving import exported_fleet
from diffpolicy.edge.serving.learned import LearnedChoice
from diffpolicy.edge.serving.rules import LEARNED, make_policy
from diffpolicy.edge.serving.shown_speeds import finite, speeds

NAMES = (*LEARNED, "pretrained:live")


def moments(servers, seed=0, count=12):
    """Requests of unlike work on servers of unlike speeds, some of them busy; now and then one that cannot run it."""
    rng = np.random.default_rng(seed)
    for k in range(count):
        row = rng.uniform(1, 5) * 2.0 ** np.arange(servers)
        if k % 3 == 2:
            row[k % servers] = np.inf
        busy = rng.uniform(0, 6, servers) * (rng.random(servers) < 0.6)
        yield Moment.of(service_s=row[None], wait_s=[0.0], starts_s=busy)


@pytest.mark.parametrize("name", NAMES)
def test_it_binds_what_may_be_bound_also_when_servers_come_and_go_and_the_same_seed_the_same(name):
    def decided():
        dispatcher = make_policy(name, servers=3, seed=1).dispatcher
        bindings = []
        for moment in (*moments(3, count=6), *moments(4, count=6), *moments(2, count=6)):
            bindings.append(dispatcher.decide(moment))
            assert moment.runs[0, bindings[-1].server]
        return bindings

    assert decided() == decided()


def test_the_price_takes_the_only_server_that_is_not_drowned():
    choice = LearnedChoice("price", 3)
    for free in range(3):
        starts = np.full(3, 500.0)
        starts[free] = 0.0
        moment = Moment.of(service_s=[[2.0, 2.0, 2.0]], wait_s=[0.0], starts_s=starts)
        assert choice(moment, moment.runs[0]) == free


def test_a_held_request_goes_to_one_of_the_free_servers():
    named = make_policy("price", binding="free", order="first-come:price=none", servers=3)
    assert named.learned
    assert str(named) == "first-come:price=none then price when a server is free"
    service = [[4.0, 2.0, 1.0], [8.0, 4.0, 2.0]]
    binding = named.dispatcher.decide(Moment.of(service_s=service, wait_s=[2.0, 1.0], starts_s=[0.0, 0.0, 3.0]))
    assert binding.request == 0
    assert binding.server in (0, 1)


def test_speeds_are_told_from_times_and_what_cannot_run_is_slow_and_not_endless():
    rows = [np.array([2.0, 4.0, 1.0]) * work for work in (1.0, 3.0, 9.0)]
    assert speeds(rows) == pytest.approx([0.5, 0.25, 1.0])
    assert np.isfinite(finite(np.array([np.inf, 2.0]))).all()
    moment = Moment.of(service_s=[[1.0, np.inf]], wait_s=[0.0], starts_s=[0.0, 0.0])
    assert LearnedChoice("price", 2)(replace(moment, number=np.array([7])), moment.runs[0]) == 0


def test_what_is_no_policy_is_refused_before_anything_is_served(tmp_path):
    with pytest.raises(InputError, match=r"no policy\.json"):
        make_policy(str(tmp_path))
    with pytest.raises(InputError, match="did you mean pretrained:live"):
        make_policy("pretrained:life")


def decision_file(path, servers=3, *, stations=None, extra=(), kind="int64", drop=0):
    """An ONNX file made by hand that sends a request where it ends soonest, and remembers how often it was asked."""
    onnx = pytest.importorskip("onnx")
    from diffpolicy.export import description

    lead = ["rows"] if stations is None else [stations, "rows"]
    tensor, value = onnx.TensorProto, onnx.helper.make_tensor_value_info
    width = 2 + 2 * servers - drop
    inputs = [("observation", [*lead, width]), ("latent", [*lead, servers]), *((name, [*lead]) for name in extra)]
    make = onnx.helper.make_node
    cut = onnx.helper.make_tensor("cut", tensor.INT64, [3], [2, width - 2 - servers, servers])
    one = onnx.helper.make_tensor("one", tensor.FLOAT, [1], [1.0])
    nodes = [
        make("Split", ["observation", "cut"], ["task", "queue", "service"], axis=-1),
        make("Add", ["service", "service" if drop else "queue"], ["ends"]),
        make("Neg", ["ends"], ["logits"]),
        make("ArgMax", ["logits"], ["action"], axis=-1, keepdims=0),
        make("Add", ["latent", "one"], ["next_latent"]),
    ]
    outputs = [
        ("action", lead, kind),
        ("logits", [*lead, servers], "float32"),
        ("next_latent", [*lead, servers], "float32"),
    ]
    types = {"float32": tensor.FLOAT, "int64": tensor.INT64}
    graph = onnx.helper.make_graph(
        nodes,
        "decision",
        [value(name, tensor.FLOAT, shape) for name, shape in inputs],
        [value(name, types[dtype], shape) for name, shape, dtype in outputs],
        [cut, one],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    described = {
        "format": "onnx",
        "inputs": [{"name": name, "shape": shape, "dtype": "float32"} for name, shape in inputs],
        "outputs": [{"name": name, "shape": shape, "dtype": dtype} for name, shape, dtype in outputs],
    }
    description.write(path, described, model.SerializeToString())
    return str(path)


def test_a_decision_file_of_observations_decides_as_an_environment_would_show_it(tmp_path):
    pytest.importorskip("onnxruntime")
    named = make_policy(decision_file(tmp_path / "a.onnx"), servers=3, seed=1)
    assert not named.learned
    choice = named.dispatcher.choice
    for moment in moments(3):
        ends = moment.starts_s * choice._shown.speed + finite(moment.service_s[0])
        chosen = named.dispatcher.decide(moment).server
        speeds_are_known = choice._shown.speed.tolist() == pytest.approx([1.0, 0.5, 0.25])
        assert chosen == ends.argmin() or not speeds_are_known
        assert moment.runs[0, chosen]
    assert choice._latent[0].tolist() == pytest.approx([12 + 1 / 3] * 3)
    only = np.array([False, False, True])  # where it names another, the request goes where it may go
    assert choice(Moment.of(service_s=[[1.0, 2.0, 4.0]], wait_s=[0.0], starts_s=[0.0] * 3), only) == 2
    with pytest.raises(InputError, match="for 3 workers, and there are 4 now"):
        named.dispatcher.decide(next(iter(moments(4))))


@pytest.mark.parametrize(
    ("made", "servers", "said"),
    [
        ({}, 2, "among 3 from observations of 8 numbers, and 2 workers need 2 and 6"),
        ({"drop": 3}, 3, "among 3 from observations of 5 numbers, and 3 workers need 3 and 8"),
        ({"stations": 4}, 3, "decides for 4 stations at once; export one of them"),
        ({"extra": ("candidates",)}, 3, "chooses among candidates that its caller draws"),
        ({"extra": ("weather",)}, 3, "takes observation, latent, weather, which a dispatcher does not know"),
    ],
)
def test_a_decision_file_that_fits_no_dispatcher_of_these_workers_is_refused_in_a_sentence(
    tmp_path, made, servers, said
):
    pytest.importorskip("onnxruntime")
    path = decision_file(tmp_path / "a.onnx", **made)
    with pytest.raises(InputError, match=rf"decision file .*a\.onnx .*{said}"):
        make_policy(path, servers=servers)


def test_a_decision_file_is_served_without_torch(tmp_path):
    pytest.importorskip("onnxruntime")
    code = f"""
import sys
import diffpolicy.cli.serve, diffpolicy.edge.serving.api.app, diffpolicy.edge.serving.service
from diffpolicy.edge.dispatch.moment import Moment
from diffpolicy.edge.serving.rules import make_policy
named = make_policy({decision_file(tmp_path / "a.onnx")!r}, servers=3)
moment = Moment.of(service_s=[[1.0, 2.0, 4.0]], wait_s=[0.0], starts_s=[9.0, 0.0, 0.0])
assert named.dispatcher.decide(moment).server == 1
sys.exit('torch' in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0


def test_what_is_remembered_for_a_fleet_file_is_that_of_the_law():
    assert (exported_fleet.LATENTS, exported_fleet.TASKS_PER_SERVER) == (law.LATENTS, law.TASKS_PER_SERVER)
