"""What a policy would have earned, estimated from a log of another's decisions and how probable these were."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from diffpolicy import _validate as check
from diffpolicy.environments.decision_log import check_decisions
from diffpolicy.errors import InputError
from diffpolicy.evaluation.intervals import Interval, mean_interval
from diffpolicy.policies.guidance import BestOf
from diffpolicy.policies.heads import CompositeHead, Head
from diffpolicy.policies.masks import as_mask
from diffpolicy.policies.policy import Policy
from diffpolicy.policies.protocols import Decides
from diffpolicy.policies.steered import SteeredPolicy

FEW = 30.0
"""Effective rows below which an estimate is warned of."""
SHARE = 0.05
"""Of all rows, the same."""
RIDGE = 1e-3
"""Weight of the squared coefficients of the model of rewards, per row."""


@dataclass(frozen=True)
class OffPolicyValue:
    """Estimates of the mean reward of a decision, each with its 95 % interval.

    Args:
        ips: by inverse propensities. snips: the same with weights that sum to one, biased by 1 / rows and steadier.
        dr: doubly robust, on a model of rewards.
        logged: mean reward of the log itself.
        effective: rows that the weights are worth, (sum w)^2 / sum w^2.
        rows: that counted. left_out: whose propensity is missing or zero.
        warnings: what makes the estimates doubtful, a sentence each.

    Example:
        >>> sure = Interval(1.0, 0.1)
        >>> OffPolicyValue(sure, sure, sure, sure, 80.0, 100, 0, ()).to_dict()["dr"]
        {'mean': 1.0, 'half_width': 0.1}
    """

    ips: Interval
    snips: Interval
    dr: Interval
    logged: Interval
    effective: float
    rows: int
    left_out: int
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As `evaluate --log --json` prints it."""
        return {**asdict(self), "warnings": list(self.warnings)}


def off_policy_value(
    policy: Decides, log: TensorDict, *, samples: int = 16, folds: int = 5, seed: int = 0
) -> OffPolicyValue:
    """What a policy would earn by each decision of a log, though another policy decided.

    With w = pi(a | s) / mu(a | s), mu the propensity that the log holds, and q a model of rewards fitted on the other
    folds of the log (ridge regression on state, action and their products; cross-fitting),

        IPS = mean(w r),  SNIPS = sum(w r) / sum(w),  DR = mean( E_pi q(s, .) + w (r - q(s, a)) ).

    IPS is unbiased (Horvitz and Thompson 1952), and so is DR, whatever q is, and less scattered the better q is (Dudik
    et al. 2011, arXiv 1103.4601); SNIPS see Swaminathan and Joachims (2015). Where a decision changes what is met
    afterwards, the states stay those of the log: it is the value of one decision, not of an episode.

    Args:
        policy: a `Policy` without a memory, or a function of a tensordict with `observation` and, where the log has
            masks, `action_mask`. Through a chain its chances are means over `samples` of its draws; of a policy without
            a law of its own (a rule, a chain of tokens, draws a critic chooses among) shares of so many decisions.
        log: of `read_decisions`, with reward and propensity: a probability, of vectors a density.
        samples: decisions or chains drawn for a row, at least 1.
        folds: of the cross-fitting, at least 2.
        seed: of the folds.

    Returns:
        The estimates, with the effective number of rows and what there is to warn of.

    Raises:
        InputError: the log lacks a key or has no row that counts, a propensity is above 1 where there are choices, an
            action is no choice of the policy, or the policy cannot be asked.

    Example:
        >>> seen, action = torch.zeros(900, 1), torch.arange(900) % 3
        >>> log = {"observation": seen, "action": action, "reward": action.float(), "propensity": torch.ones(900) / 3}
        >>> from tensordict import TensorDict
        >>> last = lambda td: td.set("action", torch.full((900,), 2))
        >>> value = off_policy_value(last, TensorDict(log, [900]))
        >>> round(value.dr.mean, 1), round(value.logged.mean)  # always 2, where the log had 0, 1 and 2
        (2.0, 1)
    """
    samples, folds = check.integer(samples, "samples", least=1), check.integer(folds, "folds", least=2)
    for key in ("observation", "action", "reward", "propensity"):
        if log.get(key, None) is None:
            raise InputError(f"the log has no {key!r}, which an off-policy estimate reads")
    whole, told = log, []
    propensity = log["propensity"].double()
    if isinstance(policy, Policy):
        log = log.copy().set("action", _as_decided(policy.head, log["action"]))
    discrete = not log["action"].is_floating_point()
    if bool((propensity < 0).any()) or (discrete and bool((propensity > 1).any())):
        wrong = propensity[(propensity < 0) | (propensity > 1)][0].item()
        raise InputError(f"a propensity must be from 0 to 1, got {wrong:g}")
    for words, bad in (("no propensity", propensity.isnan()), ("the propensity 0", propensity == 0)):
        if count := int(bad.sum()):
            told.append(
                f"{count} of {len(whole)} rows have {words}, and are left out; what is left may not be representative"
            )
    counted = propensity > 0
    if isinstance(policy, Policy):
        _check_choices(policy.head, log["action"], counted)
    log = log[counted]
    if len(log) < 2 * folds:
        raise InputError(f"the log has {len(log)} rows with a propensity, and at least {2 * folds} are needed")
    chance, decided = _asked(policy, log, samples)
    reward, weight = log["reward"].double().numpy(), (chance / propensity[counted]).numpy()
    q, expected = _fitted(log, decided, folds, seed)
    snips = float((weight * reward).sum() / weight.sum()) if weight.sum() > 0 else 0.0
    effective = float(weight.sum() ** 2 / (weight**2).sum()) if weight.any() else 0.0
    told += _doubts(weight, effective)
    residual = weight * (reward - snips) / max(weight.mean(), 1e-300)
    return OffPolicyValue(
        ips=mean_interval(weight * reward),
        snips=Interval(snips, mean_interval(residual).half_width),
        dr=mean_interval(expected + weight * (reward - q)),
        logged=mean_interval(reward),
        effective=effective,
        rows=len(log),
        left_out=len(whole) - len(log),
        warnings=tuple(told),
    )


def _doubts(weight: np.ndarray[Any, Any], effective: float) -> list[str]:
    """What makes weights doubtful: few effective rows, or a mean that is not 1, as it is where supports overlap."""
    told, n = [], len(weight)
    if effective < max(FEW, SHARE * n):
        told.append(
            f"the weights are worth {effective:.1f} of {n} rows: the log's policy decided differently too often"
        )
    error = float(weight.std(ddof=1)) / n**0.5
    mean = float(weight.mean())
    if abs(mean - 1) > 4 * error + 0.01:
        told.append(
            f"the weights' mean is {mean:.3f} instead of 1: the policy decides what the log never does, or the "
            "propensities are not those of the log"
        )
    return told


Decided = list[tuple[Tensor, Any]]
"""Actions `[M, ..]` and the weight of each in an expectation over a policy, a number or `[M]`."""


def _asked(policy: Any, log: TensorDict, samples: int) -> tuple[Tensor, Decided]:
    """The chance of each action of the log, float64 `[M]`, and what the policy decides there: all choices, or draws."""
    observation, action = log["observation"], log["action"]
    mask = log.get("action_mask", None)
    if not isinstance(policy, Policy):
        decided = [_called(policy, observation, mask, action) for _ in range(samples)]
        return _shares(decided, action), [(each, 1 / samples) for each in decided]
    check_decisions(log, policy.observation_dim, "the log")
    if policy.remembers or policy.agents is not None:
        raise InputError("an off-policy estimate needs policies without a memory and with one set of parameters")
    if policy.reading.masked and mask is None:
        raise InputError("the policy reads masks, and the log has no 'mask_0', ...")
    allowed = (
        policy.head.read_mask(as_mask(mask, "action_mask")) if policy.reading.masked and mask is not None else None
    )
    chances: list[Tensor] = []
    decided, every = [], []
    picks = isinstance(policy, SteeredPolicy) and isinstance(policy.guidance, BestOf)  # among draws of its law
    has_law = policy.head.x0_is == "parameters" and policy.head.draw_input is not None and not picks
    enumerated = has_law and policy.head.expectation == "enumerated" and policy.head.event == ()
    with torch.no_grad():
        for _ in range(samples):
            if picks:
                condition = policy.condition(observation.to(policy.dtype))
                decided.append(policy.decided(condition, None, allowed, False).action.to(action.dtype))
                continue
            law = policy.law(observation.to(policy.dtype), None, allowed, policy.noise(observation.shape[:-1]))
            decided.append(policy.choose(law).to(action.dtype))
            if has_law:
                chances.append(policy.head.log_prob(law, action).double().exp())
            if enumerated:
                every.append(policy.head.joint_log_prob(law).double().exp())
            if not policy.draws and enumerated:
                break
    if enumerated:
        law = torch.stack(every).mean(0)
        return torch.stack(chances).mean(0), [(torch.full_like(action, a), law[:, a]) for a in range(law.shape[1])]
    chance = torch.stack(chances).mean(0) if has_law else _shares(decided, action)
    return chance, [(each, 1 / samples) for each in decided]


def _makes_choices(head: Head) -> bool:
    if isinstance(head, CompositeHead):
        return all(map(_makes_choices, head.parts))
    return head.written_as is not None or head.expectation == "enumerated"


def _as_decided(head: Head, action: Tensor) -> Tensor:
    """A log's actions in the shape and of the kind of number that a head decides: vectors may happen to be whole."""
    if action[:1].numel() != math.prod(head.event) * len(action[:1]):
        raise InputError(f"the log's actions are {list(action.shape[1:])}, and the policy's {list(head.event)}")
    action = action.reshape(len(action), *head.event)
    if not _makes_choices(head):
        return action if action.is_floating_point() else action.to(torch.get_default_dtype())
    if action.is_floating_point() and bool((split := action != action.round()).any()):
        at = tuple(split.nonzero()[0].tolist())
        raise InputError(f"the log's action in row {at[0]} is {action[at].item():g}, and the policy makes choices")
    return action.long()


def _check_choices(head: Head, action: Tensor, counted: Tensor) -> None:
    """Refuses what is no choice, in rows that count. Args: action: `[M, *event]`. counted: bool `[M]`."""
    bad = head.impossible(action) & counted
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise InputError(f"the log's action in row {row} is {action[row].tolist()}, which is no choice of the policy")


def _called(policy: Any, observation: Tensor, mask: Tensor | None, action: Tensor) -> Tensor:
    td = TensorDict({"observation": observation}, batch_size=[len(observation)])
    if mask is not None:
        td["action_mask"] = mask
    try:
        decided: Tensor = policy(td)["action"]
    except KeyError as error:
        raise InputError(f"the policy reads {error}, which the log does not hold") from None
    if decided.shape != action.shape:
        raise InputError(f"the policy decides {list(decided.shape)}, and the log's actions are {list(action.shape)}")
    return decided


def _shares(decided: list[Tensor], action: Tensor) -> Tensor:
    """How often what the log did was decided, float64 `[M]`."""
    if action.is_floating_point():
        raise InputError("a policy without a density cannot be judged by a log of vectors, none of which it repeats")
    same = torch.stack([(d == action).flatten(1).all(-1) if action.ndim > 1 else d == action for d in decided])
    return same.double().mean(0)


def _fitted(
    log: TensorDict, decided: Decided, folds: int, seed: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A model's rewards of the log's actions and of the policy's, `[M]` each, from the other folds of the log."""
    action = log["action"]
    values = (
        1 + int(max(int(a.max()) for a in (action, *(a for a, _ in decided)))) if not action.is_floating_point() else 0
    )
    x = _features(log["observation"], action, values)
    drawn = [(_features(log["observation"], a, values), share) for a, share in decided]
    reward = log["reward"].double()
    fold = torch.randperm(len(action), generator=torch.Generator().manual_seed(seed)) % folds
    q, expected = torch.zeros(2, len(action), dtype=torch.float64)
    for k in range(folds):
        own, rest = fold == k, fold != k
        a, mean = x[rest], reward[rest].mean()
        gram = a.T @ a + RIDGE * len(a) * torch.eye(a.shape[1], dtype=torch.float64)
        coefficients = torch.linalg.solve(gram, a.T @ (reward[rest] - mean))
        q[own] = mean + x[own] @ coefficients
        expected[own] = mean + sum((share * (d @ coefficients))[own] for d, share in drawn)
    return q.numpy(), expected.numpy()


def _features(observation: Tensor, action: Tensor, values: int) -> Tensor:
    """State, action and their products, float64 `[M, *]`. Args: values: of a choice, one-hot; 0: of no choice."""
    s = observation.double()
    s = torch.cat([torch.ones(len(s), 1, dtype=torch.float64), (s - s.mean(0)) / s.std(0).clamp_min(1e-6)], -1)
    a = action.unsqueeze(-1) if action.ndim == 1 else action
    if values:
        a = torch.nn.functional.one_hot(a.clamp_min(0), values).flatten(1).double()
    else:
        a = torch.cat([torch.ones(len(a), 1, dtype=torch.float64), a.double(), a.double().square()], -1)
    return (s.unsqueeze(-1) * a.unsqueeze(-2)).flatten(1)
