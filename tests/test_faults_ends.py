"""Where an episode ends and what it counts, intervals of pooled figures, and epochs that are no episodes."""

import csv
from dataclasses import replace

import lightning as L
import numpy as np
import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torchrl.data import Binary, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from diffpolicy import InputError
from diffpolicy.edge import Scenario
from diffpolicy.edge.problem import DELAY
from diffpolicy.edge.scenario.availability import Availability
from diffpolicy.edge.training import build
from diffpolicy.environments import Cost
from diffpolicy.environments.tally import Tally
from diffpolicy.evaluation import (
    Played,
    Result,
    difference_interval,
    mean_interval,
    play,
    pooled_interval,
    ratio_interval,
)
from diffpolicy.evaluation.intervals import _half_width
from diffpolicy.evaluation.tables import cost_cells
from diffpolicy.methods import SACMethod
from diffpolicy.training import RolloutStream
from diffpolicy.training.callbacks import EpisodeProgress, EvaluateEvery
from diffpolicy.training.fit import fit
from diffpolicy.training.stream import counted_parts
from toys import guess_transitions, quick_method, same_tensors, small


class Lives(EnvBase):
    """Each step costs 1, and 1000 more after a lane's end; lane e ends with its step `lengths[e]`.

    Args:
        lengths: of the lanes' episodes. batch: `[E]`, or [] for one lane without a batch. how: which flag is raised.
        start_over: begins anew within the step, as environments that reset themselves do.
    """

    batch_locked = True

    def __init__(self, lengths, batch=None, how="truncated", start_over=False):
        shape = [len(lengths)] if batch is None else batch
        super().__init__(batch_size=shape)
        self.lengths, self.how, self.start_over = torch.tensor(lengths).view(*shape, 1), how, start_over
        self.now, self.steps_after_all_ended = torch.zeros_like(self.lengths), 0
        self.observation_spec = Composite(observation=Unbounded((*shape, 2)), shape=shape)
        self.action_spec = Composite(action=Categorical(2, shape), shape=shape)
        self.reward_spec = Composite(reward=Unbounded((*shape, 1)), shape=shape)
        flags = {k: Binary(1, (*shape, 1), dtype=torch.bool) for k in ("done", "terminated", "truncated")}
        self.done_spec = Composite(flags, shape=shape)

    def _observation(self):
        return self.now.float().expand(*self.batch_size, 2).clone()

    def _flags(self, over):
        flags = {k: torch.zeros_like(over) for k in ("done", "terminated", "truncated")}
        return flags | {self.how: over, "done": over.clone()}

    def _reset(self, tensordict=None, **_):
        reset = None if tensordict is None else tensordict.get("_reset", None)
        self.now = torch.zeros_like(self.now) if reset is None else self.now.masked_fill(reset, 0)
        over = torch.zeros_like(self.now, dtype=torch.bool)
        return TensorDict({"observation": self._observation(), **self._flags(over)}, batch_size=self.batch_size)

    def _step(self, tensordict):
        late = self.now >= self.lengths
        self.now = self.now + 1
        over = self.now >= self.lengths
        reward = -1.0 - 1000 * late.float()
        if self.start_over:
            self.now = self.now.masked_fill(over, 0)
        values = {"observation": self._observation(), "reward": reward, **self._flags(over)}
        return TensorDict(values, batch_size=self.batch_size)

    def _set_seed(self, seed):
        pass

    def get_extra_state(self):
        return {"now": self.now.clone()}

    def set_extra_state(self, state):
        self.now = state["now"].clone()


def zero(env):
    shape = env.batch_size
    return TensorDictModule(lambda seen: torch.zeros(shape, dtype=torch.long), ["observation"], ["action"])


def played(env, steps, **options):
    return play(env, zero(env), steps, reward_key="reward", valid_key=None, **options)


# An episode ends where the environment says so


@pytest.mark.parametrize("how", ["done", "terminated", "truncated"])
def test_what_comes_after_the_end_costs_nothing(how):
    """The issue's case: 60 steps of a 50-step environment in two lanes."""
    result = played(Lives([50, 50], how=how), 60)
    assert len(result.cost) == 100
    assert result.cost.sum() == 100


@pytest.mark.parametrize("start_over", [False, True])
def test_each_lane_counts_its_own_episode(start_over):
    env, seen = Lives([1, 3, 7], start_over=start_over), []
    result = played(env, 60, first_episode=5, watch=lambda step: seen.append(1))
    assert np.bincount(result.episode)[5:].tolist() == [1, 3, 7]
    assert result.cost.tolist() == [1.0] * 11
    assert len(seen) == 7


def test_fewer_steps_cut_an_episode():
    assert np.bincount(played(Lives([2, 9]), 4).episode).tolist() == [2, 4]


def test_an_environment_without_a_batch_is_one_lane():
    result = played(Lives([4], batch=[]), 10, first_episode=2)
    assert (result.cost.tolist(), set(result.episode)) == ([1.0] * 4, {2})


def test_a_policy_for_two_batch_dimensions_counts_all_lanes():
    result = played(Lives([1, 2, 3, 4], batch=[2, 2]), 10)
    assert np.bincount(result.episode).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"reward_key": ("agents", "reward"), "valid_key": None}, r"'agents', 'reward'"),
        ({"reward_key": "reward", "valid_key": ("agents", "valid")}, r"'agents', 'valid'"),
        ({"reward_key": "reward", "valid_key": "observation"}, r"'observation' must have an entry for each reward"),
        ({"reward_key": "reward", "valid_key": None, "note_keys": ["price"]}, r"'price'"),
    ],
)
def test_a_key_that_is_not_there_is_named(options, says):
    env = Lives([2])
    with pytest.raises(InputError, match=says):
        play(env, zero(env), 3, **options)


# Training counts the same


def stream(env, steps=1, episode_steps=8):
    return RolloutStream(env, zero(env), episode_steps=episode_steps, steps=steps)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_pass_is_one_episode_of_each_lane(steps):
    feed = stream(Lives([1, 3, 5]), steps)
    for _ in range(3):
        items = list(feed)
        assert len(items) == -(-5 // steps)
        parts = [part for item in items for part in counted_parts(item)]
        assert sum(part.numel() for part in parts) == 9
        assert all((part["next", "reward"] == -1).all() for part in parts)
        assert (feed.root["observation"] == 0).all()  # every lane begins the next pass


def test_a_lane_that_is_cut_begins_the_next_pass_anew():
    feed = stream(Lives([3, 20]), episode_steps=4)
    for _ in range(2):
        items = list(feed)
        assert len(items) == 4
        assert items[0]["observation"].eq(0).all()


def test_items_of_which_all_counts_have_no_further_key():
    assert all("counted" not in item.keys() for item in stream(Lives([8, 8])))


def module_of(lengths, start_after=4, **changes):
    env = Lives(lengths)
    rates = {"actor": 1e-3, "critic": 1e-3, "alpha": 1e-3}
    method = SACMethod(transitions=guess_transitions, learning_rates=rates, start_after=start_after, batch_size=4)
    return replace(method, **changes).build(env, episode_steps=10)


@pytest.mark.parametrize("changes", [{}, {"rollout_steps": 2, "normalize": True}])
def test_training_stores_and_counts_episodes_alone(changes):
    module = module_of([2, 6], **changes)
    fitted = fit(module, episodes=6)
    assert len(module.replay) == 3 * (2 + 6)
    assert [(row["episode"], row["cost"]) for row in fitted.history] == [(2, 4.0), (4, 4.0), (6, 4.0)]


def test_passes_that_end_early_resume_bitwise(tmp_path):
    whole = module_of([2, 6])
    fit(whole, episodes=8, out=tmp_path / "whole")
    fit(module_of([2, 6]), episodes=4, out=tmp_path / "half")
    resumed = module_of([2, 6])
    fitted = fit(resumed, episodes=8, out=tmp_path / "resumed", resume=tmp_path / "half" / "checkpoint.ckpt")
    assert fitted.episodes == 8
    assert [row["episode"] for row in fitted.history] == [2, 4, 6, 8]
    assert same_tensors(whole, resumed)


# Episodes are not epochs


def test_evaluations_come_after_so_many_episodes(tmp_path):
    """Every 4 episodes of two lanes is every second pass; every 3 is the pass that completes the third, sixth, ..."""
    for every, expected in ((4, [4, 8]), (3, [4, 6]), (1, [2, 4, 6, 8]), (16, [])):
        seen = []
        module = module_of([2, 2])
        fit(
            module,
            episodes=8,
            callbacks=[EvaluateEvery(lambda policy, seen=seen, m=module: seen.append(m.episodes) or {}, every)],
        )
        assert seen == expected, every


def test_evaluations_keep_their_count_when_a_run_goes_on(tmp_path):
    seen = []
    fit(module_of([2, 2]), episodes=4, out=tmp_path)
    module = module_of([2, 2])
    watch = EvaluateEvery(lambda policy: seen.append(module.episodes) or {}, 3)
    fit(module, episodes=10, callbacks=[watch], resume=tmp_path / "checkpoint.ckpt")
    assert seen == [6, 10]


def test_checkpoints_come_after_so_many_episodes(tmp_path):
    class Seen(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if (tmp_path / "training.csv").is_file():
                written.append(int(list(csv.DictReader((tmp_path / "training.csv").open()))[-1]["episode"]))

    written = []
    fit(module_of([2, 2]), episodes=8, out=tmp_path, checkpoint_every=4, callbacks=[Seen()])
    assert written == [4, 4] or written == [4, 4, 8]


def test_the_bar_counts_episodes():
    module = module_of([2, 2])
    bar = EpisodeProgress("mine")
    fit(module, episodes=6, callbacks=[bar])
    task = bar.progress.tasks[0]
    assert (task.total, task.completed) == (6, 6)


def test_the_episode_that_broke_off_is_named_by_its_number():
    module = module_of([2, 2], start_after=2)

    class Break(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if pl_module.episodes == 4:
                with torch.no_grad():
                    next(pl_module.policy.parameters()).fill_(torch.nan)

    with pytest.raises(FloatingPointError, match="in episode 5:") as raised:
        fit(module, episodes=8, callbacks=[Break()])
    assert raised.value.__cause__ is None  # an error that is its own cause never ends for whoever walks up causes


def test_train_tells_of_the_last_ten_episodes(cli, tmp_path):
    file = quick_method("sac-ts", tmp_path)
    words = ["--stations", 2, "--tasks", 2, "--slots", 2, "--out", tmp_path / "out"]
    result = cli("train", file, *words, "--episodes", 24, "--environments", 4)
    assert "24 episodes; mean delay of the last 12" in result.out


# A task that is sent again is one task


def failing():
    lost = Availability(mtbf_s=3.0, mttr_s=2.0)
    fleet = small(2, 3, 8)
    return replace(fleet, servers=tuple(replace(server, availability=lost) for server in fleet.servers))


def test_training_and_evaluation_count_a_task_once(tmp_path):
    """A policy that never learns has the same mean delay in its training curve as when the episode is played."""
    scenario = failing()
    module = build(quick_method("sac-ts", tmp_path, start_after=90), scenario)
    sent = []

    class Count(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            valid = batch["agents", "valid"]
            sent.append((batch["agents", "task"][valid], -batch["next", "agents", "reward"][valid].double()))

    row = fit(module, episodes=1, callbacks=[Count()]).history[0]
    task, cost = (torch.cat(x) for x in zip(*sent, strict=True))
    assert len(task.unique()) < len(task)  # some were sent again
    assert row["delay_s"] == pytest.approx(float(cost.sum()) / len(task.unique()), rel=1e-5)


# Intervals of pooled figures


def sizes(counts, means):
    """Episodes of so many items, all of which cost the mean."""
    cost, episode = np.repeat(means, counts), np.repeat(np.arange(len(counts)), counts)
    return Played(cost.astype(float), episode, 0.0, {})


def test_an_interval_belongs_to_the_pooled_ratio():
    """With the ratio estimator's residuals, not those of the episodes' own ratios."""
    counts = [2, 3, 3, 4]
    ratio, (lo, hi) = ratio_interval(sizes(counts, [1, 1, 1, 2]), sizes(counts, [1, 1, 1, 1]))
    assert ratio == pytest.approx(16 / 12)
    a, b = np.array([2, 3, 3, 8.0]), np.array(counts)
    half = 3.1824 * ((a - ratio * b) / b.mean()).std(ddof=1) / 2
    assert (lo, hi) == (pytest.approx(ratio - half, rel=1e-4), pytest.approx(ratio + half, rel=1e-4))


def test_an_episode_that_weighs_all_leaves_one_without_an_interval_to_speak_of():
    """The issue's case: four episodes, one with a hundred times the tasks; 1.97 was given in [1.18, 2.77]."""
    ratio, (lo, hi) = ratio_interval(sizes([1, 1, 1, 100], [1, 1, 1, 2]), sizes([1, 1, 1, 100], [1, 1, 1, 1]))
    assert ratio == pytest.approx(203 / 103)
    without = np.array([202 / 102] * 3 + [1.0])
    half = 12.7062 * np.sqrt(3 / 4 * ((without - without.mean()) ** 2).sum())
    assert (lo, hi) == (pytest.approx(ratio - half, rel=1e-4), pytest.approx(ratio + half, rel=1e-4))
    assert ratio_interval(sizes([1, 1], [1, 1]), sizes([1, 1], [0, 1]))[1] is None


@pytest.mark.parametrize("episodes", [4, 8, 16])
@pytest.mark.parametrize(("spread", "linear"), [(1.5, 0.81), (0.0, 1.0)])
def test_few_episodes_of_very_unequal_sizes_hold_the_truth_as_often(episodes, spread, linear):
    """Sizes of a lognormal law of this sigma; residuals with n - 1 degrees hold it less often than `linear`."""
    rng = np.random.default_rng(episodes)
    held = of_residuals = 0
    for _ in range(600):
        counts = np.exp(spread * rng.standard_normal(episodes)) * 100
        means = np.exp(0.5 * rng.standard_normal(episodes))
        truth, sums = np.exp(0.125), means * counts
        found, residuals = sums.sum() / counts.sum(), (sums - sums.sum() / counts.sum() * counts) / counts.mean()
        half = _half_width(residuals, lambda kept, s=sums, n=counts: kept(s) / kept(n), counts)
        held += abs(found - truth) <= half
        of_residuals += abs(found - truth) <= mean_interval(residuals).half_width
    assert 0.9 < held / 600 < 0.985
    assert of_residuals / 600 <= linear


def test_equal_episodes_have_students_interval():
    rng = np.random.default_rng(0)
    values = rng.exponential(1.0, (6, 10))
    some = Played(values.flatten(), np.repeat(np.arange(6), 10), 0.0, {})
    assert pooled_interval(some).half_width == pytest.approx(mean_interval(values.mean(1)).half_width)


def test_both_sides_may_have_items_of_their_own():
    """Twice the items of the same cost change neither the ratio nor its interval."""
    a, b = sizes([3, 4, 5], [1.0, 2.0, 1.5]), sizes([3, 4, 5], [1.1, 1.2, 1.3])
    twice = Played(np.repeat(b.cost, 2), np.repeat(b.episode, 2), 0.0, {})
    assert np.allclose(np.hstack(ratio_interval(a, b)), np.hstack(ratio_interval(a, twice)))
    assert difference_interval(a, b).half_width == pytest.approx(difference_interval(a, twice).half_width)


def test_an_episode_that_one_side_does_not_have_is_no_crash():
    ratio, (lo, hi) = ratio_interval(sizes([2, 0, 3], [1.0, 0.0, 2.0]), sizes([2, 2, 3], [1.0, 1.0, 2.0]))
    assert lo < ratio < hi


def coverage(draw, truth, interval, times=800):
    held = 0
    for _ in range(times):
        value, half = interval(*draw())
        held += abs(value - truth) <= half
    return held / times


@pytest.mark.parametrize("spread", [0.0, 0.3, 0.6])
def test_intervals_hold_the_truth_about_as_often_as_they_say(spread):
    """Episodes of unequal sizes, in which larger ones are slower too; unweighted means held it far less often."""
    rng = np.random.default_rng(3)

    def draw(episodes=30):
        counts = np.maximum(1, np.exp(rng.normal(3, spread, episodes)).round()).astype(int)
        level = np.exp(rng.normal(0, 0.3, episodes)) * counts**0.5
        return (
            sizes(counts, level * (1.5 + rng.normal(0, 0.3, episodes))),
            sizes(counts, level),
        )

    many = draw(200_000)
    ratio, mean = many[0].cost.mean() / many[1].cost.mean(), many[1].cost.mean()

    def of_ratio(a, b):
        value, (_, hi) = ratio_interval(a, b)
        return value, hi - value

    def of_mean(a, b):
        found = pooled_interval(b)
        return found.mean, found.half_width

    def of_difference(a, b):
        found = difference_interval(a, b)
        return found.mean, found.half_width

    least = 0.9 if spread < 0.6 else 0.84
    assert least <= coverage(draw, ratio, of_ratio) <= 0.98
    assert least <= coverage(draw, mean, of_mean) <= 0.98
    assert least <= coverage(draw, (ratio - 1) * mean, of_difference) <= 0.98


def test_where_an_episode_costs_nothing_there_is_a_difference_and_no_ratio():
    base = sizes([2, 2, 2], [0.0, 1.0, 1.0])
    result = Result.of(sizes([2, 2, 2], [0.5, 1.0, 1.5]), base)
    assert (result.ratio, result.ratio_ci95) == (None, None)
    assert result.to_dict(DELAY)["difference_s"] == pytest.approx(1 / 3)
    assert "+0.333 s ±" in cost_cells(result, "s")[5]
    assert Result.of(base, sizes([2, 2, 2], [0.0] * 3)).ratio is None


def test_tasks_without_any_cost_are_evaluated(cli, tmp_path, scenario):
    import json

    data = scenario.to_dict()
    data["workload"]["input_mbit"] = [0.0, 0.0]
    data["workload"]["by_index"] = {"gcycles_per_step": [0.0], "steps": [1], "result_mbit": [0.0]}
    data["workload"]["tasks_per_station_and_slot"] = [1, 1]
    path = tmp_path / "free.json"
    path.write_text(json.dumps(data))
    try:
        Scenario.load(path)
    except InputError:
        pytest.skip("such a scenario is refused")
    result = cli("evaluate", "opt-ts", "random", "--scenario", path, "--episodes", 2, "--json")
    assert result.status == 0, result.err
    found = json.loads(result.out)["policies"]["random"]
    assert (found["ratio"], found["difference_s"]) == (None, 0.0)


def test_an_item_that_does_not_exist_costs_nothing_in_training_either():
    """As `play` counts it; a curve counted it, and the learned policy was judged without it."""
    shape = (2, 3, 4)  # lanes, steps, items
    valid = torch.tensor([True, False, True, False]).expand(shape)
    for lead in ((), (1,)):
        reward = torch.where(valid, -1.0, -1e6).view(*shape, *lead)
        rollout = TensorDict({"valid": valid, "next": {"reward": reward}}, [2, 3])
        tally = Tally(Cost(per="item"), "reward", "valid")
        tally.add(rollout)
        assert tally.take(episodes=2) == (12.0, 12.0)
    shared = TensorDict({"valid": valid, "next": {"reward": torch.full((2, 3, 1), -1.0)}}, [2, 3])
    for per, count in (("episode", 2.0), ("step", 6.0), ("item", 6.0)):  # as `play` counts a reward that all share
        tally = Tally(Cost(per=per), "reward", "valid")
        tally.add(shared)
        assert tally.take(episodes=2) == (6.0, count)


def test_a_ratio_of_unequal_counts_spreads_as_the_derivatives_say():
    """Half the interval is t sd(d R / d w_k) sqrt(K), with the weight w_k of episode k, here by differences."""
    a, b = sizes([2, 3, 5, 4], [1.0, 2.0, 1.5, 1.2]), sizes([3, 3, 4, 5], [1.1, 1.2, 1.0, 1.3])
    (sums, counts), (base, base_counts) = (x.episode_sums(np.arange(4)) for x in (a, b))

    def ratio(w):
        return (w @ sums) / (w @ counts) / ((w @ base) / (w @ base_counts))

    step = 1e-6 * np.eye(4)
    slopes = np.array([(ratio(1 + d) - ratio(1 - d)) / 2e-6 for d in step])
    value, (lo, hi) = ratio_interval(a, b)
    assert value == pytest.approx(ratio(np.ones(4)))
    assert (hi - lo) / 2 == pytest.approx(3.1824 * slopes.std(ddof=1) * 2, rel=1e-4)
