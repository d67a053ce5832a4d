"""Training: the same bits twice, resumed as if it had never stopped, ended cleanly, and stopped where it goes wrong."""

import csv
import json
import math
import signal
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers.logger import DummyLogger

from diffpolicy import InputError, Policy
from diffpolicy.edge import OffloadingEnv, Stream, make_method, play_episodes
from diffpolicy.edge.names import METHOD_NAMES
from diffpolicy.edge.training import build, train
from diffpolicy.networks import MLP
from diffpolicy.training import EvolutionModule
from diffpolicy.training.callbacks import EvaluateEvery
from diffpolicy.training.fit import fit, no_denormals
from toys import quick_method, same_tensors, small

SLOTS = 8
SCENARIO = small(3, 5, SLOTS)
MEMORIES = ("lad-ts", "lad-ts-released", "lad-ts-plus", "plus-one-step")
LAD_TS_FIRST = ["lad-ts", *(pytest.param(name, marks=pytest.mark.slow) for name in METHOD_NAMES if name != "lad-ts")]


class At(L.Callback):
    """Does something once, before a training step of an episode counted from 0."""

    def __init__(self, episode, step, do):
        self.when, self.do = (episode, step), do

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.when:
            self.do(pl_module)


def run(method, out=None, episodes=4, callbacks=(), **options):
    """Trains a method file, with callbacks; the module and what came of it."""
    module = build(method, SCENARIO, seed=options.get("seed", 0), environments=options.get("environments", 1))
    resume = options.get("resume")
    fitted = fit(
        module,
        episodes=episodes,
        out=out,
        resume=resume,
        callbacks=callbacks,
        max_seconds=options.get("max_seconds"),
        checkpoint_every=options.get("checkpoint_every", 50),
        compiled=options.get("compiled", False),
    )
    if out is not None:
        module.policy.save(out)
    return module, fitted


@pytest.fixture
def method(tmp_path):
    """`method(name, **changes)`: a preset as a file, whose updates begin early."""
    return lambda name, **changes: quick_method(name, tmp_path, **changes)


def same_files(a, b, names=("policy.safetensors", "policy.json", "training.csv")):
    return all((a / name).read_bytes() == (b / name).read_bytes() for name in names)


# The same bits


@pytest.mark.parametrize("name", LAD_TS_FIRST)
def test_the_same_seed_gives_the_same_bits_twice(name, method, tmp_path):
    """Of files too; `test_determinism_trace.py` holds the updates of each method to a recorded trace in any case."""
    file = method(name)
    modules = []
    for k in range(2):
        torch.manual_seed(k)
        modules.append(run(file, tmp_path / str(k), 3)[0])
    assert modules[0].history[-1].keys() > {"episode", "delay_s"}
    assert same_files(tmp_path / "0", tmp_path / "1")
    assert same_tensors(modules[0], modules[1])


@pytest.mark.parametrize("name", ["lad-ts", "dqn-ts"])
def test_another_seed_gives_another_run(name, method):
    file = method(name)
    first, second = run(file, episodes=2)[0], run(file, episodes=2, seed=1)[0]
    assert first.history[0]["delay_s"] != second.history[0]["delay_s"]
    assert not same_tensors(first.policy, second.policy)


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_a_resumed_run_equals_one_that_never_stopped(name, method, tmp_path):
    file = method(name)
    whole, _ = run(file, tmp_path / "whole", 4)
    run(file, tmp_path / "half", 2)
    resumed, fitted = run(file, tmp_path / "resumed", 4, resume=tmp_path / "half" / "checkpoint.ckpt")
    assert fitted.episodes == 4
    assert same_files(tmp_path / "whole", tmp_path / "resumed")
    assert same_tensors(whole, resumed)


@pytest.mark.parametrize("name", ["lad-ts-released", "d2sac-ts"])
def test_several_environments_and_slots_a_rollout_resume_too(name, method, tmp_path):
    file = method(name, rollout_steps=2, updates=2)
    whole, _ = run(file, tmp_path / "whole", 6, environments=2)
    run(file, tmp_path / "half", 2, environments=2)
    checkpoint = tmp_path / "half" / "checkpoint.ckpt"
    resumed, fitted = run(file, tmp_path / "resumed", 6, environments=2, resume=checkpoint)
    assert fitted.episodes == 6
    assert [row["episode"] for row in fitted.history] == [2, 4, 6]
    assert same_files(tmp_path / "whole", tmp_path / "resumed")
    assert same_tensors(whole, resumed)


@pytest.mark.parametrize("name", LAD_TS_FIRST)
def test_a_run_that_broke_off_goes_on_from_its_last_checkpoint(name, method, tmp_path):
    file = method(name)
    run(file, tmp_path / "whole", 5)

    def fail(module):
        raise OSError("the power went")

    with pytest.raises(OSError, match="power"):
        run(file, tmp_path / "broken", 5, [At(4, 2, fail)], checkpoint_every=3)
    run(file, tmp_path / "resumed", 5, resume=tmp_path / "broken" / "checkpoint.ckpt")
    assert same_files(tmp_path / "whole", tmp_path / "resumed")


@pytest.mark.parametrize("name", MEMORIES)
def test_a_run_with_evaluations_resumes_too(name, method, tmp_path):
    file = method(name)
    options = {"scenario": SCENARIO, "evaluate_every": 1, "eval_episodes": 1}
    whole = train(file, **options, episodes=3, out=tmp_path / "whole")
    train(file, **options, episodes=1, out=tmp_path / "half")
    resumed = train(file, **options, episodes=3, out=tmp_path / "resumed", resume=tmp_path / "half" / "checkpoint.ckpt")
    assert resumed.history == whole.history
    assert same_files(tmp_path / "whole", tmp_path / "resumed")


def test_a_finished_run_is_resumed_to_the_same_policy(method, tmp_path):
    file = method("lad-ts")
    run(file, tmp_path / "whole", 2)
    _, fitted = run(file, tmp_path / "again", 2, resume=tmp_path / "whole" / "checkpoint.ckpt")
    assert fitted.episodes == 2
    assert same_files(tmp_path / "whole", tmp_path / "again", ["policy.safetensors"])


# What cannot be resumed


def test_a_checkpoint_of_another_method_or_scenario_is_refused(method, tmp_path):
    run(method("lad-ts"), tmp_path, 1)
    checkpoint = tmp_path / "checkpoint.ckpt"
    with pytest.raises(InputError, match=r"checkpoint\.ckpt"):
        run(method("sac-ts"), episodes=2, resume=checkpoint)
    with pytest.raises(InputError, match=r"checkpoint\.ckpt"):
        train(method("lad-ts"), small(4, 5, SLOTS), episodes=2, resume=checkpoint)


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path):
    def module(name, **changes):
        env = OffloadingEnv(SCENARIO, [1])
        return make_method(quick_method(name, tmp_path, **changes)).build(env, episode_steps=SLOTS)

    fit(module("lad-ts"), episodes=1, out=tmp_path)
    for other in (module("lad-ts", hidden=[7]), module("sac-ts")):
        with pytest.raises(InputError, match=r"checkpoint\.ckpt"):
            fit(other, episodes=2, resume=tmp_path / "checkpoint.ckpt")


def test_another_number_of_environments_is_refused(method, tmp_path):
    run(method("lad-ts"), tmp_path, 1)
    with pytest.raises(InputError, match=r"checkpoint\.ckpt"):
        run(method("lad-ts"), episodes=4, environments=2, resume=tmp_path / "checkpoint.ckpt")


@pytest.mark.parametrize("content", [None, b"", b"nonsense", b"PK\x03\x04 cut off"])
def test_a_file_that_is_no_checkpoint_is_refused(content, method, tmp_path):
    path = tmp_path / "some.ckpt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"some\.ckpt"):
        run(method("sac-ts"), episodes=2, resume=path)


def test_a_checkpoint_of_something_else_is_refused(method, tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match=r"other\.ckpt"):
        run(method("sac-ts"), episodes=2, resume=tmp_path / "other.ckpt")


def test_a_checkpoint_runs_no_code_when_it_is_read(method, tmp_path):
    class Harm:
        def __reduce__(self):
            return (open, (str(tmp_path / "harm"), "w"))

    torch.save({"diffpolicy": Harm()}, tmp_path / "harm.ckpt")
    with pytest.raises(InputError, match=r"harm\.ckpt"):
        run(method("sac-ts"), episodes=2, resume=tmp_path / "harm.ckpt")
    assert not (tmp_path / "harm").exists()


# Compilation


def test_a_compiled_run_learns_the_same_but_for_rounding(method):
    file = method("sac-ts")
    eager, compiled = (run(file, episodes=3, compiled=on)[0] for on in (False, True))
    for (name, a), b in zip(eager.objective.named_parameters(), compiled.objective.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize("first", [False, True])
def test_a_run_keeps_what_it_began_with(first, method, tmp_path):
    file = method("dqn-ts")  # whose loss is TorchRL's, so that nothing is really compiled here
    run(file, tmp_path, 1, compiled=first)
    with pytest.raises(InputError, match="compilation, and this run"):
        run(file, episodes=2, resume=tmp_path / "checkpoint.ckpt", compiled=not first)
    assert run(file, episodes=2, resume=tmp_path / "checkpoint.ckpt", compiled=first)[1].episodes == 2


@pytest.mark.parametrize("before", [False, True])
def test_training_flushes_denormals_and_gives_the_setting_back(before):
    tiny = torch.tensor(1e-40)
    torch.set_flush_denormal(before)
    try:
        with no_denormals():
            assert tiny * 1 == 0
        assert bool(tiny * 1 == 0) == before
    finally:
        torch.set_flush_denormal(False)


# Where it goes wrong


def break_parameter(pick):
    def do(module):
        with torch.no_grad():
            parameter = next(iter(pick(module)))
            parameter[(0,) * parameter.ndim] = math.nan

    return do


@pytest.mark.parametrize(
    ("name", "pick"),
    [
        ("lad-ts", lambda module: module.policy.parameters()),
        ("sac-ts", lambda module: module.policy.parameters()),
        ("dqn-ts", lambda module: module.policy.parameters()),
        ("lad-ts", lambda module: module.objective.critic.parameters()),
    ],
)
def test_a_parameter_that_is_not_a_number_stops_the_run_and_is_named(name, pick, method):
    with pytest.raises(FloatingPointError) as error:
        run(method(name), callbacks=[At(2, 3, break_parameter(pick))])
    module = build(method(name), SCENARIO)
    chosen = next(iter(pick(module)))
    names = [name for name, p in module.objective.named_parameters() if p is chosen]
    assert any(f"parameter {name} holds nan" in str(error.value) for name in names)
    assert "episode 3" in str(error.value)


def test_a_reward_that_is_not_finite_stops_the_run_and_is_named(method, tmp_path):
    module = build(method("sac-ts"), SCENARIO)
    transitions = module.transitions
    module.transitions = lambda rollout: transitions(rollout).set("reward", transitions(rollout)["reward"] - math.inf)
    with pytest.raises(FloatingPointError, match="batch reward holds -inf"):
        fit(module, episodes=4)


def test_missing_learning_rates_are_named(method):
    with pytest.raises(InputError, match=r"learning_rates must name actor, critic, alpha"):
        run(method("sac-ts", learning_rates={"actor": 1e-3}), episodes=1)


# Ending before the end


@pytest.mark.parametrize("name", LAD_TS_FIRST)
def test_ctrl_c_ends_after_the_episode_and_the_run_can_go_on(name, method, tmp_path):
    """The signal is no matter of the method; that each of them resumes bit for bit is tested above."""
    file = method(name)
    run(file, tmp_path / "whole", 4)
    before = signal.getsignal(signal.SIGINT)
    _, fitted = run(file, tmp_path / "cut", 4, [At(1, 3, lambda module: signal.raise_signal(signal.SIGINT))])
    assert fitted.interrupted
    assert fitted.episodes == 2
    assert signal.getsignal(signal.SIGINT) is before
    _, fitted = run(file, tmp_path / "resumed", 4, resume=tmp_path / "cut" / "checkpoint.ckpt")
    assert not fitted.interrupted
    assert fitted.episodes == 4
    assert same_files(tmp_path / "whole", tmp_path / "resumed")


def test_a_second_ctrl_c_stops_at_once_and_gives_the_handler_back(method, tmp_path):
    def twice(module):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    module = build(method("sac-ts"), SCENARIO)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(module, episodes=4, callbacks=[At(1, 3, twice)])
    assert module.episodes == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_an_error_gives_the_interrupt_handler_back(method):
    def fail(module):
        raise OSError("the power went")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(OSError, match="power"):
        run(method("sac-ts"), callbacks=[At(0, 1, fail)])
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("episodes", [None, 7])
def test_the_time_that_is_over_ends_the_run_after_the_episode(episodes, method, tmp_path):
    module, fitted = run(method("sac-ts"), tmp_path, episodes, max_seconds=1e-9)
    assert fitted.episodes == 1
    assert not fitted.interrupted
    assert len(module.history) == 1
    assert (tmp_path / "checkpoint.ckpt").is_file()


def test_much_time_changes_nothing(method, tmp_path):
    file = method("sac-ts")
    run(file, tmp_path / "a", 2)
    run(file, tmp_path / "b", 2, max_seconds=1e6)
    assert same_files(tmp_path / "a", tmp_path / "b")


# What is played and counted


def test_nothing_is_played_ahead(method):
    module = build(method("sac-ts"), SCENARIO)
    played, rollout = [], module.stream.rollout
    module.stream.rollout = lambda: played.append(1) or rollout()
    seen = []

    class Count(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append(len(played))

    fit(module, episodes=2, callbacks=[Count()])
    assert seen == list(range(1, 2 * SLOTS + 1))


def test_updates_begin_when_every_agent_has_enough_transitions(method):
    counted = []

    class Count(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            counted.append((len(pl_module.replay), same_tensors(pl_module.policy, fresh.policy)))

    file = method("dqn-ts", updates=2)
    module, fresh = (build(file, SCENARIO) for _ in range(2))
    fit(module, episodes=3, callbacks=[Count()])
    assert all(unchanged == (size <= 20) for size, unchanged in counted)
    assert counted[0][1]
    assert not counted[-1][1]


def test_the_history_holds_the_mean_delay_of_each_episode(method):
    module = build(method("sac-ts", start_after=99), SCENARIO)
    fit(module, episodes=2)
    stream = build(method("sac-ts"), SCENARIO).stream
    for row in module.history:
        episode = torch.cat(list(stream), 1)
        valid = episode["agents", "valid"]
        expected = -episode["next", "agents", "reward"][valid].double().mean()
        assert row["delay_s"] == pytest.approx(float(expected), rel=1e-5)
        assert set(row) == {"episode", "delay_s"}


def test_training_plays_the_training_episodes(method):
    module = build(method("sac-ts"), SCENARIO)
    first = module.stream.rollout()["agents", "input_mbit"].squeeze(1)
    assert torch.equal(first, OffloadingEnv(SCENARIO, [1], stream=Stream.TRAINING).reset()["agents", "input_mbit"])
    assert not torch.equal(first, OffloadingEnv(SCENARIO, [1]).reset()["agents", "input_mbit"])


def test_the_training_csv_is_the_history(method, tmp_path):
    _, fitted = run(method("lad-ts"), tmp_path, 3)
    with (tmp_path / "training.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    for row, kept in zip(rows, fitted.history, strict=True):
        assert {k: float(v) for k, v in row.items() if v} == kept


def test_a_memory_is_kept_from_episode_to_episode_while_training(method):
    module = build(method("lad-ts"), SCENARIO)
    stream = module.stream
    last = [stream.rollout() for _ in range(SLOTS)][-1]
    assert torch.equal(stream.root["agents", "latent"], last["next", "agents", "latent"].squeeze(1))


# Evaluation along the way


@pytest.mark.parametrize("name", LAD_TS_FIRST)
def test_evaluating_does_not_disturb_training(name, method, tmp_path):
    file = method(name)
    plain = train(file, SCENARIO, episodes=4, out=tmp_path / "plain")
    seen = train(file, SCENARIO, episodes=4, out=tmp_path / "seen", evaluate_every=2, eval_episodes=2)
    assert ["eval_delay_s" in row for row in seen.history] == [False, True, False, True]
    assert [{k: v for k, v in row.items() if k != "eval_delay_s"} for row in seen.history] == plain.history
    assert same_files(tmp_path / "plain", tmp_path / "seen", ["policy.safetensors", "policy.json"])


def test_the_last_evaluation_is_that_of_the_saved_policy(method, tmp_path):
    fitted = train(
        method("lad-ts-released"), SCENARIO, episodes=3, out=tmp_path, evaluate_every=3, eval_episodes=2, seed=5
    )
    policy = Policy.load(tmp_path)
    policy.generator.manual_seed(0)
    assert policy.remembered is not None
    assert fitted.history[-1]["eval_delay_s"] > 0
    assert play_episodes(SCENARIO, policy, 2, 5).cost.mean() == pytest.approx(
        fitted.history[-1]["eval_delay_s"], rel=0.5
    )


def test_an_evaluation_sees_the_policy_in_eval_mode_on_the_same_episodes(method):
    seen = []

    def evaluate(policy):
        seen.append(play_episodes(SCENARIO, policy, 1).notes)
        return {"tasks": len(next(iter(seen[-1].values())))}

    _, fitted = run(method("sac-ts"), callbacks=[EvaluateEvery(evaluate, 2)])
    assert len(seen) == 2
    assert all((a == b).all() for a, b in zip(seen[0].values(), seen[1].values(), strict=True))
    assert [row.get("tasks") for row in fitted.history][1::2] == [len(next(iter(seen[0].values())))] * 2


# What is left behind


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_a_trained_policy_is_saved_with_its_origin_and_can_be_evaluated(name, method, tmp_path):
    file = method(name)
    train(file, SCENARIO, episodes=2, out=tmp_path / "out", seed=3)
    policy = Policy.load(tmp_path / "out")
    data = json.loads((tmp_path / "out" / "policy.json").read_text())["trained"]
    assert data["method"] == Path(file).name
    assert (data["episodes"], data["seed"]) == (2, 3)
    assert data["scenario_sha256"] == SCENARIO.digest()
    first, second = (play_episodes(SCENARIO, policy, 2) for _ in range(2))
    assert (first.cost == second.cost).all()
    assert (policy.__dict__.get("remembered", getattr(policy, "remembered", None)) is not None) == (name in MEMORIES)


def test_nothing_is_written_without_a_folder(method, tmp_path, monkeypatch):
    file = method("sac-ts")
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.rglob("*"))
    train(file, SCENARIO, episodes=1)
    assert set(tmp_path.rglob("*")) == before


def test_a_scenario_without_slots_is_refused(method):
    endless = type(SCENARIO)(SCENARIO.slot_s, SCENARIO.servers, None, (), SCENARIO.workload)
    with pytest.raises(InputError, match="slots"):
        train(method("sac-ts"), endless, episodes=1)


def test_networks_do_learn_something_within_an_episode(method):
    module, _ = run(method("lad-ts"), episodes=3)
    fresh = build(method("lad-ts"), SCENARIO)
    moved = {
        name: not torch.equal(p, dict(fresh.objective.named_parameters())[name])
        for name, p in module.objective.named_parameters()
    }
    assert all(moved.values()), [name for name, did in moved.items() if not did]


def test_a_state_of_another_layout_goes_on_alike():
    """Checkpoints of some versions hold a stack's state column by column, and the fused kernel goes by memory."""
    made = []
    for by_column in (False, True):
        module = build("lad-ts", small(2, 3, 2))
        optimizer = module.configure_optimizers()
        for _ in range(2):
            for group in optimizer.param_groups:
                for p in group["params"]:
                    p.grad = torch.empty_like(p).copy_(torch.arange(p.numel()).view_as(p))
            optimizer.step()
            if by_column:
                state = optimizer.state_dict()
                for values in state["state"].values():
                    values.update({k: v.mT.contiguous().mT for k, v in values.items() if v.ndim == 3})
                optimizer.load_state_dict(state)
        made.append([p.detach().clone() for p in module.objective.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*made, strict=True))


def test_evolution_takes_a_stack():
    """Its parameters are told in their own order."""
    stack = MLP(2, 3, (4,), agents=2)
    aim = torch.cat([p.detach().reshape(-1) for p in stack.parameters()]).numpy() + 0.1
    module = EvolutionModule(
        stack, lambda both, _: ((both - aim) ** 2).sum(-1), generations=60, pairs=20, learning_rate=0.02, average=0.5
    )
    fit(module, episodes=60)
    found = torch.cat([p.detach().reshape(-1) for p in stack.parameters()])
    assert torch.allclose(found, torch.as_tensor(aim, dtype=torch.float32), atol=0.05)


def test_evolution_follows_the_estimate_of_antithetic_pairs_each_of_which_counts_so_much():
    line, slope, kept = torch.nn.Linear(2, 1).double(), np.array([3.0, -1.0, 0.5]), []

    def cost(thetas, generation):
        kept.append(thetas)
        return thetas @ slope

    sigma, clip, pairs = 0.1, 0.5, 400
    fit(EvolutionModule(line, cost, generations=1, pairs=pairs, sigma=sigma, clip=clip, seed=3))
    found = torch.cat([p.grad.flatten() for p in line.parameters()]).numpy()
    perturbed = (kept[0][0] - kept[0][1]) / (2 * sigma)
    assert abs(perturbed.std() - 1) < 0.05
    differences = 2 * sigma * perturbed @ slope
    assert (np.abs(differences) > clip).any()
    each = np.clip(differences, -clip, clip)[:, None] * perturbed / (2 * sigma)
    np.testing.assert_allclose(found, each.mean(0), rtol=1e-6)
    # where nothing is clipped, a linear cost has its slope as the estimate's mean
    free = differences[:, None] * perturbed / (2 * sigma)
    error = free.std(0, ddof=1) / pairs**0.5
    assert (np.abs(free.mean(0) - slope) < 4 * error).all()


class Kept(DummyLogger):
    """Keeps the steps at which it was told a row."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def log_metrics(self, metrics, step=None):
        self.steps.append(step)


@pytest.mark.parametrize("passes", [0, 1])
def test_a_callback_may_end_a_run_amid_a_pass(method, passes):
    """As Lightning's `Timer` does: there is no row of what was begun, and none is logged twice."""
    module, logger = build(method("sac-ts"), SCENARIO, seed=0, environments=1), Kept()
    stop = At(passes, 1, lambda module: setattr(module.trainer, "should_stop", True))
    fitted = fit(module, episodes=4, callbacks=[stop], logger=logger, label="a bar")
    assert fitted.episodes == passes
    assert logger.steps == list(range(1, passes + 1))
    assert [row["episode"] for row in fitted.history] == logger.steps
