"""Masks and specs: what is allowed is kept to everywhere, and what does not fit is refused by one sentence."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from tensordict import TensorDict

from diffpolicy import CategoricalHead, DiffusionPolicy, FeedforwardPolicy, GreedyValuePolicy, InputError
from diffpolicy.edge import FleetPolicy, OffloadingEnv, task_transitions
from diffpolicy.edge.scenario.availability import Availability
from diffpolicy.edge.training import build
from diffpolicy.export import Decision, ExportedDecision, export_decision
from diffpolicy.methods import DQNMethod, SACMethod
from diffpolicy.networks import CriticEnsemble
from diffpolicy.objectives import AgentsDQNLoss, LatentDiscreteSACLoss, choice_probabilities
from diffpolicy.policies.masks import MASKED, mask_logits, masked_value
from diffpolicy.training.fit import fit
from toys import GuessEnv, guess_transitions, small

G, M, F, A, GAMMA = 3, 6, 4, 3, 0.9
CLASSES = [DiffusionPolicy, FeedforwardPolicy, GreedyValuePolicy]


def rows(lead=(M,), seed=3):
    g = torch.Generator().manual_seed(seed)
    return TensorDict(
        observation=torch.randn(*lead, F, generator=g),
        action=torch.randint(0, A, lead, generator=g),
        reward=torch.randn(*lead, generator=g),
        next=TensorDict(observation=torch.randn(*lead, F, generator=g), batch_size=lead),
        batch_size=lead,
    )


def with_masks(td, now=None, after=None):
    everything = torch.ones(*td.batch_size, A, dtype=torch.bool)
    td["action_mask"] = everything if now is None else now
    td["next", "action_mask"] = everything if after is None else after
    return td


def masked_transitions(rollout):
    """One-step transitions of a `GuessEnv` that shows a mask."""
    td = guess_transitions(rollout)
    group = "agents" in rollout.keys()
    now, after = (rollout["agents"], rollout["next", "agents"]) if group else (rollout, rollout["next"])
    for to, source in ((td, now), (td["next"], after)):
        to["action_mask"] = source["action_mask"].transpose(1, 2) if group else source["action_mask"]
    return td


def dqn(agents=None, mask_key=None, **options):
    policy = GreedyValuePolicy(choices=A, observation_dim=F, agents=agents, hidden=(8,), seed=1, mask_key=mask_key)
    return policy, AgentsDQNLoss(policy, gamma=GAMMA, **options)


def sac(agents=None, mask_key=None, **options):
    policy = FeedforwardPolicy(choices=A, observation_dim=F, agents=agents, hidden=(8,), seed=1, mask_key=mask_key)
    critic = CriticEnsemble(F, A, hidden=(8,), agents=agents, generator=torch.Generator().manual_seed(2))
    return policy, LatentDiscreteSACLoss(policy, critic, gamma=GAMMA, **options)


def failing(scenario):
    return replace(
        scenario, servers=tuple(replace(s, availability=Availability(mtbf_s=8.0, mttr_s=4.0)) for s in scenario.servers)
    )


# Masks: what is learned


@pytest.mark.parametrize("agents", [None, G])
@pytest.mark.parametrize("double", [False, True])
def test_the_target_of_deep_q_learning_is_the_best_of_the_next_steps_allowed_choices(agents, double):
    policy, loss = dqn(agents, double=double)
    td = rows((M,) if agents is None else (agents, M))
    with torch.no_grad():
        values, after = policy.logits(td["observation"]), policy.logits(td["next", "observation"])
        allowed = torch.ones_like(after, dtype=torch.bool).scatter(-1, after.argmax(-1, keepdim=True), False)
        goal = td["reward"] + GAMMA * after.masked_fill(~allowed, -torch.inf).amax(-1)
        error = values.gather(-1, td["action"].unsqueeze(-1)).squeeze(-1) - goal
    expected = error.square().mean(-1).sum()
    assert torch.allclose(loss(with_masks(td, after=allowed))["loss"], expected, rtol=1e-4)
    # what was done counts whatever the mask of its own step says
    assert torch.allclose(loss(with_masks(td, now=~allowed, after=allowed))["loss"], expected, rtol=1e-4)


def test_a_successor_that_allows_nothing_is_worth_nothing():
    nothing = torch.zeros(M, A, dtype=torch.bool)
    for make in (dqn, sac):
        td, over = with_masks(rows(), after=nothing), with_masks(rows())
        over["next", "terminated"] = torch.ones(M, dtype=torch.bool)
        loss = make()[1]
        for key, value in loss(td).items():
            assert torch.isfinite(value).all()
            if key in ("loss", "loss_qvalue"):
                assert torch.allclose(value, loss(over)[key])


@pytest.mark.parametrize("agents", [None, 2])
@pytest.mark.parametrize("double", [False, True])
def test_a_row_without_a_choice_corrects_no_value_of_deep_q_learning(double, agents):
    lead = () if agents is None else (agents,)
    policy = GreedyValuePolicy(choices=3, observation_dim=2, agents=agents)
    loss = AgentsDQNLoss(policy, gamma=0.0, double=double)
    seen = {"observation": torch.randn(*lead, 4, 2, generator=torch.Generator().manual_seed(0))}
    action = torch.tensor([0, -1, 2, -1]).expand(*lead, 4)
    rows = TensorDict({**seen, "action": action, "reward": torch.ones(*lead, 4), "next": seen}, [*lead, 4])
    value = policy.network(seen["observation"])
    error = (value.gather(-1, action.clamp_min(0).unsqueeze(-1)).squeeze(-1) - 1)[..., [0, 2]].square()
    assert loss(rows)["loss"].item() == pytest.approx(error.sum().item() / 4, rel=1e-5)
    loss(rows[..., [1, 3]])["loss"].backward()
    assert all(not p.grad.any() for p in policy.parameters())
    weighted = rows.set("priority_weight", torch.tensor([1.0, 5.0, 3.0, 5.0]).expand(*lead, 4))
    expected = (error * torch.tensor([1.0, 3.0])).sum() / 14
    assert loss(weighted)["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_entropy_target_is_a_share_of_what_each_row_allows():
    _, loss = sac(target_entropy="share", entropy_share=0.98, alpha=1.0)
    allowed = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 1, 0], [0, 1, 1], [1, 0, 0], [1, 1, 0]], dtype=torch.bool)
    target = 0.98 * sum(math.log(n) for n in (3, 2, 1, 2, 1, 2)) / M
    losses = loss(with_masks(rows(), now=allowed))
    assert float(losses["loss_alpha"].detach()) == pytest.approx(float(losses["entropy"]) - target, abs=1e-5)
    # with one allowed choice there is no entropy and none is asked for
    only = torch.zeros(M, A, dtype=torch.bool)
    only[:, 1] = True
    assert float(loss(with_masks(rows(), now=only))["loss_alpha"].detach()) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("agents", [None, G])
def test_the_temperature_stays_where_few_choices_are_allowed(agents):
    _, loss = sac(agents, target_entropy="share", entropy_share=0.5, alpha=1.0)
    lead = (32,) if agents is None else (agents, 32)
    allowed = torch.ones(*lead, A, dtype=torch.bool)
    allowed[..., 2] = False
    td = with_masks(rows(lead), allowed, allowed)
    groups = loss.parameter_groups()
    optimizer = torch.optim.Adam([{"params": list(p), "lr": 3e-2} for p in groups.values()])
    for _ in range(150):
        losses = loss(td)
        optimizer.zero_grad()
        sum(v for k, v in losses.items() if k.startswith("loss")).backward()
        optimizer.step()
    assert float(losses["alpha"]) < 10


@pytest.mark.parametrize("make", [dqn, sac])
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.float32])
def test_masks_of_zeros_and_ones_train_as_bool_ones(make, dtype):
    allowed = torch.tensor([1, 0, 1], dtype=dtype).expand(M, A)
    _, loss = make()
    numbers, flags = (loss(with_masks(rows(), x, x)) for x in (allowed, allowed.bool()))
    for key, value in flags.items():
        assert torch.equal(value, numbers[key])


@pytest.mark.parametrize("make", [dqn, sac])
@pytest.mark.parametrize("missing", ["action_mask", ("next", "action_mask")])
def test_a_policy_that_reads_masks_is_not_trained_without_them(make, missing):
    td = with_masks(rows())
    del td[missing]
    with pytest.raises(InputError, match=r"action_mask"):
        make(mask_key="action_mask")[1](td)


@pytest.mark.parametrize("make", [dqn, sac])
@pytest.mark.parametrize("shape", [(M, A + 1), (A,), (1, A), (M, 1), (M, 1, A)])
def test_a_mask_of_another_shape_than_the_rows_is_refused(make, shape):
    td = TensorDict({**rows().to_dict(), "action_mask": torch.ones(M, A, dtype=torch.bool)})
    td["next", "action_mask"] = torch.ones(shape, dtype=torch.bool)
    with pytest.raises(InputError, match=r"action_mask.*must have shape \[6, 3\]"):
        make()[1](td)


# Masks: what is done


def act(kind, env, **options):
    policy = kind.from_specs(env, **options)
    with torch.no_grad():
        return policy, policy(env.reset())


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("agents", [None, 2])
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.float32])
def test_masks_of_zeros_and_ones_are_kept_as_bool_ones(kind, agents, dtype):
    env = GuessEnv(16, agents, mask=True)
    policy = kind.from_specs(env, seed=4)
    td = env.reset()
    number, again = td.clone(), kind.from_specs(env, seed=4)
    number[policy.mask_key] = td[policy.mask_key].to(dtype)
    with torch.no_grad():
        action = policy(td)[policy.action_key]
        assert torch.equal(again(number)[policy.action_key], action)
    assert td[policy.mask_key].gather(-1, action.unsqueeze(-1)).all()


@pytest.mark.parametrize("value", [2, 0.5, float("nan"), -1])
def test_a_mask_of_other_numbers_is_refused(value):
    env = GuessEnv(4, mask=True)
    policy, td = FeedforwardPolicy.from_specs(env), env.reset()
    td["action_mask"] = td["action_mask"].to(torch.int64 if isinstance(value, int) else torch.float32)
    td["action_mask"][1, 2] = value
    with pytest.raises(InputError, match=rf"action_mask.* 0 or 1.*{value}"):
        policy(td)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("agents", [None, 2])
def test_a_row_without_an_allowed_choice_is_refused_before_anything_is_drawn(kind, agents):
    env = GuessEnv(4, agents, mask=True)
    policy, td = kind.from_specs(env), env.reset()
    at = (2,) if agents is None else (2, 1)
    td[policy.mask_key][at] = False
    state = policy.generator.get_state()
    with pytest.raises(InputError, match=rf"action_mask.* allows no choice at {list(at)}".replace("[", r"\[")):
        policy(td)
    assert torch.equal(policy.generator.get_state(), state)
    assert policy.action_key not in td.keys(True)
    with pytest.raises(InputError, match="allows no choice"):
        choice_probabilities(policy, td)


def test_nothing_is_asked_of_an_environment_that_is_done():
    env = GuessEnv(4, mask=True)
    policy, td = FeedforwardPolicy.from_specs(env), env.reset()
    td["action_mask"][2], td["done"][2] = False, True
    with torch.no_grad():
        assert 0 <= int(policy(td)["action"][2]) < A


@pytest.mark.parametrize("share", [True, False])
def test_items_that_do_not_exist_need_no_choice(share):
    env = OffloadingEnv(small(3, 5, 6), [4])
    policy, td = FeedforwardPolicy.from_specs(env, share_parameters=share), env.reset()
    mask = torch.ones(4, 3, 5, 3, dtype=torch.bool)
    td["agents", "valid"][..., 3:] = False
    td["agents", "valid"][0, 0] = False
    mask[~td["agents", "valid"]] = False
    td["agents", "action_mask"] = mask
    with torch.no_grad():
        action = policy(td)["agents", "action"]
    assert ((action >= 0) & (action < 3)).all()


@pytest.mark.parametrize("kind", CLASSES)
def test_a_traced_decision_of_a_row_without_an_allowed_choice_is_minus_one(kind):
    policy, _ = act(kind, GuessEnv(mask=True))
    decision = Decision(policy)
    inputs = [i.random(5, torch.Generator().manual_seed(0)) for i in decision.inputs]
    inputs[-1][3] = False
    with torch.no_grad():
        plain = decision(*inputs)[0]
        each = tuple(i.shape.index("rows") for i in decision.inputs)
        many = torch.vmap(lambda *x: decision(*(y.unsqueeze(d) for y, d in zip(x, each, strict=True))), each)
        vmapped = many(*inputs)[0].squeeze(-1)
    assert torch.equal(plain, vmapped)
    assert (plain == -1).tolist() == [False, False, False, True, False]


@pytest.mark.parametrize("draw", ["sample", "argmax"])
def test_an_exported_decision_of_a_row_without_an_allowed_choice_is_minus_one(draw, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    policy, _ = act(FeedforwardPolicy, GuessEnv(mask=True), head=CategoricalHead(draw))
    export_decision(policy, tmp_path / "decision.onnx")
    decision, exported = Decision(policy), ExportedDecision(tmp_path / "decision.onnx")
    inputs = {i.name: i.random(5, torch.Generator().manual_seed(0)) for i in decision.inputs}
    inputs["mask"][3] = False
    action = exported(**inputs)["action"]
    assert (action == -1).tolist() == [False, False, False, True, False]
    with torch.no_grad():
        assert decision.allows(action, list(inputs.values()), decision(*inputs.values()), 1e-5).all()
        assert not decision.allows(action.clamp_min(0), list(inputs.values()), decision(*inputs.values()), 1e-5).all()
    with pytest.raises(InputError, match="mask must be bool"):
        exported(**{**inputs, "mask": inputs["mask"].to(torch.int8)})


def test_a_fleets_exported_decision_is_minus_one_where_no_server_is_up():
    decision = FleetPolicy.pretrained("live").decision()
    inputs = {i.name: i.random(3, torch.Generator().manual_seed(0), servers=4) for i in decision.inputs}
    inputs["up"][1] = False
    with torch.no_grad():
        action = decision(*inputs.values())[0]
    assert (action == -1).tolist() == [False, True, False]


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("training", [True, False])
def test_a_policy_of_a_narrow_type_keeps_its_mask(kind, dtype, training):
    env = GuessEnv(1000, mask=True)
    options = {"epsilon": 1.0} if kind is GreedyValuePolicy else {}
    policy, td = kind.from_specs(env, **options).to(dtype).train(training), env.reset()
    with torch.no_grad():
        action = policy(td)["action"]
        observation = td["observation"].to(dtype)
        logits = policy.logits(observation, mask=td["action_mask"])
    assert ((action >= 0) & (action < A)).all()
    assert td["action_mask"].gather(-1, action.unsqueeze(-1)).all()
    assert logits.dtype == dtype
    log_p = logits.log_softmax(-1)
    assert torch.isfinite(log_p).all()
    assert torch.isfinite(log_p.exp() * log_p).all()


def test_a_draw_never_rounds_past_the_last_allowed_choice():
    high = torch.tensor([1 - 2**-24])
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        logits = mask_logits(torch.zeros(1, A, dtype=dtype), torch.tensor([True, True, False]))
        assert int(CategoricalHead().choose_at(logits, high)) == 1
        assert torch.isfinite(logits).all()
    assert masked_value(torch.float32) == masked_value(torch.float64) == MASKED


@pytest.mark.parametrize("agents", [None, 2])
def test_a_mask_of_another_shape_is_refused_when_acting(agents):
    env = GuessEnv(4, agents, mask=True)
    policy, td = FeedforwardPolicy.from_specs(env), env.reset()
    lead = (4,) if agents is None else (4, agents)
    bad = [(*lead, A + 1), (*lead, 1), (*lead, 1, A), (1, A) if agents is None else (4, 1, A)]
    for shape in bad:
        mask = torch.ones(shape, dtype=torch.bool)
        if agents is None:
            other = TensorDict(observation=td["observation"], action_mask=mask, batch_size=[])
        else:
            seen = TensorDict(observation=td["agents", "observation"], action_mask=mask, batch_size=[4])
            other = TensorDict(agents=seen, batch_size=[4])
        with pytest.raises(InputError, match=r"action_mask.* must have shape"):
            policy(other)


def test_a_mask_that_is_missing_is_refused_when_acting():
    env = GuessEnv(4, mask=True)
    with pytest.raises(InputError, match="action_mask"):
        FeedforwardPolicy.from_specs(env)(env.reset().exclude("action_mask"))


# Masks: methods


METHODS = {
    "dqn": partial(DQNMethod, learning_rates={"critic": 1e-3}),
    "sac": partial(SACMethod, learning_rates={"actor": 1e-3, "critic": 1e-3, "alpha": 0.0}),
}


def method(name, transitions=masked_transitions, **options):
    return METHODS[name](transitions=transitions, **{"start_after": 10, "capacity": 50, **options})


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("agents", [None, 2])
def test_a_method_reads_the_mask_where_there_is_one(name, agents):
    plain = method(name, guess_transitions).build(GuessEnv(4, agents), episode_steps=5)
    assert plain.policy.mask_key is None
    module = method(name).build(GuessEnv(4, agents, mask=True), episode_steps=5)
    assert module.policy.mask_key == ("action_mask" if agents is None else ("agents", "action_mask"))
    fit(module, episodes=24)
    assert "loss_qvalue" in module.history[-1] or "loss" in module.history[-1]
    chosen = module.stream.rollout()
    chosen = chosen if agents is None else chosen["agents"]
    assert chosen["action_mask"].gather(-1, chosen["action"].unsqueeze(-1)).all()
    off = method(name, guess_transitions, masks=False).build(GuessEnv(4, agents, mask=True), episode_steps=5)
    assert off.policy.mask_key is None


@pytest.mark.parametrize("name", METHODS)
def test_transitions_without_the_mask_are_refused_before_anything_is_stored(name):
    module = method(name, guess_transitions).build(GuessEnv(4, mask=True), episode_steps=5)
    before = [p.clone() for p in module.policy.parameters()]
    with pytest.raises(InputError, match=r"transitions do not give 'action_mask', \('next', 'action_mask'\)"):
        fit(module, episodes=24)
    assert len(module.replay) == 0
    assert all(torch.equal(a, b) for a, b in zip(before, module.policy.parameters(), strict=True))


def test_masks_that_are_asked_for_and_not_shown_are_refused():
    with pytest.raises(InputError, match="masks is true"):
        method("sac", masks=True).build(GuessEnv(4), episode_steps=5)


def test_presets_read_masks_only_where_servers_fail():
    scenario = small(3, 4, 6)
    assert build("dqn-ts", scenario).policy.mask_key is None
    assert build("dqn-ts", failing(scenario)).policy.mask_key == ("agents", "action_mask")
    assert build("dqn-ts", failing(scenario), changes={"masks": False}).policy.mask_key is None
    forced = build("dqn-ts", scenario, changes={"masks": True})
    assert forced.policy.mask_key == ("agents", "action_mask")
    assert "action_mask" in forced.transitions(forced.stream.rollout()).keys()


@pytest.mark.parametrize("fails", [False, True])
def test_transitions_with_a_switch_for_masks_are_told_by_the_policy(fails):
    scenario = failing(small(3, 4, 6)) if fails else small(3, 4, 6)
    env = OffloadingEnv(scenario, [2])
    for masks in (None, True, False):
        module = method("dqn", task_transitions, masks=masks).build(env, episode_steps=6)
        rows = module.transitions(module.stream.rollout())
        assert ("action_mask" in rows.keys()) == (module.policy.mask_key is not None) == (masks is not False)
    given = method("dqn", partial(task_transitions, masks=False)).build(env, episode_steps=6)
    with pytest.raises(InputError, match="do not give 'action_mask'"):
        fit(given, episodes=2)


def test_own_transitions_without_a_switch_for_masks_are_refused_where_servers_fail():
    def own(rollout):
        return task_transitions(rollout)

    module = build("dqn-ts", failing(small(3, 4, 6)), changes={"transitions": own})
    with pytest.raises(InputError, match="do not give 'action_mask'"):
        fit(module, episodes=1)


def test_a_compiled_policy_answers_minus_one_where_nothing_is_allowed():
    policy = FeedforwardPolicy(choices=A, observation_dim=F, mask_key="action_mask", head=CategoricalHead("argmax"))
    mask = torch.ones(5, A, dtype=torch.bool)
    mask[3] = False
    td = TensorDict(observation=torch.randn(5, F), action_mask=mask, batch_size=[5])
    with torch.no_grad():
        action = torch.compile(policy, backend="eager")(td)["action"]
    assert (action == -1).tolist() == [False, False, False, True, False]
