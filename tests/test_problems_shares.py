"""Shares of a whole: the water level, and that what is called the best is, by the conditions of convex problems."""

import pytest
import torch

from diffpolicy.evaluation import evaluate
from diffpolicy.experiments import make_problem
from diffpolicy.policies import FeedforwardPolicy
from diffpolicy.policies.heads import SimplexHead
from diffpolicy.problems.filling import water_level
from diffpolicy.problems.power_allocation import rate, water_filling
from diffpolicy.problems.shares import shares_of
from diffpolicy.problems.split import LEAST, SplitRollout, best_split, finished, soft_delay


def draws(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_level_holds_the_volume():
    floor, width, volume = 5 * draws(4000, 6), 0.1 + draws(4000, 6, seed=1), 0.01 + 8 * draws(4000, seed=2)
    floor[draws(4000, 6, seed=3) < 0.3] = torch.inf
    floor[:, 0] = 2.0
    level = water_level(floor, width, volume).unsqueeze(-1)
    assert torch.allclose((width * (level - floor).clamp_min(0)).sum(-1), volume, rtol=1e-12)


def test_shares_sum_to_one_and_keep_to_what_is_allowed():
    action, allowed = 2 * draws(500, 5) - 1, draws(500, 5, seed=1) < 0.5
    allowed[:, 2] = True
    shares = shares_of(action, allowed, 0.05)
    assert torch.allclose(shares.sum(-1), torch.ones(500, dtype=torch.float64))
    assert not shares[~allowed].any()
    assert (shares[shares > 0] >= 0.05).all()
    assert torch.equal(shares_of(shares), shares / shares.sum(-1, keepdim=True))
    nothing = -torch.ones(3)
    assert torch.allclose(shares_of(nothing, torch.tensor([True, False, True])), torch.tensor([0.5, 0.0, 0.5]))


def test_no_exchange_of_power_raises_the_rate_of_water_filling():
    gain = 2 * draws(300, 10) + 1e-3
    power = water_filling(gain, 3.0)
    assert torch.allclose(power.sum(-1), torch.full((300,), 3.0, dtype=torch.float64))
    best = rate(gain, power)
    for a in range(10):
        for b in range(10):
            moved = power.clone()
            moved[:, a] += 1e-3
            moved[:, b] -= 1e-3
            assert (rate(gain, moved.clamp_min(0)) <= best + 1e-12)[power[:, b] > 1e-3].all()


def test_no_exchange_of_work_finishes_a_split_sooner():
    wait, whole, reach = 3 * draws(400, 5), 0.5 + 5 * draws(400, 5, seed=1), draws(400, 5, seed=2) < 0.7
    reach[:, 1] = True
    share = best_split(wait, whole, reach)
    assert torch.allclose(share.sum(-1), torch.ones(400, dtype=torch.float64))
    assert not share[~reach].any()
    best = finished(share, wait, whole)
    for seed in range(50):
        other = shares_of(draws(400, 5, seed=10 + seed) ** 4, reach)
        for way in (1.0, 0.1, 0.01):
            assert (finished(share + way * (other - share), wait, whole) >= best - 1e-12).all()


@pytest.mark.parametrize(("name", "best"), [("power-allocation", "water-filling"), ("split", "best-split")])
def test_no_rule_beats_the_best(name, best):
    problem = make_problem(name)
    results = evaluate(problem, [*problem.rules(), "random"], episodes=16).results
    means = {rule: row.costs.mean for rule, row in results.items()}
    assert min(means, key=means.get) == best
    if name == "power-allocation":
        assert means[best] == pytest.approx(0, abs=1e-4)


def test_leaving_out_small_pieces_loses_less_than_a_thousandth():
    env = make_problem("split").make_env(512, seed=2)
    td = env.reset()
    wait, whole, reach = (env.state[key] for key in ("wait_s", "whole_s", "in_reach"))
    best = best_split(wait.double(), whole.double(), reach)
    got = finished(shares_of(best, reach, LEAST), wait, whole)
    assert float(got.mean() / finished(best, wait, whole).mean()) < 1.001
    assert torch.allclose(-env.step(td.set("action", best.float()))["next", "reward"].squeeze(-1), got.float())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "worst"), [("power-allocation", 2.0), ("split", 1.6)])
def test_a_diffusion_policy_learns_it(name, worst):
    """Shows that `d2sac` comes near the optimum with the settings of the example."""
    import runpy
    from pathlib import Path

    example = Path(__file__).parents[1] / "examples" / "problems" / f"{name.replace('-', '_')}.py"
    assert runpy.run_path(str(example))["trained"](full=True).costs.mean < worst


def test_a_rollout_with_gradients_has_the_delays_of_the_environment():
    problem = make_problem("split")
    rollout, env = SplitRollout(problem.make_env(4, 1)), problem.make_env(4, 1)
    policy = FeedforwardPolicy.from_specs(env, head=SimplexHead(draw="argmax"))  # fresh, all pieces are large enough
    played = rollout(policy)
    td, delays = env.reset(), []
    for _ in range(env.steps):
        td = env.step(policy(td))["next"]
        delays.append(-td["reward"])
    ends = played["end_s"].amax(-1).view(4, -1)[:, : env.steps]
    assert torch.allclose(ends, torch.cat(delays, -1))
    ends.mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in policy.parameters())


def test_a_soft_delay_is_above_the_last_end_by_the_logarithm_of_their_number_at_most():
    end = 5 * draws(200, 4)
    for softness in (1.0, 0.1, 0.01):
        above = soft_delay(end, softness) - end.amax(-1)
        assert (above >= -1e-12).all()
        assert (above <= softness * torch.tensor(4.0).log() + 1e-12).all()
