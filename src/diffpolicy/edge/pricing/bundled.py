"""The trained policies that come with the package, and a trained network made into one."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from diffpolicy._suggest import meant
from diffpolicy.edge.names import PRETRAINED_NAMES
from diffpolicy.edge.pricing.policy import FleetPolicy
from diffpolicy.errors import InputError
from diffpolicy.networks.set_denoiser import SetDenoiser

GATED = {"live-gated": ("live", "live-one-pass"), "stale-gated": ("stale", "stale-one-pass")}
"""Which bundled parameters a gated policy has for low load and for overload, beside its own for long overload."""


def bundle(name: str, network: SetDenoiser, recipe: Any, seed: int, objective: str = "mean") -> FleetPolicy:
    """A trained network as a policy; beside two bundled ones, where the name is that of a gated policy.

    Args:
        name: of the recipe. network: trained. recipe: a `Recipe`. seed, objective: of the training.
    """
    if name in GATED:
        first, second = (load_bundled(other) for other in GATED[name])
        policy = FleetPolicy(**{**first.config(), "gated": True, "seed": seed})
        policy.denoiser.load_state_dict(first.denoiser.state_dict())
        for mine, trained in zip(policy.more, (second.denoiser, network), strict=True):
            mine.load_state_dict(trained.state_dict())
    else:
        policy = FleetPolicy(
            information=recipe.information,
            steps=recipe.steps,
            hidden=network.of_step.shape[-1],
            remember=recipe.remember,
            seed=seed,
        )
        policy.denoiser.load_state_dict(network.state_dict())
    fields: dict[str, Any] = {**vars(recipe), "seed": seed}
    aim = ""
    if objective != "mean":
        aim, fields["objective"] = f" --objective {objective}", objective
    policy.trained = {
        "command": f"diffpolicy train-fleet {name}{aim} --seed {seed} --out DIR",
        "through_chain": True,
        **fields,
    }
    return policy


def load_bundled(name: str) -> FleetPolicy:
    """A policy that comes with the package.

    Raises:
        InputError: no such policy.
    """
    if name not in (*PRETRAINED_NAMES, "price"):
        near = meant(name, PRETRAINED_NAMES)
        raise InputError(f"pretrained policy {name!r} is not bundled; there are {', '.join(PRETRAINED_NAMES)}{near}")
    source = "stale" if name == "private" else name
    with resources.as_file(resources.files("diffpolicy.edge") / "pretrained" / source) as folder:
        policy = FleetPolicy.load(Path(folder))
    assert isinstance(policy, FleetPolicy)
    return policy if source == name else policy.with_information("private")
