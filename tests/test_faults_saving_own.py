"""Saving parts and policies of one's own whose descriptions leave something out: never another law without a word."""

import dataclasses
import json
import random

import numpy as np
import pytest
import torch
from torch import nn

from diffpolicy import ActionMemory, DiffusionPolicy, FeedforwardPolicy, GreedyValuePolicy, InputError, Policy
from diffpolicy.diffusion.processes import GaussianProcess
from diffpolicy.diffusion.sampler import DDIM
from diffpolicy.policies.heads import CategoricalHead
from diffpolicy.policies.priors import GaussianPrior
from diffpolicy.training.trainable import policy_content


def tiny(kind=DiffusionPolicy, **options):
    return kind(choices=3, observation_dim=2, **options)


def logits_of(policy, scale=1.0):
    noise = torch.randn(policy.draws, 5, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return policy.law(scale * torch.randn(5, 2, generator=torch.Generator().manual_seed(1)), None, None, noise)


# Denoisers


class Forgets(nn.Module):
    """Its `config` leaves out the gain."""

    def __init__(self, width=3, condition=2, gain=1.0):
        super().__init__()
        self.layer, self.gain, self.widths = nn.Linear(width + condition, width), gain, (width, condition)

    def forward(self, x, i, cond):
        return self.gain * self.layer(torch.cat([x, cond], -1))

    def config(self):
        return {"width": self.widths[0], "condition": self.widths[1]}


class ForgetsInDict(Forgets):
    def to_dict(self):
        return self.config()

    @classmethod
    def from_dict(cls, data):
        return cls(**data)


@pytest.mark.parametrize("agents", [None, 2])
@pytest.mark.parametrize("kind", [Forgets, ForgetsInDict])
def test_a_denoiser_whose_description_leaves_an_argument_out_is_refused_by_name(kind, agents, tmp_path):
    policy = tiny(denoiser=kind(gain=3.0), agents=agents)
    policy.save(tmp_path)
    with pytest.raises(
        InputError, match=rf"denoiser {kind.__name__} makes other numbers.*load\(path, denoiser=\.\.\.\)"
    ):
        Policy.load(tmp_path)
    with pytest.raises(InputError, match=kind.__name__):
        Policy.load(tmp_path, denoiser=kind(gain=2.9))
    loaded = Policy.load(tmp_path, denoiser=kind(gain=3.0))
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), loaded.parameters(), strict=True))
    with pytest.raises(InputError, match=kind.__name__):  # before any work
        policy.check_saves()
    tiny(denoiser=kind(), agents=agents).check_saves()


class Jitters(Forgets):
    """Draws from the global generators, in `eval` mode too."""

    def forward(self, x, i, cond):
        return super().forward(x, i, cond) + self.gain * (torch.randn_like(x) + random.random())


def test_a_denoiser_that_draws_by_itself_is_tried_all_the_same(tmp_path):
    policy, before = tiny(denoiser=Jitters(gain=3.0)), torch.get_rng_state()
    policy.save(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(InputError, match="denoiser Jitters makes other numbers"):
        Policy.load(tmp_path)
    with pytest.raises(InputError, match="denoiser Jitters makes other numbers"):
        policy.check_saves()
    assert Policy.load(tmp_path, denoiser=Jitters(gain=3.0)).denoiser.gain == 3.0


class Shakes(Jitters):
    """Draws from generators that it holds itself, which are somewhere else when it is loaded."""

    def __init__(self, gain=1.0, begin=0):
        super().__init__(gain=gain)
        self.held = {"numpy": np.random.default_rng(begin), "old": np.random.RandomState(begin)}
        self.torch, self.python = torch.Generator().manual_seed(begin), random.Random(begin)

    def forward(self, x, i, cond):
        drawn = self.held["numpy"].normal() + self.held["old"].normal() + self.python.random()
        return Forgets.forward(self, x, i, cond) + self.gain * (torch.randn(x.shape, generator=self.torch) + drawn)


def test_a_denoiser_with_generators_of_its_own_is_tried_from_one_place(tmp_path):
    policy = tiny(denoiser=Shakes(gain=3.0, begin=7))
    before = policy.denoiser.torch.get_state()
    policy.save(tmp_path)
    assert torch.equal(policy.denoiser.torch.get_state(), before)
    with pytest.raises(InputError, match="denoiser Shakes makes other numbers"):
        Policy.load(tmp_path, denoiser=Shakes())
    assert Policy.load(tmp_path, denoiser=Shakes(gain=3.0, begin=8)).denoiser.gain == 3.0


# Frozen parts


class BareHead(CategoricalHead):
    """Its constructor takes what no field tells."""

    def __init__(self, draw="sample", choices=0, one_hot=False, temperature=1.0):
        super().__init__(draw=draw, choices=choices, one_hot=one_hot)
        object.__setattr__(self, "temperature", temperature)

    def law(self, x0, mask=None):
        return super().law(x0 / self.temperature, mask)


@dataclasses.dataclass(frozen=True)
class WarmHead(CategoricalHead):
    temperature: float = 1.0

    def law(self, x0, mask=None):
        return super().law(x0 / self.temperature, mask)


@dataclasses.dataclass(frozen=True)
class Slow(GaussianProcess):
    """Its schedule has a name, and it is another process all the same."""

    power: float = 1.0

    def squares(self, i):
        a = super().squares(i)[0] ** self.power
        return a, 1 - a


class BareProcess(GaussianProcess):
    def __init__(self, schedule="vp", levels=5, power=1.0):
        super().__init__(schedule, levels)
        object.__setattr__(self, "power", power)

    def squares(self, i):
        a = super().squares(i)[0] ** self.power
        return a, 1 - a


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loud(DDIM):
    gain: float = 1.0

    def reverse_steps(self, process):
        return [dataclasses.replace(step, push=self.gain * step.push) for step in super().reverse_steps(process)]


class BareSampler(DDIM):
    def __init__(self, gain=1.0, **options):
        super().__init__(**options)
        object.__setattr__(self, "gain", gain)

    def reverse_steps(self, process):
        return [dataclasses.replace(step, push=self.gain * step.push) for step in super().reverse_steps(process)]


@dataclasses.dataclass(frozen=True)
class Wide(GaussianPrior):
    width: float = 1.0


class BarePrior(GaussianPrior):
    def __init__(self, width=1.0):
        object.__setattr__(self, "width", width)


TOLD = {
    "head": lambda: WarmHead(temperature=0.25),
    "schedule": lambda: Slow(power=2.0),
    "sampler": lambda: Loud(gain=0.5),
    "prior": lambda: Wide(width=2.0),
}
LEFT_OUT = {
    "head": lambda: BareHead(temperature=0.25),
    "schedule": lambda: BareProcess(power=2.0),
    "sampler": lambda: BareSampler(gain=0.5),
    "prior": lambda: BarePrior(width=2.0),
}


@pytest.mark.parametrize("part", TOLD)
def test_a_part_of_ones_own_comes_back_as_it_was(part, tmp_path):
    policy = tiny(**{part: TOLD[part]()}).eval()
    policy.check_saves()
    policy.save(tmp_path)
    loaded = Policy.load(tmp_path)
    assert torch.equal(logits_of(policy), logits_of(loaded))
    assert [loaded.head, loaded.process, loaded.sampling, loaded.prior] == [
        policy.head, policy.process, policy.sampling, policy.prior
    ]  # fmt: skip


@pytest.mark.parametrize("part", LEFT_OUT)
def test_a_part_whose_fields_do_not_tell_all_is_refused_when_it_is_saved(part, tmp_path):
    says = rf"{type(LEFT_OUT[part]()).__name__}\.\w+ is (0\.25|2\.0|0\.5), but 1\.0"
    if part == "head":  # it is made anew in its size, and would lose it there
        with pytest.raises(InputError, match=says):
            tiny(head=LEFT_OUT[part]())
        return
    policy = tiny(**{part: LEFT_OUT[part]()})
    for save in (policy.check_saves, lambda: policy.save(tmp_path / "new")):
        with pytest.raises(InputError, match=says):
            save()
    assert not (tmp_path / "new").exists()
    if part == "sampler":
        with pytest.raises(InputError, match=says):
            tiny(sampler=LEFT_OUT[part](), sampler_steps=2)


def test_a_part_that_json_cannot_hold_is_refused_by_name(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Odd(CategoricalHead):
        weights: object = None

    with pytest.raises(InputError, match="Odd holds what no file can hold"):
        tiny(head=Odd(weights=torch.zeros(2))).save(tmp_path / "new")


def test_a_head_made_in_a_function_is_not_taken_for_its_namesake(tmp_path):
    def make(temperature):
        class Local(CategoricalHead):
            def law(self, x0, mask=None):
                return super().law(x0 / temperature, mask)

        return Local

    kinds = [make(t) for t in (0.25, 1.0)]
    tiny(head=kinds[0]()).save(tmp_path)
    with pytest.raises(InputError, match="several classes"):
        Policy.load(tmp_path)
    assert kinds[1] is not kinds[0]


def test_a_prior_that_is_called_as_one_of_ours_is_not_taken_for_it(tmp_path):
    kind = dataclasses.make_dataclass("ActionMemory", [("extra", float, 1.0)], bases=(ActionMemory,), frozen=True)
    tiny(prior=kind(extra=2.0)).save(tmp_path)
    assert json.loads((tmp_path / "policy.json").read_text())["config"]["prior"]["type"].endswith(":ActionMemory")


def test_the_head_of_action_values_comes_back(tmp_path):
    policy = tiny(GreedyValuePolicy, head=CategoricalHead(one_hot=True))
    policy.save(tmp_path)
    assert Policy.load(tmp_path).head == policy.head


# Policies


class Clips(FeedforwardPolicy):
    """Takes an argument that `config` does not tell, and keeps it."""

    def __init__(self, *, clip=20.0, **options):
        super().__init__(**options)
        self.clip = clip

    def embed(self, td):
        return super().embed(td).clamp(-self.clip, self.clip)


class ClipsAside(FeedforwardPolicy):
    """Keeps it by another name, and takes it out of the others, where no signature tells it."""

    def __init__(self, **options):
        self_bound = options.pop("clip", 20.0)
        super().__init__(**options)
        self.bound = self_bound

    def embed(self, td):
        return super().embed(td).clamp(-self.bound, self.bound)


class Scales(DiffusionPolicy):
    def __init__(self, *, gain=1.0, **options):
        super().__init__(**options)
        self.gain = gain

    def decode(self, x0, mask=None):
        return self.gain * x0


class Bends(Scales):
    def decode(self, x0, mask=None):
        return x0

    def denoise(self, x, t, cond):
        return super().denoise(x, t, cond) / self.gain


class Hot(FeedforwardPolicy):
    def __init__(self, *, heat=1.0, **options):
        super().__init__(**options)
        self.heat = heat

    def choose(self, logits):
        return super().choose(logits / self.heat)


@pytest.mark.parametrize(("saved", "given"), [(20.0, 5.0), (5.0, 20.0), (5.0, 4.0)])
def test_another_argument_than_the_one_that_was_saved_is_refused_by_name_and_value(saved, given, tmp_path):
    policy = tiny(Clips, clip=saved).eval()
    policy.save(tmp_path)
    with pytest.raises(InputError, match=f"clip was {saved} when the policy was saved, got {given}"):
        Policy.load(tmp_path, clip=given)
    loaded = Policy.load(tmp_path, clip=saved)
    assert torch.equal(logits_of(policy, 50.0), logits_of(loaded, 50.0))
    if saved != 20.0:
        with pytest.raises(InputError, match=r"clip.*load\(path, clip=\.\.\.\)"):
            Policy.load(tmp_path)


def test_an_argument_that_no_signature_tells_is_known_by_what_it_does(tmp_path):
    policy = tiny(ClipsAside, clip=5.0).eval()
    policy.save(tmp_path)
    for given in ({}, {"clip": 6.0}):
        with pytest.raises(InputError, match="embed of a ClipsAside"):
            Policy.load(tmp_path, **given)
    assert torch.equal(logits_of(policy, 50.0), logits_of(Policy.load(tmp_path, clip=5.0), 50.0))
    with pytest.raises(InputError, match="embed of a ClipsAside"):
        policy.check_saves()
    tiny(ClipsAside).check_saves()


@pytest.mark.parametrize(
    ("kind", "name", "stage"),
    [(Scales, "gain", "decode"), (Bends, "gain", "denoiser"), (Hot, "heat", "choose")],
)
def test_whatever_stage_an_argument_changes_is_tried(kind, name, stage, tmp_path):
    tiny(kind, **{name: 3.0}).save(tmp_path)
    data = json.loads((tmp_path / "policy.json").read_text())
    del data["needs"], data["kept"]  # as if the class had kept it in a place of its own
    (tmp_path / "policy.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match=f"{stage}.* makes other numbers"):
        Policy.load(tmp_path)
    assert getattr(Policy.load(tmp_path, **{name: 3.0}), name) == 3.0


def test_a_run_is_told_from_one_of_another_argument_that_config_does_not_tell():
    assert policy_content(tiny(Clips, clip=5.0)) == policy_content(tiny(Clips, clip=5.0))
    assert policy_content(tiny(Clips, clip=5.0)) != policy_content(tiny(Clips, clip=6.0))


def test_a_policy_that_is_all_ours_carries_no_evidence_and_trying_changes_nothing(tmp_path):
    tiny().save(tmp_path)
    assert "evidence" not in json.loads((tmp_path / "policy.json").read_text())
    policy = tiny(Clips, normalize=True).train()
    state, before = policy.generator.get_state(), torch.get_rng_state()
    policy.check_saves()
    policy.save(tmp_path)
    assert torch.equal(policy.generator.get_state(), state)
    assert torch.equal(torch.get_rng_state(), before)
    assert policy.training


@pytest.mark.parametrize("evidence", [3, [], {"waves.embed": 3}, {"waves.embed": [[1]]}, {"waves.embed": [["x", 1]]}])
def test_evidence_that_is_none_is_refused(evidence, tmp_path):
    tiny(Clips).save(tmp_path)
    data = json.loads((tmp_path / "policy.json").read_text())
    (tmp_path / "policy.json").write_text(json.dumps({**data, "evidence": evidence}))
    with pytest.raises(InputError):
        Policy.load(tmp_path)
