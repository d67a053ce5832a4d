"""Averaged weights: what acts is a slowly following mean of what learns."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from diffpolicy import _validate as check
from diffpolicy.errors import InputError


def averaged(module: nn.Module, decay: float) -> AveragedModel:
    """A copy of a module whose parameters follow its own, p <- decay p + (1 - decay) p', at each `update_parameters`.

    From Polyak and Juditsky (1992, doi:10.1137/0330046), by an exponential weight; chains are sampled with such weights
    since DDPM (Ho et al. 2020, arXiv 2006.11239). The copy shares the generator and the normaliser of a policy, so that
    no draw repeats and its statistics are the same.

    Args:
        module: that learns. decay: from 0, the last parameters alone, to below 1.

    Returns:
        The average; its `module` is what acts.

    Raises:
        InputError: the decay is out of range.

    Example:
        >>> line = torch.nn.Linear(1, 1)
        >>> mean = averaged(line, decay=0.9)
        >>> mean.update_parameters(line)  # the first time it takes them as they are
        >>> torch.equal(mean.module.weight, line.weight)
        True
    """
    if check.number(decay, "ema", least=0) >= 1:
        raise InputError(f"ema must be below 1, got {decay:g}")
    result = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(decay))
    shared: Any = result.module
    for name in ("generator", "normalizer"):
        if name in {**vars(module), **module._modules}:
            setattr(shared, name, getattr(module, name))
    return result
