"""Rewritten graphs: the same function of fewer nodes."""

import pytest
import torch
from torch import nn
from torch.nn.functional import softplus, softsign

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from torchrl.data import Binary, Categorical, MultiCategorical, Unbounded  # noqa: E402

from diffpolicy import DiffusionPolicy, FeedforwardPolicy  # noqa: E402
from diffpolicy.diffusion import MaskedProcess  # noqa: E402
from diffpolicy.export import Decision, export_decision  # noqa: E402
from diffpolicy.export.simplify import simplify  # noqa: E402
from diffpolicy.policies import ActionMemory  # noqa: E402
from test_any_action import Sent  # noqa: E402
from test_joint import env_of  # noqa: E402
from test_keys import Specs  # noqa: E402

WEIGHT = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))


class Stacked(nn.Module):
    """Features of a set, each of which a rule may take apart. Args: x, y: `[R, S]`, above 0."""

    def forward(self, x, y):
        whole = x.sum(-1, keepdim=True)
        columns = [
            0.25 * ((1 + x) / (1 + x / 200)).log(),
            (x * y / whole).log() - 1,
            2 * (y + 0.5) / whole - 1,
            (1.5 * whole).log().expand_as(x),
            y,
        ]
        return softsign(torch.stack(columns, -1) @ WEIGHT) + 1


class Odd(nn.Module):
    """A factor of another shape than the others, which stays where it is. Args: x: `[R, S]`, y: `[1]`, above 0."""

    def forward(self, x, y):
        columns = [(x / y).log(), x * y, x, 3 + x, x - 2]
        return softsign(torch.stack(columns, -1) @ WEIGHT) + 1


class Small(nn.Module):
    """Those of one value."""

    def forward(self, x, y):
        z = softplus(30 * x) + 0.0 * y
        return torch.stack([softsign(z), y], -2) + 1


class Chained(nn.Module):
    """Two steps of a chain, whose matrices are multiplied beforehand, and a scaled end."""

    def forward(self, x, y):
        z = torch.stack([x, y], -1)
        first = softsign(z @ WEIGHT[:2] + 1)
        state = 0.5 * z + 2 * (first @ WEIGHT[:2].T)
        second = softsign(state @ WEIGHT[:2] + WEIGHT[2])
        return 3 * (second @ WEIGHT[:2].T + 0.5) - 1


class Ranked(nn.Module):
    """Rows that are computed together and taken apart, and a number over a shape that a truth value has."""

    def forward(self, x, y):
        more = x > y
        both = torch.stack([x, y], -2).masked_fill(~more.unsqueeze(-2), 7.0)
        a, b = (2 * (both - 1 + 0.5) / both.sum(-1, keepdim=True) - 1).unbind(-2)
        clipped = (y.sum(-1, keepdim=True) - 1).clamp(-1, 2).expand_as(x)
        return torch.stack([a, b, clipped, torch.ones_like(x) * y], -1) @ WEIGHT[:4]


def exported(module, example, path):
    rows, many = (torch.export.Dim(name, min=1, max=1024) for name in ("rows", "many"))
    dynamic = tuple({0: rows, 1: many} if x.ndim == 2 else None for x in example)
    torch.onnx.export(module, example, str(path), dynamic_shapes=dynamic, dynamo=True, verbose=False)
    return onnx.load(str(path))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("module", "gone", "second"),
    [
        (Stacked, {"Abs", "Expand", "Sub"}, (3, 4)),
        (Odd, {"Abs", "Sub"}, (1,)),
        (Small, {"Abs", "Greater", "Where"}, (3, 4)),
        (Chained, {"Abs", "Mul", "Sub"}, (3, 4)),
        (Ranked, {"Expand", "Not", "Slice", "Squeeze"}, (3, 4)),
    ],
)
def test_a_simpler_graph_is_the_same_function_for_any_sizes(module, gone, second, tmp_path) -> None:
    generator = torch.Generator().manual_seed(1)
    model = exported(module(), (torch.rand(3, 4) + 0.1, torch.rand(second) + 0.1), tmp_path / "x.onnx")
    before, names = len(model.graph.node), [x.name for x in model.graph.output]
    simplify(model)
    onnx.checker.check_model(model)
    kinds = [n.op_type for n in model.graph.node]
    assert len(kinds) < before
    assert kinds.count("Unsqueeze") <= 2  # of what the last dimension shares, and of a mask
    assert not gone & set(kinds)
    assert [x.name for x in model.graph.output] == names
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for shape in ((3, 4), (1, 1), (1, 9), (6, 1)):
        x = torch.rand(shape, generator=generator) + 0.1
        y = torch.rand(shape if len(second) == 2 else second, generator=generator) + 0.1
        feed = dict(zip((i.name for i in session.get_inputs()), (x.numpy(), y.numpy()), strict=True))
        assert torch.allclose(torch.from_numpy(session.run(None, feed)[0]), module()(x, y), atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_matrices_are_multiplied_beforehand_only_while_that_is_less_work(tmp_path) -> None:
    class Wide(nn.Module):
        def forward(self, x, y):
            return softsign(x @ torch.ones(4, 300) + 1) @ torch.ones(300, 3) @ torch.ones(3, 300) + y.sum()

    rows = torch.export.Dim("rows", min=1, max=64)
    example = (torch.rand(3, 4), torch.rand(3, 4))
    torch.onnx.export(
        Wide(), example, str(tmp_path / "x.onnx"), dynamic_shapes=({0: rows}, {0: rows}), dynamo=True, verbose=False
    )
    model = onnx.load(str(tmp_path / "x.onnx"))
    simplify(model)
    held = {tuple(x.dims) for x in model.graph.initializer}
    assert (300, 3) in held
    assert (300, 300) not in held


def policies():
    """One of each way in which a mask is read, by name."""
    masked = {"observation": Unbounded((4, 2)), "action_mask": Binary(3, (4, 3), dtype=torch.bool)}
    parts = {**masked, "action_mask": Binary(5, (4, 5), dtype=torch.bool)}
    joint = {"items": "joint", "steps": 2, "denoiser": {"hidden": 8, "blocks": 1}}
    memory = {"prior": ActionMemory(), "steps": 2, "denoiser": {"act": "mish"}}
    return {
        "one choice": FeedforwardPolicy.from_specs(Specs(masked, Categorical(3, (4,)))),
        "several choices": FeedforwardPolicy.from_specs(Specs(parts, MultiCategorical([2, 3], (4, 2)))),
        "a memory": DiffusionPolicy.from_specs(Specs(masked, Categorical(3, (4,))), **memory),
        "joint items": DiffusionPolicy.from_specs(env_of(), **joint),
        "several keys": DiffusionPolicy.from_specs(Sent(5, None), steps=2),
        "tokens": DiffusionPolicy.from_specs(Specs(masked, Categorical(3, (4,))), schedule=MaskedProcess(2)),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", policies())
def test_a_raw_graph_refuses_an_input_of_one_row_beside_others_of_three(name, tmp_path, capfd) -> None:
    """And it says nothing as it is loaded, as it did of a `Mish` of constants."""
    policy = policies()[name]
    decision, path = Decision(policy), export_decision(policy, tmp_path / "decision.onnx").path
    capfd.readouterr()
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert "Mish" not in capfd.readouterr().err
    assert "Mish" not in {n.op_type for n in onnx.load(str(path)).graph.node}
    generator = torch.Generator().manual_seed(0)
    whole = {i.name: i.random(3, generator) for i in decision.inputs}
    ours = decision(*whole.values())
    feed = {n: x.numpy() for n, x in whole.items()}
    for a, b in zip(ours, session.run(None, feed), strict=True):
        torch.testing.assert_close(torch.from_numpy(b), a, rtol=1e-5, atol=1e-5)
    first = {i.name: whole[i.name].narrow(i.shape.index("rows"), 0, 1).numpy() for i in decision.inputs}
    for name in feed:
        for given in ({**feed, name: first[name]}, {**first, name: feed[name]}):
            with pytest.raises(Exception, match="ONNXRuntimeError"):
                session.run(None, given)
