"""Policies on any environment: keys from specs, masks, seeds, samplers, and what a subclass may override."""

import math
import warnings

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Bounded, Composite, MultiCategorical, OneHot, Unbounded
from torchrl.envs.utils import ExplorationType, check_env_specs, set_exploration_type

from diffpolicy import (
    ActionMemory,
    CategoricalHead,
    DiffusionPolicy,
    FeedforwardPolicy,
    GaussianPrior,
    GreedyValuePolicy,
    InputError,
    Policy,
    with_recurrent_state,
)
from diffpolicy.edge import OffloadingEnv
from toys import GuessEnv, small

CLASSES = [DiffusionPolicy, FeedforwardPolicy, GreedyValuePolicy]
PRIORS = [GaussianPrior(), ActionMemory()]


def action_of(td):
    return td["agents", "action"] if "agents" in td.keys() else td["action"]


def play(policy, env, steps=7):
    env = with_recurrent_state(env, policy)
    with torch.no_grad():
        return env.rollout(steps, policy, break_when_any_done=False)


# Any environment


@pytest.mark.parametrize("agents", [None, 2])
@pytest.mark.parametrize("mask", [False, True])
def test_the_toy_environment_keeps_torchrls_contract(agents, mask):
    check_env_specs(GuessEnv(4, agents, mask=mask))


@pytest.mark.parametrize("agents", [None, 2])
@pytest.mark.parametrize("prior", PRIORS, ids=["gaussian", "memory"])
def test_a_diffusion_policy_plays_any_environment(agents, prior):
    env = GuessEnv(4, agents)
    policy = DiffusionPolicy.from_specs(env, prior=prior, steps=3)
    rollout = play(policy, env)
    action = action_of(rollout)
    assert action.shape == (4, 7) if agents is None else (4, 7, agents)
    assert action.dtype == torch.int64
    assert ((action >= 0) & (action < 3)).all()
    assert all(torch.isfinite(v).all() for v in rollout.values(True, True) if v.is_floating_point())


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("agents", [None, 2])
def test_specs_give_widths_and_keys(kind, agents):
    env = GuessEnv(4, agents, choices=4, mask=True)
    policy = kind.from_specs(env)
    lead = () if agents is None else ("agents",)
    assert (policy.choices, policy.observation_dim, policy.agents) == (4, 4, agents)
    assert policy.action_key == ("action" if agents is None else ("agents", "action"))
    assert policy.mask_key == ((*lead, "action_mask") if lead else "action_mask")
    assert policy.valid_key is None
    assert kind.from_specs(env, mask_key=None).mask_key is None
    policy.check_env(env)


def test_the_edge_environment_gives_its_mask_its_items_and_its_information():
    env = OffloadingEnv(small(), [2], information="stale")
    policy = DiffusionPolicy.from_specs(env)
    assert (policy.choices, policy.observation_dim, policy.agents) == (3, 5, 3)
    assert policy.mask_key == ("agents", "action_mask")
    assert policy.valid_key == ("agents", "valid")
    assert policy.information == "stale"


def test_several_observation_keys_are_read_side_by_side():
    env = OffloadingEnv(small(), [2])
    values = FeedforwardPolicy.from_specs(env, observation_keys=[("agents", "observation"), ("agents", "observation")])
    assert values.observation_dim == 10
    assert action_of(play(values, env, 3)).shape == (2, 3, 3, 5)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_policy_works_without_a_batch_and_on_a_batch_of_time(kind):
    policy = kind.from_specs(GuessEnv(4))
    one = policy(TensorDict(observation=torch.randn(3)))
    assert one["action"].shape == ()
    many = policy(TensorDict(observation=torch.randn(4, 6, 3), batch_size=[4, 6]))
    assert many["action"].shape == (4, 6)


def test_a_slot_without_any_task_is_no_difficulty():
    env = OffloadingEnv(small(), [2])
    policy = DiffusionPolicy.from_specs(env, prior=ActionMemory())
    td = with_recurrent_state(env, policy).reset()
    td["agents", "valid"] = torch.zeros_like(td["agents", "valid"])
    td = policy(td)
    assert torch.equal(td["agents", "action"], torch.zeros(2, 3, 5, dtype=torch.int64))
    assert torch.equal(td["next", "agents", "latent"], td["agents", "latent"])


# What from_specs refuses


@pytest.mark.parametrize("key", ["pixels", ("agents", "pixels")])
def test_an_unknown_observation_key_is_refused(key):
    with pytest.raises(InputError, match=r"pixels.*observation"):
        DiffusionPolicy.from_specs(GuessEnv(4, 2), observation_keys=[key])


def test_an_unknown_action_key_is_refused():
    with pytest.raises(InputError, match="move"):
        DiffusionPolicy.from_specs(GuessEnv(4), action_key="move")


def test_an_unknown_mask_key_is_refused():
    with pytest.raises(InputError, match="legal"):
        DiffusionPolicy.from_specs(GuessEnv(4), mask_key="legal")


def test_an_action_without_bounds_is_refused():
    env = GuessEnv(4)
    env.action_spec = Composite(action=Unbounded((4, 2)), shape=(4,))
    with pytest.raises(InputError, match="'action' is a vector without bounds"):
        DiffusionPolicy.from_specs(env)


ACTIONS = {
    "one-hot": OneHot(3, (4, 3)),
    "multi-categorical": MultiCategorical([3, 2], (4, 2)),
    "bounded": Bounded(-2.0, 3.0, (4, 2)),
}


@pytest.mark.parametrize("kind", [DiffusionPolicy, FeedforwardPolicy])
@pytest.mark.parametrize("name", ACTIONS)
def test_any_action_is_decided_saved_and_decided_alike(kind, name, tmp_path):
    env = GuessEnv(4)
    env.action_spec = Composite(action=ACTIONS[name], shape=(4,))
    policy = kind.from_specs(env, seed=3)
    td = env.reset()
    action = policy(td.clone())["action"]
    assert env.full_action_spec["action"].is_in(action)
    policy.check_env(env)
    policy.save(tmp_path)
    again = kind.load(tmp_path)
    again.reseed(3)
    fresh = kind.from_specs(env, seed=3).eval()
    fresh.reseed(3)
    assert torch.equal(again(td.clone())["action"], fresh(td.clone())["action"])
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        first, second = (policy(td.clone())["action"] for _ in range(2))
    assert torch.equal(first, second)
    with pytest.raises(InputError, match=r"decides|was made for actions of"):
        policy.check_env(GuessEnv(4))


@pytest.mark.parametrize("prior", [ActionMemory(), ActionMemory(store="probabilities")], ids=["x0", "probabilities"])
def test_several_choices_are_remembered(prior):
    env = GuessEnv(4)
    env.action_spec = Composite(action=ACTIONS["multi-categorical"], shape=(4,))
    policy = DiffusionPolicy.from_specs(env, prior=prior)
    env = with_recurrent_state(env, policy)
    td = policy(env.reset())
    assert td["next", "latent"].shape == (4, 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "quadratic"}, "quadratic"),
        ({"steps": 0}, "got 0"),
        ({"sampler": "euler"}, "tau-leaping or a Sampler, got 'euler'; did you mean flow-euler"),
        ({"steps": 3, "sampler_steps": 4}, "got 4"),
        ({"denoiser": {"act": "gelu"}}, "gelu"),
        ({"denoiser": {"output": "relu"}}, "relu"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        DiffusionPolicy.from_specs(GuessEnv(4), **options)


def test_parts_refuse_unknown_values():
    with pytest.raises(InputError, match=r"draw must be sample or argmax, got 'best'"):
        CategoricalHead("best")
    with pytest.raises(InputError, match=r"epsilon must be at most 1, got 1\.5"):
        GreedyValuePolicy.from_specs(GuessEnv(4), epsilon=1.5)


def test_a_policy_with_a_memory_asks_for_its_latent():
    policy = DiffusionPolicy.from_specs(GuessEnv(4), prior=ActionMemory())
    with pytest.raises(InputError, match="latent"):
        policy.logits(torch.zeros(4, 3))


# Masks and items that do not exist


@pytest.mark.parametrize("agents", [None, 2])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (DiffusionPolicy, {}),
        (DiffusionPolicy, {"head": CategoricalHead("argmax")}),
        (FeedforwardPolicy, {}),
        (GreedyValuePolicy, {"epsilon": 1.0}),
        (GreedyValuePolicy, {"epsilon": 0.0}),
    ],
)
def test_a_masked_choice_is_never_taken(kind, options, agents):
    env = GuessEnv(300, agents, mask=True)
    policy = kind.from_specs(env, **options).train()
    td = policy(env.reset())
    mask = td["action_mask"] if agents is None else td["agents", "action_mask"]
    assert mask.logical_not().any()
    assert mask.gather(-1, action_of(td).unsqueeze(-1)).all()


def test_the_only_allowed_choice_is_taken():
    env = GuessEnv(60, mask=True)
    td = env.reset()
    only = torch.arange(60) % 3
    td["action_mask"] = torch.nn.functional.one_hot(only, 3).bool()
    for policy in (DiffusionPolicy.from_specs(env), GreedyValuePolicy.from_specs(env, epsilon=1.0).train()):
        assert torch.equal(policy(td)["action"], only)


def test_an_edge_mask_of_one_station_holds_for_all_its_tasks():
    env = OffloadingEnv(small(), [2])
    policy = FeedforwardPolicy.from_specs(env)
    td = env.reset()
    td["agents", "action_mask"][:, 1, 2] = False
    td["agents", "action_mask"][:, 2, :2] = False
    for _ in range(20):
        action = policy(td)["agents", "action"]
        assert (action[:, 1] != 2).all()
        assert (action[:, 2][td["agents", "valid"][:, 2]] == 2).all()


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("prior", PRIORS, ids=["gaussian", "memory"])
def test_items_that_do_not_exist_do_not_matter(prior, share):
    env = OffloadingEnv(small(), [4])
    policy = DiffusionPolicy.from_specs(env, prior=prior, share_parameters=share)
    root = with_recurrent_state(env, policy).reset()
    valid = root["agents", "valid"]
    assert valid.logical_not().any()
    decided = []
    for fill in (0.0, math.nan):
        td = root.clone()
        td["agents", "observation"][~valid] = fill
        policy.generator.manual_seed(3)
        decided.append(policy(td))
    first, second = decided
    assert torch.equal(first["agents", "action"][valid], second["agents", "action"][valid])
    for td in decided:
        assert ((td["agents", "action"] >= 0) & (td["agents", "action"] < 3)).all()
    if prior.remembers:
        latent = second["next", "agents", "latent"]
        assert torch.equal(latent[valid], first["next", "agents", "latent"][valid])
        assert torch.equal(latent[~valid], root["agents", "latent"][~valid])


# Drawing


@pytest.mark.parametrize("kind", CLASSES)
def test_the_same_seed_gives_the_same_actions_twice(kind):
    def actions(seed):
        env = GuessEnv(8)
        return action_of(play(kind.from_specs(env, seed=seed).train(), env))

    torch.manual_seed(1)
    first = actions(5)
    torch.manual_seed(2)
    assert torch.equal(first, actions(5))
    assert not torch.equal(first, actions(6))


@pytest.mark.parametrize("kind", CLASSES)
def test_acting_leaves_the_global_random_state_alone(kind):
    state = torch.get_rng_state()
    env = GuessEnv(8)
    play(kind.from_specs(env).train(), env)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_sample_follows_the_softmax():
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0]).expand(40_000, 4)
    drawn = CategoricalHead("sample").choose(logits, torch.Generator().manual_seed(0))
    share = drawn.bincount(minlength=4) / len(drawn)
    torch.testing.assert_close(share, logits[0].softmax(-1), rtol=0, atol=0.01)


def test_argmax_takes_the_largest_without_a_draw():
    g = torch.Generator().manual_seed(0)
    state = g.get_state()
    assert CategoricalHead("argmax").choose(torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 1.0]]), g).tolist() == [1, 0]
    assert torch.equal(g.get_state(), state)


def test_epsilon_is_the_rate_of_uniform_choices_while_training_only():
    env = GuessEnv(3)
    policy = GreedyValuePolicy.from_specs(env, epsilon=0.3, seed=1)
    td = TensorDict(observation=torch.randn(1, 3).expand(20_000, 3), batch_size=[20_000])
    best = policy.eval()(td.clone())["action"]
    assert len(best.unique()) == 1
    drawn = policy.train()(td.clone())["action"]
    share = drawn.bincount(minlength=3) / len(drawn)
    expected = torch.full((3,), 0.1)
    expected[best[0]] += 0.7
    torch.testing.assert_close(share, expected, rtol=0, atol=0.015)


# Parameters, shared or of one's own


def test_agents_with_their_own_parameters_decide_differently_and_shared_ones_alike():
    env = GuessEnv(64, 2)
    td = env.reset()
    td["agents", "observation"][:, 1] = td["agents", "observation"][:, 0]
    own = FeedforwardPolicy.from_specs(env, head=CategoricalHead("argmax"))(td.clone())["agents", "action"]
    shared = FeedforwardPolicy.from_specs(env, head=CategoricalHead("argmax"), share_parameters=True)
    alike = shared(td.clone())["agents", "action"]
    assert (own[:, 0] != own[:, 1]).any()
    assert torch.equal(alike[:, 0], alike[:, 1])


def test_shared_parameters_do_not_depend_on_the_number_of_agents():
    policy = DiffusionPolicy.from_specs(GuessEnv(4, 2), share_parameters=True, prior=ActionMemory())
    policy.check_env(GuessEnv(4, 5))
    assert play(policy, GuessEnv(4, 5))["agents", "action"].shape == (4, 7, 5)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (GuessEnv(4, 2, choices=4), "3 choices.* 4"),
        (GuessEnv(4, 5), "2 agents.* 5"),
        (GuessEnv(4), r"\('agents', 'action'\)"),
    ],
)
def test_an_environment_that_does_not_fit_is_named_with_its_numbers(env, message):
    with pytest.raises(InputError, match=message):
        DiffusionPolicy.from_specs(GuessEnv(4, 2)).check_env(env)


def test_another_number_of_observed_features_is_named():
    policy = DiffusionPolicy(choices=3, observation_dim=9)
    with pytest.raises(InputError, match=r"9 observed features.* 3"):
        policy.check_env(GuessEnv(4))


def test_an_environment_without_the_observation_is_refused():
    policy = DiffusionPolicy(choices=3, observation_dim=3, observation_keys=["pixels"])
    with pytest.raises(InputError, match="pixels"):
        policy.check_env(GuessEnv(4))


# Samplers


def test_another_sampler_works_silently_where_the_chain_was_not_trained_through():
    env = GuessEnv(4)
    policy = DiffusionPolicy.from_specs(env, steps=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast = policy.with_sampler("ddim", 2)
    assert (fast.sampler, fast.sampler_steps) == ("ddim", 2)
    assert (policy.sampler, policy.sampler_steps) == ("ddpm", None)
    assert action_of(play(fast, env)).shape == (4, 7)
    assert [a is b for a, b in zip(fast.parameters(), policy.parameters(), strict=True)] == [True] * len(
        list(policy.parameters())
    )


def test_another_sampler_warns_where_the_chain_was_trained_through():
    policy = DiffusionPolicy.from_specs(GuessEnv(4), steps=5)
    policy.trained["through_chain"] = True
    with pytest.warns(UserWarning, match="another policy"):
        policy.with_sampler("ddim", 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        policy.with_sampler("ddpm", 5)
        policy.with_sampler("ddpm")


@pytest.mark.parametrize(("name", "steps", "message"), [("ddim", 6, "got 6"), ("euler", 2, "euler")])
def test_another_sampler_is_checked(name, steps, message):
    with pytest.raises(InputError, match=message):
        DiffusionPolicy.from_specs(GuessEnv(4), steps=5).with_sampler(name, steps)


def test_a_deterministic_sampler_from_a_memory_draws_nothing():
    env = GuessEnv(4)
    policy = DiffusionPolicy.from_specs(env, prior=ActionMemory(), sampler="ddim", head=CategoricalHead("argmax"))
    td = with_recurrent_state(env, policy).reset()
    state = policy.generator.get_state()
    policy(td)
    assert torch.equal(policy.generator.get_state(), state)


# Subclasses


class Scaled(DiffusionPolicy):
    """Conditions on a tenth of the observation."""

    def embed(self, td):
        return super().embed(td) / 10


class KnowsTheTarget(DiffusionPolicy):
    """Its exact denoiser of a point makes the chain end in the observation itself."""

    def __init__(self, **options):
        super().__init__(denoiser=torch.nn.Linear(1, 1), **{k: v for k, v in options.items() if k != "denoiser"})

    def denoise(self, x, t, cond):
        bar = self.schedule.values[t]
        return (x - math.sqrt(bar) * cond) / math.sqrt(1 - bar)


class TakesTheLeast(KnowsTheTarget):
    """Reads the end of the chain upside down."""

    def decode(self, x0, mask=None):
        return -x0


class SeesTheMask(DiffusionPolicy):
    """Keeps what it was given to decode."""

    def decode(self, x0, mask=None):
        self.__dict__["given"] = mask
        return x0


def test_a_subclass_may_say_what_is_conditioned_on():
    env = GuessEnv(32)
    td = env.reset()
    scaled, plain = Scaled.from_specs(env, seed=1), DiffusionPolicy.from_specs(env, seed=1)
    plain.load_state_dict(scaled.state_dict())
    tenth = td.clone().set("observation", td["observation"] / 10)
    assert torch.equal(scaled(td.clone())["action"], plain(tenth)["action"])


@pytest.mark.parametrize("agents", [None, 2])
@pytest.mark.parametrize("prior", PRIORS, ids=["gaussian", "memory"])
def test_a_subclass_may_denoise_by_itself(agents, prior):
    env = GuessEnv(32, agents)
    policy = KnowsTheTarget.from_specs(env, prior=prior, head=CategoricalHead("argmax"))
    td = policy(with_recurrent_state(env, policy).reset())
    seen = td["observation"] if agents is None else td["agents", "observation"]
    assert torch.equal(action_of(td), seen.argmax(-1))


def test_a_subclass_may_decode_by_itself():
    env = GuessEnv(32)
    policy = TakesTheLeast.from_specs(env, head=CategoricalHead("argmax"))
    td = policy(env.reset())
    assert torch.equal(td["action"], td["observation"].argmin(-1))


def test_what_is_remembered_is_the_end_of_the_chain_and_not_what_is_decoded_from_it():
    env = GuessEnv(32)
    policy = TakesTheLeast.from_specs(env, prior=ActionMemory(store="x0"), head=CategoricalHead("argmax"))
    td = policy(with_recurrent_state(env, policy).reset())
    torch.testing.assert_close(td["next", "latent"], td["observation"].clamp(-1, 1), rtol=0, atol=1e-4)


def test_a_subclass_is_given_the_mask_when_it_decodes():
    env = GuessEnv(32, mask=True)
    policy = SeesTheMask.from_specs(env)
    td = policy(env.reset())
    assert policy.given is not None
    assert torch.equal(policy.given, td["action_mask"])


@pytest.mark.parametrize("kind", [Scaled, KnowsTheTarget, TakesTheLeast])
def test_a_subclass_saves_and_loads(kind, tmp_path):
    env = GuessEnv(32)
    policy = kind.from_specs(env, seed=4, steps=3)
    policy.save(tmp_path)
    td = env.reset()
    for loaded in (kind.load(tmp_path), DiffusionPolicy.load(tmp_path), Policy.load(tmp_path)):
        assert type(loaded) is kind
        policy.generator.manual_seed(7)
        loaded.generator.manual_seed(7)
        assert torch.equal(policy(td.clone())["action"], loaded(td.clone())["action"])
    with pytest.raises(InputError, match=kind.__name__):
        FeedforwardPolicy.load(tmp_path)


def test_a_denoiser_of_ones_own_is_used():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(6, 3)

        def forward(self, x, t, cond):
            return self.layer(torch.cat([x, cond], -1)) / t

    env = GuessEnv(8)
    net = Net()
    policy = DiffusionPolicy.from_specs(env, denoiser=net)
    assert policy.denoiser is net
    assert action_of(play(policy, env)).shape == (8, 7)


class Flagged(torch.nn.Module):
    """A denoiser whose attributes are named like something of ours and mean something else."""

    def __init__(self):
        super().__init__()
        self.agents, self.frozen = 2, False
        self.layer = torch.nn.Linear(3 + 2, 3)

    def forward(self, x, t, cond):
        return self.layer(torch.cat([x, cond], -1))


@pytest.mark.parametrize("agents", [None, 2])
def test_common_names_in_a_denoiser_of_ones_own_mean_nothing(agents):
    policy = DiffusionPolicy(choices=3, observation_dim=2, agents=agents, denoiser=Flagged())
    assert sum(x.numel() for x in policy.denoiser.parameters()) == (agents or 1) * (5 * 3 + 3)
    rows = [*([agents] if agents else []), 3000]  # more than a block has
    seen = torch.zeros(*rows, 2)
    with torch.no_grad():
        assert policy.end(seen, torch.zeros(*rows, 3), None).shape == (*rows, 3)


def test_a_backward_pass_beside_a_decision_in_blocks_trains_the_embedding_of_time():
    policy = DiffusionPolicy(choices=3, observation_dim=2)
    denoiser = policy.denoiser
    with policy.settled():
        with torch.no_grad():
            assert denoiser.prepare(torch.zeros(4, 2)).time[0].data_ptr() == denoiser.fixed_time.data_ptr()
        denoiser(torch.ones(4, 3), 2, denoiser.prepare(torch.zeros(4, 2))).sum().backward()
    assert all(x.grad is not None for x in denoiser.embedding.parameters())


class Greatest(Policy):
    """A rule that is written as a policy: it has no parameters."""

    def output(self, condition, latent=None, noise=None):
        return condition


def test_a_policy_without_parameters_decides_and_says_where_it_computes():
    policy = Greatest(choices=3, observation_dim=3, head=CategoricalHead("argmax"))
    seen = torch.tensor([[1.0, 3.0, 2.0], [5.0, 0.0, 1.0]])
    assert policy(TensorDict({"observation": seen}, [2]))["action"].tolist() == [1, 0]
    assert (policy.device, policy.dtype) == (torch.device("cpu"), torch.float32)
