"""Rewritten graphs: the same function of fewer nodes."""

import pytest
import torch
from torch import nn
from torch.nn.functional import softplus, softsign

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from diffpolicy.export.simplify import simplify  # noqa: E402

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
