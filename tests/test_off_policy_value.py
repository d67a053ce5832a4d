"""Off-policy estimates on a bandit whose truth is known: no bias over seeds, less scatter, and what is warned of."""

import json

import pytest
import torch
from tensordict import TensorDict

from diffpolicy import DiffusionPolicy, FeedforwardPolicy, InputError
from diffpolicy.environments.decision_log import read_decisions
from diffpolicy.evaluation import off_policy_value
from diffpolicy.policies import ActionMemory, BestOf
from diffpolicy.policies.heads import BoundedHead
from toys import GuessEnv

POLICY = FeedforwardPolicy.from_specs(GuessEnv(1), seed=3)


def log_of(seed, rows=400, propensities=None):
    """Decisions by chance of a bandit: the reward is s_a and noise."""
    draws = torch.Generator().manual_seed(seed)
    seen = torch.randn(rows, 3, generator=draws)
    chance = torch.tensor([0.5, 0.3, 0.2]).expand(rows, 3)
    action = torch.multinomial(chance, 1, generator=draws).squeeze(-1)
    reward = 1 + seen.gather(-1, action.unsqueeze(-1)).squeeze(-1) + 0.1 * torch.randn(rows, generator=draws)
    told = chance.gather(-1, action.unsqueeze(-1)).squeeze(-1) if propensities is None else propensities
    return TensorDict({"observation": seen, "action": action, "reward": reward, "propensity": told}, [rows])


def truth(policy):
    seen = torch.randn(200_000, 3, generator=torch.Generator().manual_seed(99))
    return float((policy.law(seen).softmax(-1) * (1 + seen)).sum(-1).mean().detach())


def test_estimates_have_no_bias_their_intervals_hold_and_the_doubly_robust_one_scatters_least():
    found = [off_policy_value(POLICY, log_of(seed), seed=seed) for seed in range(60)]
    value = truth(POLICY)
    scatter = {}
    for name in ("ips", "snips", "dr"):
        means = torch.tensor([getattr(f, name).mean for f in found])
        scatter[name] = float(means.std())
        assert abs(float(means.mean()) - value) < 4 * scatter[name] / 60**0.5
        covers = [abs(getattr(f, name).mean - value) <= getattr(f, name).half_width for f in found]
        assert sum(covers) >= 50  # of 60, 57 of them are expected
    assert scatter["dr"] < min(scatter["snips"], scatter["ips"])
    assert not any(f.warnings for f in found)


def test_of_the_logs_own_policy_every_weight_is_one():
    class Same:
        def __call__(self, td):
            return td.set("action", torch.multinomial(torch.tensor([0.5, 0.3, 0.2]).expand(len(td), 3), 1).squeeze(-1))

    log = log_of(1, 2000)
    found = off_policy_value(Same(), log, samples=400)
    assert found.effective == pytest.approx(2000, rel=0.02)
    assert found.ips.mean == pytest.approx(found.logged.mean, rel=0.02)


def test_a_rule_and_a_chain_are_judged_too():
    best = off_policy_value(lambda td: td.set("action", td["observation"].argmax(-1)), log_of(0, 4000), samples=1)
    assert best.dr.mean == pytest.approx(1 + 0.846, abs=0.08)  # the mean of the greatest of three
    chain = DiffusionPolicy.from_specs(GuessEnv(1), steps=3, prediction="x0", seed=1)
    found = off_policy_value(chain, log_of(0, 2000), samples=64)
    assert found.dr.half_width < found.ips.half_width


def test_what_makes_an_estimate_doubtful_is_said():
    log = log_of(0)
    log["propensity"][:5] = torch.nan
    log["propensity"][5:8] = 0
    found = off_policy_value(POLICY, log)
    assert (found.rows, found.left_out) == (392, 8)
    assert "5 of 400 rows have no propensity" in found.warnings[0]
    assert "3 of 400 rows have the propensity 0" in found.warnings[1]
    never = log_of(0)
    never = never[never["action"] != 2]  # the policy takes it, the log does not
    assert "decides what the log never does" in off_policy_value(POLICY, never).warnings[-1]
    wrong = log_of(0, propensities=torch.full((400,), 0.01))
    assert "instead of 1" in off_policy_value(POLICY, wrong).warnings[-1]
    rare = off_policy_value(lambda td: td.set("action", torch.zeros(40).long()), log_of(0, 40), samples=1)
    assert "are worth" in rare.warnings[0]


class Likes(torch.nn.Module):
    """Likes the last choice best, whatever is observed."""

    def forward(self, seen):
        return torch.tensor([0.0, 0.0, 100.0]).expand(1, *seen.shape[:-1], 3)


def test_a_policy_whose_draws_a_critic_chooses_among_is_judged_by_what_it_decides():
    policy = DiffusionPolicy.from_specs(GuessEnv(1), steps=2, prediction="x0", seed=1)
    policy = policy.with_guidance(BestOf(Likes(), draws=64, reads="state"))
    found = off_policy_value(policy, log_of(0), samples=2)
    last = off_policy_value(lambda td: td.set("action", torch.full((len(td),), 2)), log_of(0), samples=1)
    assert found.dr.mean == pytest.approx(last.dr.mean, abs=0.02)


def test_vectors_that_happen_to_be_whole_are_judged_by_densities(tmp_path):
    head = BoundedHead(low=(-0.5,), high=(1.5,))
    policy = FeedforwardPolicy(choices=head.width, observation_dim=1, head=head, seed=1)
    lines = [f"{k % 7},{k % 2}.0,{k % 3},2.0" for k in range(40)]
    (tmp_path / "log.csv").write_text("observation_0,action,reward,propensity\n" + "\n".join(lines) + "\n")
    whole = read_decisions(tmp_path / "log.csv")
    near = whole.clone().set("action", whole["action"].float() + 1e-6)
    assert off_policy_value(policy, whole).ips.mean == pytest.approx(off_policy_value(policy, near).ips.mean, rel=1e-3)


def test_a_row_that_does_not_count_may_hold_no_choice():
    log = log_of(0)
    log["action"][7], log["propensity"][7] = -1, torch.nan
    assert off_policy_value(POLICY, log).left_out == 1


HEADER = "observation_0,observation_1,observation_2,action,reward,propensity\n"


def test_the_command_prints_estimates_of_a_log(cli, tmp_path):
    log = log_of(0, 200)
    lines = [
        ",".join(f"{x:.6f}" for x in s) + f",{a},{r:.6f},{p:.3f}"
        for s, a, r, p in zip(
            *(log[k].tolist() for k in ("observation", "action", "reward", "propensity")), strict=True
        )
    ]
    (tmp_path / "log.csv").write_text(HEADER + "\n".join(lines) + "\n")
    POLICY.save(tmp_path / "policy")
    told = json.loads(
        cli(
            "evaluate",
            str(tmp_path / "policy"),
            "--problem",
            "toys:GuessEnv",
            "--log",
            str(tmp_path / "log.csv"),
            "--json",
        ).out
    )
    found = told["policies"][str(tmp_path / "policy")]
    assert found["dr"]["mean"] == pytest.approx(off_policy_value(POLICY, log).dr.mean, abs=1e-3)
    assert found["rows"] == 200


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("observation_0,action\n1,x\n", "line 2: action must be a number, got 'x'"),
        ("observation_0,action\n1,1_0\n", "line 2: action must be a number"),
        ("observation_0,observation_2,action\n1,1,0\n", "must number the columns of 'observation' from 0"),
        ("action\n1\n", "has no column 'observation' or 'observation_0'"),
        ("observation_0,action,mask_0\n1,0,2\n", "line 2: mask must be 0 or 1, got 2"),
        ("observation_0,action,reward\n1,0,\n", "line 2: reward must be a number, got ''"),
    ],
)
def test_a_log_that_cannot_be_read_names_line_and_column(tmp_path, text, words):
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        read_decisions(tmp_path / "log.csv")


def test_a_folder_of_tensors_is_read_and_nothing_is_unpickled(tmp_path):
    log_of(0, 20).memmap(tmp_path / "log")
    assert torch.equal(read_decisions(tmp_path / "log")["action"], log_of(0, 20)["action"])
    (tmp_path / "log" / "other.pickle").write_bytes(b"")
    with pytest.raises(InputError, match=r"other.pickle, which is not read"):
        read_decisions(tmp_path / "log")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda meta: meta["observation"].update(shape=[20, 10**6]), "must have .* bytes, .* and its file has"),
        (lambda meta: meta["observation"].update(shape=[]), r"a shape that begins with \[20\], got \[\]"),
        (lambda meta: meta["observation"].update(is_nested=True), "'observation' must be a tensor of"),
        (lambda meta: meta["observation"].update(dtype="torch.quint8"), "'observation' must be a tensor of"),
        (lambda meta: meta.update(shape=[20, 2]), r"a shape that begins with \[20, 2\]"),
        (lambda meta: meta.update(other={"type": "TensorDict"}), "'other' must be a folder"),
    ],
)
def test_a_folder_whose_files_are_not_what_it_says_is_refused_and_stays_as_it_is(change, words, tmp_path):
    log_of(0, 20).memmap(tmp_path / "log")
    meta = json.loads((tmp_path / "log" / "meta.json").read_text())
    change(meta)
    (tmp_path / "log" / "meta.json").write_text(json.dumps(meta))
    before = {path: path.stat().st_size for path in (tmp_path / "log").iterdir()}
    with pytest.raises(InputError, match=words):
        read_decisions(tmp_path / "log")
    assert {path: path.stat().st_size for path in (tmp_path / "log").iterdir()} == before


def test_a_folder_of_decisions_may_hold_folders_and_keys_of_any_name(tmp_path):
    rows = TensorDict({"observation": torch.rand(4, 2), "action": torch.arange(4), "a b/ü": torch.ones(4)}, [4])
    rows["next"] = TensorDict({"observation": torch.rand(4, 2), "terminated": torch.ones(4).bool()}, [4])
    rows.memmap(tmp_path / "log")
    read = read_decisions(tmp_path / "log")
    assert set(read.keys(True, True)) == set(rows.keys(True, True))
    assert all(torch.equal(read[key], rows[key]) for key in rows.keys(True, True))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda log: log.exclude("propensity"), "no 'propensity'"),
        (lambda log: log.set("propensity", torch.full((400,), 1.5)), "from 0 to 1, got 1.5"),
        (
            lambda log: log.set("action", log["action"].index_fill(0, torch.tensor([7]), -1)),
            "action in row 7 is -1, which",
        ),
        (
            lambda log: log.set("action", log["action"].index_fill(0, torch.tensor([9]), 3)),
            "action in row 9 is 3, which",
        ),
        (lambda log: log.set("action", log["action"] + 0.5), "in row 0 is .*.5, and the policy makes choices"),
        (lambda log: log.set("action", torch.zeros(400, 2)), r"actions are \[2\], and the policy's \[\]"),
        (lambda log: log[:6], "6 rows with a propensity, and at least 10"),
        (lambda log: log.set("observation", torch.zeros(400, 2)), "holds 2 numbers of each observation, .* reads 3"),
    ],
)
def test_mistakes_get_a_sentence(change, words):
    with pytest.raises(InputError, match=words):
        off_policy_value(POLICY, change(log_of(0)))


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (DiffusionPolicy.from_specs(GuessEnv(1), prior=ActionMemory()), "without a memory"),
        (FeedforwardPolicy.from_specs(GuessEnv(1, mask=True)), "the log has no 'mask_0'"),
        (lambda td: td.set("action", td["nothing"]), "nothing.*, which the log does not hold"),
        (lambda td: td.set("action", torch.zeros(400, 2)), r"decides \[400, 2\], and the log's actions are \[400\]"),
    ],
)
def test_what_no_such_log_can_judge_is_refused(policy, words):
    with pytest.raises(InputError, match=words):
        off_policy_value(policy, log_of(0))
    vectors = log_of(0).set("action", torch.rand(400, 2))
    with pytest.raises(InputError, match="none of which it repeats"):
        off_policy_value(lambda td: td.set("action", torch.rand(400, 2)), vectors)
