"""What a policy makes of fixed numbers: two that a file tells alike and that decide otherwise differ here."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from diffpolicy import _validate as check
from diffpolicy._global_draws import global_draws
from diffpolicy.diffusion.processes import Process
from diffpolicy.errors import InputError
from diffpolicy.networks.per_agent import PerAgent, Prepares
from diffpolicy.policies.class_names import is_ours
from diffpolicy.policies.draws import Draws
from diffpolicy.policies.heads import CompositeHead, Head, JointHead

SCALES = (0.1, 1.0, 10.0, 1000.0)
"""Of the rows of observations that a policy is tried on: what clips or saturates does so at numbers of its own."""
TOLERANCE = {torch.float64: 1e-3, torch.float32: 1e-3}
"""How far two may lie apart by another processor's rounding; coarser types by 3 %."""
Generator = torch.Generator | np.random.Generator | np.random.RandomState | random.Random
Sketch = list[list[float]]
"""Of an output's rows: its mean size, and its mean with fixed weights, in which a change of any number shows."""


class Tried(Protocol):
    """What is tried of a `Policy`."""

    agents: int | None
    observation_dim: int
    choices: int
    mask_key: Any
    head: Head
    generator: Draws
    condition: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor, Tensor | None], Tensor]
    choose: Callable[[Tensor], Tensor]
    choose_at: Callable[[Tensor, Tensor | None], Tensor]
    law: Callable[[Tensor, Tensor | None, Tensor | None, Tensor | None], Tensor]

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def draws(self) -> int: ...

    @property
    def remembers(self) -> bool: ...


@runtime_checkable
class Denoises(Protocol):
    """What is tried of a `DiffusionPolicy` beside that."""

    prior: Any
    process: Process
    sampling: Any
    denoiser: nn.Module
    condition: Callable[[Tensor], Tensor]
    denoise: Callable[[Tensor, int, Any], Tensor]


def is_all_ours(policy: Tried) -> bool:
    """Whether every part that a file names by its class comes with this package, so that the file tells all of it."""
    parts: list[object] = [policy, policy.head]
    if isinstance(policy.head, JointHead):
        parts.append(policy.head.each)
    if isinstance(policy.head, CompositeHead):
        parts += policy.head.parts
    if isinstance(policy, Denoises):
        denoiser = policy.denoiser
        parts += [policy.prior, policy.process, policy.sampling]
        parts += list(denoiser.each) if isinstance(denoiser, PerAgent) else [denoiser]
    return all(is_ours(type(part)) for part in parts)


def _stages(policy: Any, observation: Tensor, x: Tensor) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """What a policy computes of rows, from the observation to the action, by the name of what a user may override.

    Args:
        policy: as `Tried`, of any family. observation: `[.., M, F]`. x: stands for the networks' output, `[.., M, A]`.
    """
    lead = x.shape[:-1]
    mask = None if policy.mask_key is None else torch.ones(x.shape, dtype=torch.bool)
    noise = waves(policy.draws, *x.shape, phase=2.0).to(x) if policy.draws else None
    latent = x if policy.remembers else None

    def law() -> Tensor:
        return policy.head.law(policy.decode(x, mask), mask)  # type: ignore[no-any-return]

    def choice() -> Tensor:
        takes = policy.head.draw_input
        return policy.choose_at(law(), None if takes is None else torch.full((*lead, *takes[1]), 0.37).to(x))  # type: ignore[no-any-return]

    yield "embed", lambda: policy.condition(observation)
    if isinstance(policy, Denoises):
        denoiser = policy.denoiser

        def denoised(t: int) -> Tensor:
            condition = policy.condition(observation)
            return policy.denoise(x, t, denoiser.prepare(condition) if isinstance(denoiser, Prepares) else condition)

        yield "denoise", lambda: torch.cat([denoised(1), denoised(policy.process.steps)], -1)
    yield "decode", law
    yield "choose_at", lambda: choice().reshape(*lead, -1)
    yield "choose", lambda: policy.choose(law()).reshape(*lead, -1)
    yield "law", lambda: policy.law(observation, latent, mask, noise)


def waves(*shape: int, phase: float = 0.0) -> Tensor:
    """Fixed numbers in [-1, 1] of which no two are alike. Args: shape: of them. phase: makes others."""
    return torch.cos(torch.arange(torch.Size(shape).numel()) * 1.7 + phase).view(shape)


def evidence(policy: Tried) -> dict[str, Sketch]:
    """Sketches of a policy's stages on fixed rows, by `pattern.stage`, without those that fail or draw by themselves.

    It is tried as a copy on the CPU in `eval` mode, on waves of several sizes and, since some take counts or one-hot
    values, on zeros and ones. Its generator, those that its parts hold and the global ones, from which a user's part
    may draw, begin at the same place each time; what draws from one that stands elsewhere is not told.
    """
    lead = [*([] if policy.agents is None else [policy.agents]), len(SCALES)]
    wide = waves(*lead, policy.observation_dim) * torch.tensor(SCALES).unsqueeze(-1)
    bits = (waves(*lead, policy.observation_dim, phase=1.0) > 0).float()
    found: dict[str, Sketch] = {}
    try:
        copied: dict[int, Any] = {}
        twin: Any = copy.deepcopy(policy, copied)
        own = [part for part in copied.values() if isinstance(part, Generator)]
        twin.cpu().eval()
    except Exception:  # a user's part may be of any kind
        return found
    for pattern, observation in (("waves", wide), ("bits", bits)):
        for name, run in _stages(twin, observation.to(twin.dtype), 3 * waves(*lead, policy.choices).to(twin.dtype)):
            sketch = _twice(twin, own, run)
            if sketch is not None:
                found[f"{pattern}.{name}"] = sketch
    return found


def _begin(generator: Generator) -> None:
    """Puts a generator at a place that is the same for all of its kind."""
    if isinstance(generator, torch.Generator):
        generator.manual_seed(0)
    elif isinstance(generator, np.random.Generator):
        kind: Any = type(generator.bit_generator)
        generator.bit_generator.state = kind(0).state
    else:
        generator.seed(0)


def _twice(policy: Any, own: Sequence[Generator], run: Callable[[], Tensor]) -> Sketch | None:
    """What a stage makes; None where it fails, is not finite, or is not the same twice. Args: own: that it may use."""
    try:
        made = []
        for _ in range(2):
            policy.generator = Draws(0)
            for generator in own:
                _begin(generator)
            with torch.no_grad(), global_draws(0):
                made.append(run().double())
    except Exception:  # a user's part may raise anything of numbers that it never sees
        return None
    first, second = made
    same = first.shape == second.shape and torch.equal(first, second) and bool(first.isfinite().all())
    return _sketch(first) if same and first.numel() and first.ndim > 1 else None


def _sketch(output: Tensor) -> Sketch:
    """Of each row over all agents and numbers. Args: output: `[.., M, W]`."""
    rows = output.movedim(-2, 0).flatten(1)
    weighed = rows * waves(rows.shape[1], phase=0.5).double()
    return torch.stack([rows.abs().mean(1), weighed.mean(1)], 1).tolist()


def check_evidence(policy: Any, before: object) -> None:
    """Refuses a policy that makes other numbers than the one that was saved.

    Args:
        policy: that was made, with the file's tensors. before: what the file holds, None of one that needs none.

    Raises:
        InputError: names the part that differs; or what the file holds is no evidence.
    """
    if before is None:
        return
    stage = _first_difference(before, evidence(policy), policy.dtype)
    if stage is not None:
        raise InputError(
            f"{_blamed(policy, stage)} makes other numbers of the same parameters than when the policy was saved: what "
            "describes it must tell all arguments that make it, or it must be passed with the same ones, load(path, "
            f"{'denoiser' if stage == 'denoise' else 'name'}=...)"
        )


def _first_difference(before: object, now: Mapping[str, Sketch], dtype: torch.dtype) -> str | None:
    """The first stage in which two policies differ, None where they do not. Args: dtype: of the parameters."""
    relative = TOLERANCE.get(dtype, 3e-2)
    allowed = before.keys() if isinstance(before, Mapping) else ()
    for name, rows in check.mapping(before, "evidence", allowed=allowed).items():
        then = [
            [check.number(x, f"evidence.{name}") for x in check.sequence(row, f"evidence.{name}", length=2)]
            for row in check.sequence(rows, f"evidence.{name}")
        ]
        mine = now.get(name)
        if mine is None or len(mine) != len(then):
            return name.partition(".")[2]
        for (size, mean), (my_size, my_mean) in zip(then, mine, strict=True):
            most = relative * max(abs(size), abs(my_size)) + 1e-6
            if abs(size - my_size) > most or abs(mean - my_mean) > most:
                return name.partition(".")[2]
    return None


def _blamed(policy: Any, stage: str) -> str:
    """What of a policy makes other numbers, for a message. Args: stage: of `first_difference`."""
    own = type(policy).__name__
    if isinstance(policy, Denoises) and stage in ("denoise", "law"):
        denoiser = policy.denoiser.each[0] if isinstance(policy.denoiser, PerAgent) else policy.denoiser
        parts = {
            "denoise": f"the denoiser {type(denoiser).__name__}" + ("" if is_ours(type(policy)) else f" of a {own}"),
            "law": f"the chain of a {own} with {type(policy.sampling).__name__} and {type(policy.process).__name__}",
        }
        return parts[stage]
    return f"{stage} of a {own} with {type(policy.head).__name__}"
