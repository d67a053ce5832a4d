"""Pipelines of an architecture's full size with random weights, and their parameters without any weights."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import nn

from diffpolicy.edge.hardware.models.architectures import SD3_MEDIUM, Architecture, Part, architecture
from diffpolicy.edge.hardware.models.byte_tokenizer import byte_tokenizer, special_ids
from diffpolicy.edge.hardware.optional import need

STD = 0.02
"""Of the random weights: not zero, since the power that a GPU takes depends on the numbers."""


def empty_part(part: Part) -> nn.Module:
    """A component whose parameters take no memory; call it under `torch.device("meta")` to have no buffers either."""
    library = need(part.library)
    kind = getattr(library, part.kind)
    if part.library == "diffusers":
        network: nn.Module = kind(**part.config)
        return network
    config = dict(part.config)
    if part.kind.startswith("CLIP"):
        config |= special_ids()
        network = kind(library.CLIPTextConfig(**config))
    else:
        network = kind(library.T5Config(**config))
    return network


def random_part(part: Part, device: torch.device, dtype: torch.dtype, generator: torch.Generator) -> nn.Module:
    """A component with random weights, drawn on the device in the type they keep, so that memory is taken once."""
    # buffers are made for real: position embeddings and ids among them cannot be drawn
    with need("accelerate").init_empty_weights(include_buffers=False):
        network = empty_part(part)
    drawn: dict[int, nn.Parameter] = {}  # a tied parameter is one
    for module in network.modules():
        for name, empty in module._parameters.items():
            if empty is None:
                continue
            if id(empty) not in drawn:
                values = torch.empty(empty.shape, device=device, dtype=dtype).normal_(0.0, STD, generator=generator)
                drawn[id(empty)] = nn.Parameter(values, requires_grad=False)
            module._parameters[name] = drawn[id(empty)]
    return network.to(device, dtype).eval()


def random_pipeline(
    architecture: Architecture, device: torch.device, dtype: torch.dtype, *, seed: int = 0, place: bool = True
) -> Any:
    """A diffusers pipeline with random weights. Needs neither network nor files.

    Args:
        seed: of the weights. place: put the networks on the device; else they stay in host memory.
    """
    home = device if place else torch.device("cpu")
    generator = torch.Generator(home).manual_seed(seed)
    networks = {name: random_part(part, home, dtype, generator) for name, part in architecture.parts.items()}
    tokenizers = {name: byte_tokenizer(length) for name, length in architecture.tokenizers.items()}
    diffusers = need("diffusers")
    scheduler = getattr(diffusers, architecture.scheduler.kind)(**architecture.scheduler.config)
    kind = getattr(diffusers, architecture.pipeline)
    return kind(**networks, **tokenizers, scheduler=scheduler, **architecture.arguments)


def count_parameters(architecture: Architecture) -> dict[str, int]:
    """Parameters by component, without weights."""
    with torch.device("meta"):
        return {
            name: sum(p.numel() for p in empty_part(part).parameters()) for name, part in architecture.parts.items()
        }


def sd3_variants() -> tuple[int, int]:
    """Parameters of SD3-medium without T5 and with it."""
    without, full = (sum(count_parameters(architecture(SD3_MEDIUM.name, t5=t5)).values()) for t5 in (False, True))
    return without, full


def step_flops(architecture: Architecture, width: int, height: int, batch: int = 1) -> float:
    """Floating-point operations of one denoising step with classifier-free guidance, which doubles the batch.

    Multiplications and additions of matrix products, convolutions and attention are counted, on tensors without
    memory; SD3 sees 77 tokens of CLIP and 256 of T5, which are zeros where there is no T5.
    """
    from torch.utils.flop_counter import FlopCounterMode

    part = architecture.parts[architecture.denoiser]
    network, images = _empty_denoiser(part), 2 * batch
    # every VAE here shrinks each side by two to the power of its levels less one
    factor = 2 ** (len(architecture.parts["vae"].config["block_out_channels"]) - 1)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        latents = torch.empty(images, part.config["in_channels"], height // factor, width // factor)
        timestep = torch.empty(images)
        if architecture.denoiser == "transformer":
            text = torch.empty(images, 77 + 256, part.config["joint_attention_dim"])
            pooled = torch.empty(images, part.config["pooled_projection_dim"])
            network(latents, encoder_hidden_states=text, pooled_projections=pooled, timestep=timestep)
        else:
            text = torch.empty(images, 77, part.config["cross_attention_dim"])
            added = {"text_embeds": torch.empty(images, 1280), "time_ids": torch.empty(images, 6)}
            network(latents, timestep, text, added_cond_kwargs=added if "addition_embed_type" in part.config else None)
    return float(counter.get_total_flops())


def _empty_denoiser(part: Part) -> nn.Module:
    return _cached(part.kind, tuple(sorted(part.config.items())))


@lru_cache(maxsize=4)
def _cached(kind: str, config: tuple[tuple[str, Any], ...]) -> nn.Module:
    with torch.device("meta"):
        return empty_part(Part("diffusers", kind, dict(config)))
