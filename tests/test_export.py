"""Exported decisions: the same as the policy's on inputs that the export was not checked on, and pure."""

import copy
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest
import torch
from torchrl.data import Binary, Bounded, Categorical, MultiCategorical, OneHot, Unbounded

from diffpolicy import DiffusionPolicy, FeedforwardPolicy, InputError, Policy
from diffpolicy.diffusion import Ancestral, MaskedProcess
from diffpolicy.edge.names import METHOD_NAMES
from diffpolicy.edge.training import build
from diffpolicy.networks import CriticEnsemble
from diffpolicy.policies import BestOf, CategoricalHead, Keys
from test_any_action import Sent
from test_guidance import tokens, vectors
from test_joint import env_of, seen
from test_keys import Specs
from toys import GuessEnv, small

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from diffpolicy.export import Decision, ExportedDecision, export_decision, write

COMPILES = pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="no C++ compiler")
SCENARIO = small(3, 5, 6)
PARTS = MultiCategorical([2, 3], (4, 2))


def policy_of(name):
    """A preset's policy, with statistics of observations if it keeps them."""
    policy = build(name, SCENARIO).policy
    if policy.normalizer is not None:
        seen = 5 * torch.rand(50, policy.observation_dim, generator=torch.Generator().manual_seed(1))
        policy.normalizer.update(policy.normalizer.moments(seen))
    return policy


def both(policy, path, rows, seed=7):
    """Outputs of the policy's own decision and of the file, on the same inputs."""
    decision, exported = Decision(policy), ExportedDecision(path)
    generator = torch.Generator().manual_seed(seed)
    inputs = {i.name: i.random(rows, generator) for i in decision.inputs}
    with torch.no_grad():
        ours = dict(zip((o.name for o in decision.outputs), decision(*inputs.values()), strict=True))
    return ours, exported(**inputs), inputs


def agree(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, a in ours.items():
        assert a.dtype == theirs[name].dtype
        if name == "action":
            assert (a != theirs[name]).float().mean() <= 0.01
        else:
            assert torch.allclose(a, theirs[name], rtol=1e-5, atol=1e-5), name


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """`written(name, agent)`: a preset's policy, or one agent's of it, and its ONNX file, which is written once."""

    @cache
    def write_once(name, agent=None):
        policy = policy_of(name) if agent is None else policy_of(name).for_agent(agent)
        before = policy.generator.get_state()
        result = export_decision(policy, tmp_path_factory.mktemp(name) / "decision.onnx")
        assert torch.equal(policy.generator.get_state(), before)
        return policy, result

    return write_once


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_an_onnx_file_decides_as_the_policy(name, written):
    policy, result = written(name)
    assert result.difference <= 1e-5
    for rows in (1, 33):
        ours, theirs, _ = both(policy, result.path, rows)
        agree(ours, theirs)
        assert ours["action"].shape == (3, rows)


@COMPILES
def test_an_aotinductor_package_decides_as_the_policy(tmp_path):
    policy = policy_of("d2sac-ts").for_agent(1)
    export_decision(policy, tmp_path / "decision.pt2", "aoti")
    for rows in (1, 33):
        ours, theirs, inputs = both(policy, tmp_path / "decision.pt2", rows)
        agree(ours, theirs)
        turned = {n: x.t().contiguous().t() if x.ndim == 2 else x for n, x in inputs.items()}
        agree(ours, ExportedDecision(tmp_path / "decision.pt2")(**turned))


@pytest.mark.parametrize("name", ["lad-ts-plus", "dqn-ts"])
def test_one_agent_of_a_stack_is_the_same_as_its_slice(name, tmp_path):
    policy = policy_of(name)
    observation = 5 * torch.rand(3, 9, policy.observation_dim)
    latent = torch.rand(3, 9, 3) if name == "lad-ts-plus" else None
    whole = policy.logits(observation, latent)
    for agent in range(3):
        one = policy.for_agent(agent)
        assert one.agents is None
        mine = one.logits(observation[agent], None if latent is None else latent[agent])
        assert torch.allclose(whole[agent], mine, atol=1e-5)
    if name == "dqn-ts":
        export_decision(one, tmp_path / "one.onnx")
        ours, theirs, _ = both(one, tmp_path / "one.onnx", 4)
        agree(ours, theirs)
        assert ours["action"].shape == (4,)


@pytest.mark.parametrize(("agent", "says"), [(3, "3"), (-1, "-1")])
def test_an_agent_that_does_not_exist_is_refused(agent, says):
    with pytest.raises(InputError, match=says):
        policy_of("sac-ts").for_agent(agent)


def test_shared_parameters_have_no_agent_to_choose():
    with pytest.raises(InputError, match="share"):
        FeedforwardPolicy(choices=3, observation_dim=2).for_agent(0)


def test_a_mask_is_an_input_and_is_kept(tmp_path):
    policy = FeedforwardPolicy.from_specs(GuessEnv(mask=True))
    export_decision(policy, tmp_path / "masked.onnx")
    ours, theirs, inputs = both(policy, tmp_path / "masked.onnx", 200)
    agree(ours, theirs)
    assert inputs["mask"].gather(-1, theirs["action"].unsqueeze(-1)).all()


@pytest.mark.parametrize(
    ("action", "dtype", "masked", "meaning"),
    [
        (Categorical(3, (4,)), "int64", False, "the choice"),
        (Categorical(3, (4,)), "int64", True, "the choice; -1 where the mask allows none"),
        (OneHot(3, (4, 3)), "bool", False, "the choice, true where it is made"),
        (OneHot(3, (4, 3)), "bool", True, "the choice, true where it is made; any where the mask allows none"),
        (Bounded(-1.0, 1.0, (4, 3)), "float32", False, "the numbers of the action"),
    ],
)
def test_an_action_means_what_its_spec_says(action, dtype, masked, meaning):
    seen = {"observation": Unbounded((4, 2))}
    if masked:
        seen["action_mask"] = Binary(3, (4, 3), dtype=torch.bool)
    policy = DiffusionPolicy.from_specs(Specs(seen, action))
    decision = Decision(policy)
    assert (decision.outputs[0].dtype, decision.outputs[0].meaning) == (dtype, meaning)
    if masked:
        generator = torch.Generator().manual_seed(0)
        none = [torch.zeros(2, 3).bool() if i.name == "mask" else i.random(2, generator) for i in decision.inputs]
        decided = decision(*none)[0]
        assert decided.sum(-1).tolist() == [1, 1] if dtype == "bool" else decided.tolist() == [-1, -1]


def test_a_row_that_is_not_finite_and_draws_at_the_ends_never_give_a_forbidden_choice(tmp_path):
    """Of the graph alone, as without torch, of parts of two and three choices; the sentence is the wrapper's."""
    policy = FeedforwardPolicy.from_specs(
        Specs({"observation": Unbounded((4, 2)), "action_mask": Binary(5, (4, 5), dtype=torch.bool)}, PARTS)
    )
    export_decision(policy, tmp_path / "parts.onnx")
    decide = ExportedDecision(tmp_path / "parts.onnx")
    assert decide.description["policy"]["choices"] == [2, 3]
    rows, mask = torch.zeros(2, 2), torch.tensor([[False, True, False, True, False]]).expand(2, 5).contiguous()
    for uniform in (-1.0, 0.0, 1.0, 2.0, torch.nan):
        draws = torch.full((2, 2), uniform)
        action = decide._run([rows, draws, mask])[0]
        assert action.tolist() == ([[-1, -1]] * 2 if draws.isnan().any() else [[1, 1]] * 2)
        if not 0 <= uniform <= 1:
            says = "holds nan at" if draws.isnan().any() else r"uniform must hold draws in \[0, 1\), got"
            with pytest.raises(InputError, match=says):
                decide(observation=rows, uniform=draws, mask=mask)
    for wrong in (torch.nan, torch.inf):
        rows[0, 1] = wrong
        assert decide._run([rows, torch.ones(2, 2), mask])[0].tolist() == [[-1, -1], [1, 1]]
        with pytest.raises(InputError, match=r"observation holds (nan|inf) at \[0, 1\], not finite in float32"):
            decide(observation=rows, uniform=torch.ones(2, 2), mask=mask)
    for name, one in (("mask", mask[:1]), ("uniform", draws[:1])):
        with pytest.raises(InputError, match=rf"decision's {name} must be"):
            decide(**{"observation": rows, "uniform": draws, "mask": mask, name: one})


@pytest.mark.parametrize(
    ("action", "none"),
    [(OneHot(3, (4, 3)), [False] * 3), (Bounded(-1.0, 1.0, (4, 3)), [torch.nan] * 3), (Categorical(3, (4,)), -1)],
)
def test_a_row_that_is_not_finite_has_no_action_of_any_kind(action, none):
    decision = Decision(DiffusionPolicy.from_specs(Specs({"observation": Unbounded((4, 2))}, action)))
    given = [i.random(2, torch.Generator().manual_seed(0)) for i in decision.inputs]
    whole = decision(*given)[0]
    given[0][1, 0] = -torch.inf
    decided = decision(*given)[0]
    torch.testing.assert_close(decided, torch.stack([whole[0], torch.tensor(none)]), equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize(
    "chain",
    [
        {"schedule": MaskedProcess(2), "sampler": Ancestral(order="confidence"), "denoiser": {"kind": "MLPDenoiser"}},
        {"steps": 1, "denoiser": {"hidden": 8, "blocks": 1}},
    ],
    ids=["tokens", "numbers"],
)
def test_a_joint_masked_action_is_decided_as_the_policy_acts_on_the_same_draws(chain, tmp_path):
    env = env_of()
    policy, td = DiffusionPolicy.from_specs(env, items="joint", **chain).eval(), seen(env)
    export_decision(policy, tmp_path / "joint.onnx")
    decide = ExportedDecision(tmp_path / "joint.onnx")
    shapes = {i["name"]: i["shape"] for i in decide.description["inputs"]}
    lead = td.batch_size
    policy.reseed(3)
    acted = policy(td.clone())["action"]
    policy.reseed(3)
    noise, head = policy.noise(lead), policy.head
    rows, allowed = policy.rows(td), Keys.of(env, items="joint").allowed(td)
    given = {"observation": policy.read_observation(td, rows), "mask": allowed}
    if head.tokens:
        assert shapes["uniform"] == [3, "rows", 4]  # the start, and two steps of four items
        given["uniform"] = noise
    else:
        given |= {"noise": noise, "uniform": head.draws(lead, policy.generator)}
    outputs = decide(**given)
    assert torch.equal(outputs["action"], acted)
    assert ("logits" in outputs) == (not head.tokens)
    assert td["action_mask"].gather(-1, acted.unsqueeze(-1)).squeeze(-1)[td["valid"]].all()
    given["mask"] = torch.cat([torch.zeros(5, 3, dtype=torch.bool), allowed[:, 3:]], -1)  # the first item has no choice
    assert (decide(**given)["action"] == -1).nonzero().tolist() == [[k, 0] for k in range(5)]


def sent(agents=None, **options):
    """An environment of two action keys, one of them masked, and a policy for it."""
    env = Sent(5, agents)
    return env, DiffusionPolicy.from_specs(env, steps=3, seed=1, **options).eval()


def acted_as_exported(env, policy, path):
    """Actions of two keys as the policy acts, and as the file decides on the same draws; the decision's inputs."""
    td, decide = env.reset(), ExportedDecision(path)
    policy.reseed(3)
    acted = policy(td.clone())
    rows = policy.rows(td)
    policy.reseed(3)
    observation, mask = policy.read_observation(td, rows), policy.read_mask(td, rows)
    lead = observation.shape[:-1]
    given = {"observation": observation, "noise": policy.noise(lead), "mask": mask[..., :3]}
    if policy.draws_choice:
        drawn = policy.head.draws(lead, policy.generator)
        given |= {"uniform": drawn[..., :1], "normal": drawn[..., 1:]}
    decided = policy.head.apart(policy._put(rows, decide(**given)["action"]))
    return [acted[key] for key in policy.action_keys], decided, given


@pytest.mark.parametrize(("agents", "draw"), [(None, "sample"), pytest.param(2, "argmax", marks=pytest.mark.slow)])
def test_actions_of_several_keys_are_decided_side_by_side_as_the_policy_acts(agents, draw, tmp_path):
    """The slow one: that agents with parameters of their own, who draw nothing, do so too."""
    env, policy = sent(agents, head=draw)
    assert export_decision(policy, tmp_path / "both.onnx").difference <= 1e-5
    ours, theirs, given = acted_as_exported(env, policy, tmp_path / "both.onnx")
    assert torch.equal(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-5, atol=1e-5)
    decide = ExportedDecision(tmp_path / "both.onnx")
    meaning = "numbers of several actions, side by side: server 0, share 1; -1 where the mask allows none"
    assert decide.description["outputs"][0]["meaning"] == meaning
    none = decide(**{**given, "mask": torch.zeros_like(given["mask"])})["action"]
    assert (none[..., 0] == -1).all()


@pytest.mark.slow
@COMPILES
def test_an_aotinductor_package_decides_several_keys_too(tmp_path):
    """Shows the same as the test before of compiled code, whose compilation takes long."""
    env, policy = sent()
    export_decision(policy, tmp_path / "both.pt2", "aoti")
    ours, theirs, _ = acted_as_exported(env, policy, tmp_path / "both.pt2")
    assert torch.equal(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "form"),
    [
        (vectors, "onnx"),
        pytest.param(vectors, "aoti", marks=[pytest.mark.slow, COMPILES]),
        pytest.param(tokens, "onnx", marks=pytest.mark.slow),
        pytest.param(tokens, "aoti", marks=[pytest.mark.slow, COMPILES]),
    ],
)
def test_a_chain_that_begins_from_what_is_given_and_whose_best_end_a_critic_takes_is_decided_as_it_acts(
    make, form, tmp_path
):
    """The slow ones: compiled code, which takes long to compile, and tokens, which begin from an action."""
    env, policy = make()
    head, best = policy.head, BestOf(CriticEnsemble(policy.condition_dim + policy.head.feature_width, 1), draws=3)
    policy = policy.with_start(2).with_guidance(best).eval()
    export_decision(policy, tmp_path / "steered", form)
    td = env.reset()
    observation = policy.read_observation(td, policy.rows(td))
    start = torch.tensor([[2, 1], [0, 1], [1, 0], [2, 0]]) if head.tokens else torch.randn(4, policy.choices)
    policy.reseed(3)
    acted = policy(td.set("start", start))["action"]
    policy.reseed(3)
    noise = policy.noise(torch.Size([12])).unflatten(1, (4, 3))
    drawn = {} if head.tokens else {"normal": head.draws(torch.Size([12]), policy.generator).unflatten(0, (4, 3))}
    given = {"observation": observation, "start": start, "uniform" if head.tokens else "noise": noise, **drawn}
    decided = ExportedDecision(tmp_path / "steered")(**given)["action"]
    torch.testing.assert_close(decided, acted, rtol=1e-5, atol=1e-5)


class Tied(BestOf):
    """Takes another draw than `BestOf`, of those that the critic likes as well: what rounding does to an export."""

    def best(self, policy, condition, action):
        found = self.values(policy, condition, action).unflatten(-1, (-1, self.draws))
        return self.draws - 1 - found.flip(-1).argmax(-1)


class Worst(BestOf):
    """Takes the draw that the critic likes least."""

    def best(self, policy, condition, action):
        return self.values(policy, condition, action).unflatten(-1, (-1, self.draws)).argmin(-1)


@pytest.mark.parametrize("make", [vectors, tokens])
def test_an_export_that_takes_another_of_equally_good_draws_is_right_and_one_that_takes_a_worse_one_is_not(make):
    _, policy = make()
    critic = CriticEnsemble(policy.condition_dim + policy.head.feature_width, 1)
    level = copy.deepcopy(critic)
    for parameter in level.parameters():
        torch.nn.init.zeros_(parameter)

    def decided(best):
        return Decision(policy.with_guidance(best))

    def run(best):
        return lambda inputs: decided(best)(*inputs)

    with torch.no_grad():
        assert write.compare(decided(BestOf(level, draws=4)), run(Tied(level, draws=4))) == 0
        assert write.compare(decided(BestOf(critic, draws=4)), run(BestOf(critic, draws=4))) == 0
        with pytest.raises(InputError, match=r"differs|chooses otherwise"):
            write.compare(decided(BestOf(critic, draws=4)), run(Worst(critic, draws=4)))
        with pytest.raises(InputError, match=r"differs|chooses otherwise"):  # a draw that nobody made
            write.compare(decided(BestOf(level, draws=4)), lambda x: [y + 1 for y in run(Tied(level, draws=4))(x)])


def test_the_same_inputs_give_the_same_outputs_and_the_generator_is_left_alone(written):
    policy, result = written("lad-ts-released")
    before = policy.generator.get_state()
    first, second = (both(policy, result.path, 5)[1] for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(policy.generator.get_state(), before)


def test_a_decision_draws_its_choice_at_the_uniform_number():
    policy = FeedforwardPolicy(choices=4, observation_dim=2)
    logits = torch.randn(1, 4).expand(10_000, 4)
    uniform = torch.rand(10_000, generator=torch.Generator().manual_seed(0))
    share = torch.bincount(policy.choose_at(logits, uniform), minlength=4) / 10_000
    assert torch.allclose(share, logits[0].softmax(-1), atol=0.02)
    assert (policy.choose_at(logits[:3], torch.tensor([0.0, 0.5, 1 - 1e-7])).diff() >= 0).all()


@pytest.mark.parametrize("draw", ["sample", "argmax"])
def test_the_inputs_are_those_that_the_policy_needs(draw):
    policy = DiffusionPolicy(choices=3, observation_dim=2, steps=4, head=CategoricalHead(draw))
    names = {i.name: i.shape for i in Decision(policy).inputs}
    assert names["noise"] == (4, "rows", 3)  # where the chain starts, and three noisy steps
    assert ("uniform" in names) == (draw == "sample")
    assert "latent" not in names
    assert "noise" not in {i.name for i in Decision(FeedforwardPolicy(choices=3, observation_dim=2)).inputs}


def test_the_description_tells_inputs_outputs_and_the_difference(written):
    _, result = written("lad-ts")
    data = json.loads(result.path.with_name("decision.onnx.json").read_text())
    assert data["schema"] == "diffpolicy.decision/1"
    assert [i["name"] for i in data["inputs"]] == ["observation", "latent", "noise"]
    assert [o["name"] for o in data["outputs"]] == ["action", "logits", "next_latent"]
    assert data["largest_difference"] == result.difference
    assert data["policy"]["trained"] == {"through_chain": True}


def test_a_graph_that_differs_is_refused_and_nothing_is_written(tmp_path, monkeypatch):
    def wrong(decision, path):
        other = policy_of("sac-ts")
        with torch.no_grad():
            next(iter(other.parameters())).add_(0.1)
        write._onnx(Decision(other), path)

    monkeypatch.setitem(write.FORMATS, "onnx", (wrong, write.run_onnx))
    with pytest.raises(InputError, match="differs"):
        export_decision(policy_of("sac-ts"), tmp_path / "decision.onnx")
    assert list(tmp_path.iterdir()) == []


def test_other_choices_than_the_policys_are_refused():
    decision = Decision(policy_of("dqn-ts"))

    def other(inputs):
        action, logits = decision(*inputs)
        return [(action + 1) % 3, logits]

    with pytest.raises(InputError, match="otherwise"):
        write.compare(decision, other)


def test_what_cannot_be_traced_is_refused_in_one_sentence(tmp_path):
    class Loops(FeedforwardPolicy):
        def decode(self, x0, mask=None):
            return x0 if float(x0.sum()) > 0 else -x0

    with pytest.raises(InputError, match="cannot be traced"):
        export_decision(Loops(choices=3, observation_dim=2), tmp_path / "x.onnx")
    Policy.kinds.pop(Loops._file_name())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "says"), [("tflite", "tflite"), ("", "''")])
def test_an_unknown_format_is_refused(name, says, tmp_path):
    with pytest.raises(InputError, match=says):
        export_decision(policy_of("sac-ts"), tmp_path / "x", name)


def test_what_a_call_gives_stays_and_the_memory_of_its_inputs_does_not_matter(written):
    policy, result = written("sac-ts", 0)
    decide, decision = ExportedDecision(result.path), Decision(policy)
    generator = torch.Generator().manual_seed(5)
    given = [{i.name: i.random(rows, generator) for i in decision.inputs} for rows in (4, 4, 4, 2, 2, 2, 4, 4)]
    turned = given[2]["observation"]
    given[2]["observation"] = turned.t().contiguous().t()
    assert not given[2]["observation"].is_contiguous()
    for again in given[3:6]:
        again["observation"].requires_grad_()
    outputs = [decide(**inputs) for inputs in given]
    with ThreadPoolExecutor(3) as pool:
        outputs += pool.map(lambda inputs: decide(**inputs), given * 3)
    for inputs, theirs in zip(given * 4, outputs, strict=True):
        ours = decision(*inputs.values())
        agree(dict(zip((o.name for o in decision.outputs), ours, strict=True)), theirs)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"observation": torch.zeros(4, 5)}, r"uniform must be float32 \[4\]"),
        ({"observation": torch.zeros(2, 4)}, r"observation must be float32 \[2, 5\]"),
        ({"uniform": torch.zeros(2).double()}, "got float64"),
        ({"uniform": [0.5, 0.5]}, "must be a torch tensor, got list"),
        ({"more": torch.zeros(2)}, "takes observation, uniform; more is none of them$"),
        ({"observation": torch.zeros(3, 3, 5)}, r"observation must be float32 \[3, 5\], got float32 \[3, 3, 5\]"),
    ],
)
def test_a_wrong_input_is_refused_also_after_right_ones(change, says, written):
    decide = ExportedDecision(written("sac-ts", 0)[1].path)
    right = {"observation": torch.zeros(2, 5), "uniform": torch.full((2,), 0.5)}
    decide(**right)
    decide(**right)
    with pytest.raises(InputError, match=says):
        decide(**{**right, **change})


def test_damaged_files_and_wrong_inputs_are_refused(written, tmp_path):
    path = tmp_path / "decision.onnx"
    with pytest.raises(InputError, match=r"decision\.onnx\.json"):
        ExportedDecision(path)
    whole = written("sac-ts", 0)[1].path
    for name in (path.name, f"{path.name}.json"):
        shutil.copy(whole.with_name(name), tmp_path)
    with pytest.raises(InputError, match=r"takes observation, uniform; it lacks uniform$"):
        ExportedDecision(path)(observation=torch.zeros(1, 5))
    with pytest.raises(InputError, match="it lacks uniform and unifrom is none of them; did you mean uniform"):
        ExportedDecision(path)(observation=torch.zeros(1, 5), unifrom=torch.zeros(1))
    path.write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"decision\.onnx cannot be read"):
        ExportedDecision(path)


def test_a_file_that_was_run_in_inference_mode_runs_outside_of_it(tmp_path):
    policy = FeedforwardPolicy(choices=3, observation_dim=5, head=CategoricalHead("argmax"))
    decide = ExportedDecision(export_decision(policy, tmp_path / "decision.onnx").path)
    rows = [torch.randn(4, 5, generator=torch.Generator().manual_seed(k)) for k in range(3)]
    expected = [Decision(policy)(x)[0] for x in rows]
    with torch.inference_mode():
        assert all(torch.equal(decide(observation=x)["action"], y) for x, y in zip(rows, expected, strict=True))
    assert all(torch.equal(decide(observation=x.clone())["action"], y) for x, y in zip(rows, expected, strict=True))
