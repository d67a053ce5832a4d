"""Architectures of text-to-image models, from their published configs, so that they can be built without a download."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffpolicy import _validate as check
from diffpolicy._suggest import meant
from diffpolicy.errors import InputError

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """A component of a pipeline: the class that builds it and its config. Args: library: where the class stands."""

    library: str
    kind: str
    config: Config


@dataclass(frozen=True)
class Architecture:
    """A pipeline without its weights.

    Args:
        pipeline: name of diffusers' class. denoiser: the component that runs at each step.
        parts: the networks by the pipeline's names for them. scheduler: class and config.
        tokenizers: tokens of the longest text, by component. arguments: what else the pipeline takes.
        sizes: width and height that people ask for.
    """

    name: str
    pipeline: str
    denoiser: str
    parts: Mapping[str, Part]
    scheduler: Part
    tokenizers: Mapping[str, int]
    arguments: Config
    sizes: tuple[tuple[int, int], ...]


CLIP_L: Config = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
}
CLIP_G: Config = {
    **CLIP_L,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
T5_XXL: Config = {
    "vocab_size": 32128,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
    "relative_attention_num_buckets": 32,
    "tie_word_embeddings": False,
    "is_encoder_decoder": False,
    "use_cache": False,
}
VAE: Config = {
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
}
EULER: Config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
T5_PART = Part("transformers", "T5EncoderModel", T5_XXL)


def _clip(config: Config, kind: str = "CLIPTextModelWithProjection") -> Part:
    return Part("transformers", kind, config)


SD3_MEDIUM = Architecture(
    name="sd3-medium",
    pipeline="StableDiffusion3Pipeline",
    denoiser="transformer",
    parts={
        "transformer": Part(
            "diffusers",
            "SD3Transformer2DModel",
            {
                "sample_size": 128,
                "patch_size": 2,
                "in_channels": 16,
                "out_channels": 16,
                "num_layers": 24,
                "attention_head_dim": 64,
                "num_attention_heads": 24,
                "joint_attention_dim": 4096,
                "caption_projection_dim": 1536,
                "pooled_projection_dim": 2048,
                "pos_embed_max_size": 192,
            },
        ),
        "vae": Part(
            "diffusers",
            "AutoencoderKL",
            {
                **VAE,
                "sample_size": 1024,
                "latent_channels": 16,
                "use_quant_conv": False,
                "use_post_quant_conv": False,
                "shift_factor": 0.0609,
                "scaling_factor": 1.5305,
            },
        ),
        "text_encoder": _clip(CLIP_L),
        "text_encoder_2": _clip(CLIP_G),
    },
    scheduler=Part("diffusers", "FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    tokenizers={"tokenizer": 77, "tokenizer_2": 77},
    arguments={"text_encoder_3": None, "tokenizer_3": None},
    sizes=((512, 512), (768, 768), (1024, 1024)),
)
SDXL = Architecture(
    name="sdxl",
    pipeline="StableDiffusionXLPipeline",
    denoiser="unet",
    parts={
        "unet": Part(
            "diffusers",
            "UNet2DConditionModel",
            {
                "sample_size": 128,
                "in_channels": 4,
                "out_channels": 4,
                "block_out_channels": (320, 640, 1280),
                "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                "layers_per_block": 2,
                "transformer_layers_per_block": (1, 2, 10),
                "attention_head_dim": (5, 10, 20),
                "cross_attention_dim": 2048,
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 256,
                "projection_class_embeddings_input_dim": 2816,
                "use_linear_projection": True,
            },
        ),
        "vae": Part("diffusers", "AutoencoderKL", {**VAE, "sample_size": 1024, "scaling_factor": 0.13025}),
        "text_encoder": _clip(CLIP_L, "CLIPTextModel"),
        "text_encoder_2": _clip(CLIP_G),
    },
    scheduler=Part("diffusers", "EulerDiscreteScheduler", EULER),
    tokenizers={"tokenizer": 77, "tokenizer_2": 77},
    arguments={"add_watermarker": False},
    sizes=((512, 512), (1024, 1024)),
)
SD15 = Architecture(
    name="sd15",
    pipeline="StableDiffusionPipeline",
    denoiser="unet",
    parts={
        "unet": Part(
            "diffusers",
            "UNet2DConditionModel",
            {
                "sample_size": 64,
                "in_channels": 4,
                "out_channels": 4,
                "block_out_channels": (320, 640, 1280, 1280),
                "layers_per_block": 2,
                "attention_head_dim": 8,
                "cross_attention_dim": 768,
            },
        ),
        "vae": Part("diffusers", "AutoencoderKL", {**VAE, "sample_size": 512, "scaling_factor": 0.18215}),
        "text_encoder": _clip(CLIP_L, "CLIPTextModel"),
    },
    scheduler=Part("diffusers", "EulerDiscreteScheduler", EULER),
    tokenizers={"tokenizer": 77},
    arguments={"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False},
    sizes=((512, 512),),
)
_TINY_CLIP: Config = {
    **CLIP_L,
    "vocab_size": 514,  # of the tokenizer that is made in memory
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "projection_dim": 32,
}
TINY = Architecture(
    name="tiny",
    pipeline="StableDiffusion3Pipeline",
    denoiser="transformer",
    parts={
        "transformer": Part(
            "diffusers",
            "SD3Transformer2DModel",
            {
                "sample_size": 16,
                "patch_size": 2,
                "in_channels": 4,
                "out_channels": 4,
                "num_layers": 2,
                "attention_head_dim": 16,
                "num_attention_heads": 4,
                # both encoders' states, 32 + 32 wide, are padded to it; SD3 would crop them silently if it were less
                "joint_attention_dim": 64,
                "caption_projection_dim": 64,
                "pooled_projection_dim": 64,
                "pos_embed_max_size": 64,
            },
        ),
        "vae": Part(
            "diffusers",
            "AutoencoderKL",
            {
                **VAE,
                "block_out_channels": (4, 4, 8, 8),
                "layers_per_block": 1,
                "norm_num_groups": 4,
                "sample_size": 64,
                "use_quant_conv": False,
                "use_post_quant_conv": False,
                "shift_factor": 0.0609,
                "scaling_factor": 1.5305,
            },
        ),
        "text_encoder": _clip(_TINY_CLIP),
        "text_encoder_2": _clip(_TINY_CLIP),
    },
    scheduler=SD3_MEDIUM.scheduler,
    tokenizers=SD3_MEDIUM.tokenizers,
    arguments=SD3_MEDIUM.arguments,
    sizes=((64, 64), (96, 96)),
)
ARCHITECTURES = {a.name: a for a in (SD3_MEDIUM, SDXL, SD15, TINY)}


def architecture(name: str, *, t5: bool = False) -> Architecture:
    """An architecture by its name. Args: t5: with SD3's third text encoder, of 4.8 billion parameters.

    Raises:
        InputError: there is none of that name, or it has no variant with T5.
    """
    found = ARCHITECTURES.get(name) if isinstance(name, str) else None
    if found is None:
        near = meant(name, ARCHITECTURES)
        raise InputError(f"model must be one of {', '.join(ARCHITECTURES)}, got {check.show(name)}{near}")
    if not t5:
        return found
    if found is not SD3_MEDIUM:
        raise InputError(f"model {name} has no T5 text encoder; only sd3-medium has one")
    return Architecture(
        found.name,
        found.pipeline,
        found.denoiser,
        {**found.parts, "text_encoder_3": T5_PART},
        found.scheduler,
        {**found.tokenizers, "tokenizer_3": 256},
        {},
        found.sizes,
    )
