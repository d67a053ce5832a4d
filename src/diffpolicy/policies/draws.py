"""Where a policy's random numbers come from: generators that can be copied and sent away, and acting without chance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torchrl.envs.utils import ExplorationType, exploration_type

from diffpolicy import _validate as check
from diffpolicy._seeds import derived
from diffpolicy.errors import InputError

Given = ParamSpec("Given")
Drawn = TypeVar("Drawn")


class Draws(torch.Generator):
    """A generator on the CPU that pickles and copies with its state, also to a process that is spawned.

    The state of torch's own generator does not arrive there. The same seed gives the same draws as
    `torch.Generator().manual_seed(seed)`; further streams of the seed are for copies that must not repeat each other,
    such as the workers of a collector.

    Args:
        seed: from 0 to 2**64 - 1.
        stream: of the seed, at least 0.

    Raises:
        InputError: a number is out of range.

    Example:
        >>> import copy
        >>> draws = Draws(seed=3)
        >>> torch.equal(torch.rand(2, generator=copy.deepcopy(draws)), torch.rand(2, generator=draws))
        True
    """

    def __new__(cls, seed: int = 0, stream: int = 0) -> Draws:
        return super().__new__(cls, "cpu")  # type: ignore[call-arg]

    def __init__(self, seed: int = 0, stream: int = 0) -> None:
        super().__init__()
        self.reseed(seed, stream)

    def reseed(self, seed: int, stream: int = 0) -> None:
        """Begins a stream of a seed. Args: seed, stream: of the class."""
        seed, stream = check.integer(seed, "seed", least=0), check.integer(stream, "stream", least=0)
        if seed >= 2**64:
            raise InputError(f"seed must be below 2**64, got {seed}")
        self.manual_seed(seed if stream == 0 else derived(seed, stream, bits=64))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.get_state().numpy().tobytes())


def _restored(kind: type[Draws], state: bytes) -> Draws:
    draws = kind()
    draws.set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))
    return draws


def generator_on(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """The generator itself on the CPU; elsewhere one that begins where a number of it says.

    So a pass on a GPU draws there and nothing is copied, and the state of the one on the CPU still tells all that will
    be drawn.

    Args:
        generator: on the CPU. device: on which numbers are wanted.
    """
    if device.type in ("cpu", "meta"):
        return generator
    seed = int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))
    return torch.Generator(device).manual_seed(seed)


@torch.compiler.disable
def outside_graphs(draw: Callable[Given, Drawn], *given: Given.args, **named: Given.kwargs) -> Drawn:
    """What a function that draws gives; a compiled graph, which holds no generator, is left for it and taken up again.

    Args:
        draw: of what is given.
    """
    return draw(*given, **named)


def without_chance() -> bool:
    """Whether TorchRL's `set_exploration_type` asks for actions without chance, by any type but `RANDOM`.

    Only acting asks: losses run under `DETERMINISTIC` whatever they draw.
    """
    return exploration_type() not in (None, ExplorationType.RANDOM)
