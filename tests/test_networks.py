"""Networks: stacks equal loops over single networks; initial values; gradients stay with their agent."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

from diffpolicy import InputError
from diffpolicy.networks import MLP, CriticEnsemble, Dense, MLPDenoiser, TimeEmbedding
from toys import copy_slice, used_index

G, M, F, A, STEPS = 3, 7, 4, 5, 6


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def values(*shape, seed=1):
    return torch.randn(*shape, generator=generator(seed))


def denoise(net, x, i, c):
    return net(x, i, net.prepare(c))


# Single networks


def test_a_dense_layer_is_an_affine_map():
    layer = Dense(F, A, None, generator())
    x = values(M, F)
    torch.testing.assert_close(layer(x), x @ layer.weight + layer.bias)
    assert Dense(F, A, None, generator(), bias=False)(torch.zeros(M, F)).abs().sum() == 0


def test_an_mlp_is_its_layers_with_activations_between_them():
    net = MLP(F, A, (8, 6), "tanh", generator=generator())
    layers = [m for m in net.modules() if isinstance(m, Dense)]
    assert [tuple(layer.weight.shape) for layer in layers] == [(F, 8), (8, 6), (6, A)]
    x = values(M, F)
    expected = layers[2](layers[1](layers[0](x).tanh()).tanh())
    torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize("act", ["relu", "mish", "tanh", "silu"])
def test_activations_are_torchs(act):
    net = MLP(F, A, (8,), act, generator=generator())
    first, last = (m for m in net.modules() if isinstance(m, Dense))
    torch.testing.assert_close(net(values(M, F)), last(getattr(nn.functional, act)(first(values(M, F)))))


def test_without_hidden_layers_an_mlp_is_linear():
    net = MLP(F, A, (), generator=generator())
    zero = net(torch.zeros(M, F))
    torch.testing.assert_close(net(2 * values(M, F)) - zero, 2 * (net(values(M, F)) - zero))


def test_an_unknown_activation_is_refused():
    with pytest.raises(InputError, match="relu, mish, tanh, silu, got 'gelu'"):
        MLP(F, A, act="gelu")


def test_time_embeddings_begin_as_the_sinusoids_of_the_transformer():
    embedding = TimeEmbedding(STEPS, 8, None, generator())
    sinusoids = dict(embedding.named_buffers())["sinusoids"]
    for i in (1, 3, STEPS):
        angles = [i * 10000 ** (-k / 3) for k in range(4)]
        expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        torch.testing.assert_close(sinusoids[i - 1], torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_a_denoiser_tells_steps_conditions_and_starts_apart():
    net = MLPDenoiser(A, F, STEPS, generator=generator())
    x, c = values(M, A, seed=1), values(M, F, seed=2)
    eps = denoise(net, x, 1, c)
    assert eps.shape == x.shape
    assert not torch.allclose(eps, denoise(net, x, 2, c))
    assert not torch.allclose(eps, denoise(net, x, 1, c + 1))
    assert not torch.allclose(eps, denoise(net, x + 1, 1, c))


def test_rows_do_not_see_each_other():
    net = MLPDenoiser(A, F, STEPS, generator=generator())
    x, c = values(M, A, seed=1), values(M, F, seed=2)
    one_by_one = [denoise(net, x[m : m + 1], 3, c[m : m + 1]) for m in range(M)]
    torch.testing.assert_close(denoise(net, x, 3, c), torch.cat(one_by_one))


@pytest.mark.parametrize("output", ["linear", "tanh", "softmax"])
def test_the_output_is_what_its_name_says(output):
    x, c = values(M, A, seed=1), values(M, F, seed=2)
    linear = denoise(MLPDenoiser(A, F, STEPS, generator=generator()), x, 2, c)
    eps = denoise(MLPDenoiser(A, F, STEPS, output=output, generator=generator()), x, 2, c)
    expected = {"linear": linear, "tanh": linear.tanh(), "softmax": linear.softmax(-1)}[output]
    torch.testing.assert_close(eps, expected)


def test_denoisers_refuse_unknown_outputs_and_no_hidden_layer():
    with pytest.raises(InputError, match="linear, tanh, softmax, got 'relu'"):
        MLPDenoiser(A, F, STEPS, output="relu")
    with pytest.raises(InputError, match="hidden"):
        MLPDenoiser(A, F, STEPS, hidden=())
    with pytest.raises(InputError, match="even and at least 2, got time = 5"):
        MLPDenoiser(A, F, STEPS, time=5)


# Stacks


def test_a_stacked_dense_layer_equals_a_loop():
    stack = Dense(F, A, G, generator())
    x = values(G, M, F)
    loop = [copy_slice(Dense(F, A, None), stack, g)(x[g]) for g in range(G)]
    torch.testing.assert_close(stack(x), torch.stack(loop))


def test_a_stacked_mlp_equals_a_loop():
    stack = MLP(F, A, (8, 6), "mish", G, generator())
    x = values(G, M, F)
    loop = [copy_slice(MLP(F, A, (8, 6), "mish"), stack, g)(x[g]) for g in range(G)]
    torch.testing.assert_close(stack(x), torch.stack(loop))


@pytest.mark.parametrize("output", ["linear", "softmax"])
@pytest.mark.parametrize("hidden", [(8,), (8, 6)])
def test_a_stacked_denoiser_equals_a_loop(output, hidden):
    options = {"hidden": hidden, "act": "mish", "output": output, "time": 8}
    stack = MLPDenoiser(A, F, STEPS, agents=G, generator=generator(), **options)
    x, c = values(G, M, A, seed=1), values(G, M, F, seed=2)
    singles = [copy_slice(MLPDenoiser(A, F, STEPS, **options), stack, g) for g in range(G)]
    for i in (1, 4, STEPS):
        loop = [denoise(net, x[g], i, c[g]) for g, net in enumerate(singles)]
        torch.testing.assert_close(denoise(stack, x, i, c), torch.stack(loop))
    of_rows = torch.arange(G * M).view(G, M) % STEPS + 1
    loop = [denoise(net, x[g], of_rows[g], c[g]) for g, net in enumerate(singles)]
    torch.testing.assert_close(denoise(stack, x, of_rows, c), torch.stack(loop))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_stacked_critic_equals_a_loop(k):
    stack = CriticEnsemble(F, A, ensemble=k, hidden=(8,), act="tanh", agents=G, generator=generator())
    x = values(G, M, F)
    q = stack(x)
    assert q.shape == (k, G, M, A)
    seen = set()
    for e in range(k):
        for g in range(G):
            index = used_index(q[e, g], stack)
            seen.add(index)
            single = copy_slice(MLP(F, A, (8,), "tanh"), stack.mlp, index)
            torch.testing.assert_close(q[e, g], single(x[g]))
    assert len(seen) == k * G


def test_a_single_critic_gives_one_row_of_values_a_member():
    critic = CriticEnsemble(F, A, ensemble=2, generator=generator())
    q = critic(values(M, F))
    assert q.shape == (2, M, A)
    assert {used_index(q[0], critic), used_index(q[1], critic)} == {0, 1}


@pytest.mark.parametrize("agent", range(G))
def test_gradients_of_one_agent_do_not_touch_the_others(agent):
    stack = MLPDenoiser(A, F, STEPS, act="tanh", agents=G, generator=generator())
    x, c = values(G, M, A, seed=1), values(G, M, F, seed=2)
    denoise(stack, x, 3, c)[agent].square().sum().backward()
    for name, parameter in stack.named_parameters():
        per_agent = parameter.grad.flatten(1).abs().sum(1)
        assert per_agent[agent] > 0, name
        assert per_agent.sum() == per_agent[agent], name


# Initial values


def bounded_and_spread(weight, bound):
    return weight.abs().max() <= bound and weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)


@pytest.mark.parametrize("stack", [None, G])
def test_initial_values_are_uniform_within_one_over_root_fan_in(stack):
    layer = Dense(25, 200, stack, generator())
    assert bounded_and_spread(layer.weight, 0.2)
    assert bounded_and_spread(layer.bias, 0.2)
    assert bounded_and_spread(Dense(25, 200, stack, generator(), fan_in=100).weight, 0.1)


def test_initial_values_are_those_of_torchs_linear_in_law():
    torch.manual_seed(0)
    theirs = nn.Linear(16, 500)
    ours = Dense(16, 500, None, generator())
    assert ours.weight.std().item() == pytest.approx(theirs.weight.std().item(), rel=0.05)
    assert ours.bias.std().item() == pytest.approx(theirs.bias.std().item(), rel=0.1)


def test_the_first_layer_of_a_denoiser_counts_all_that_it_reads_as_fan_in():
    # with x, time and condition 2 + 6 + 92 = 100 wide, no weight on x exceeds .1 although x is 2 wide
    net = MLPDenoiser(2, 92, STEPS, hidden=(400,), time=6, output="linear", generator=generator())
    first_and_last = [p for p in net.parameters() if 400 in p.shape]
    assert len(first_and_last) >= 2
    assert all(p.abs().max() <= 0.1 for p in first_and_last)
    assert max(p.abs().max().item() for p in first_and_last) == pytest.approx(0.1, rel=0.01)


MAKERS = {
    "mlp": lambda g: MLP(F, A, generator=g),
    "stacked mlp": lambda g: MLP(F, A, agents=G, generator=g),
    "denoiser": lambda g: MLPDenoiser(A, F, STEPS, generator=g),
    "stacked denoiser": lambda g: MLPDenoiser(A, F, STEPS, agents=G, generator=g),
    "critic": lambda g: CriticEnsemble(F, A, agents=G, generator=g),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_generator_decides_all_initial_values(name):
    torch.manual_seed(1)
    first = MAKERS[name](generator(5)).state_dict()
    torch.manual_seed(2)
    state = torch.get_rng_state()
    again, other = MAKERS[name](generator(5)).state_dict(), MAKERS[name](generator(6)).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not any(torch.equal(first[k], other[k]) for k in first)


def test_agents_and_members_of_an_ensemble_start_differently():
    critic = CriticEnsemble(F, A, ensemble=2, agents=G, generator=generator())
    x = values(M, F).expand(G, M, F)
    rows = critic(x).flatten(0, 1)
    assert all(not torch.allclose(rows[i], rows[j]) for i in range(len(rows)) for j in range(i))


def test_parameters_of_a_stack_lie_as_tools_of_others_expect():
    """As `parameters_to_vector` does, which asks for views; gradients lie alike, as fused optimisers need it."""
    mlp = MLP(6, 3, (5,), agents=4)
    mlp(torch.ones(4, 8, 6)).square().sum().backward()
    for layer in (module for module in mlp.modules() if isinstance(module, Dense)):
        assert layer.weight.grad.stride() == layer.weight.stride()
    assert parameters_to_vector(mlp.parameters()).numel() == sum(p.numel() for p in mlp.parameters())
