"""Decisions taken one after the other, each in sight of the queues that the earlier ones left."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Score = Callable[[int, Tensor], Tensor]


def decide_in_order(score: Score, amount: Tensor, queue: Tensor, amount_on: Tensor | None = None) -> Tensor:
    """Decides K items one after the other: `choice_k = argmin score(k, queue)`, then `queue[choice_k] += amount_k`.

    Args:
        score: `score(k, queue)` with the live queues `[*, S]` gives item k's cost of each choice, `[*, S]`; the
            smallest wins, ties go to the lowest index.
        amount: what each item adds to the queue of its choice, `[*, K]`.
        queue: before the first item, `[*, S]`; not changed.
        amount_on: what an item adds to each choice's queue where that depends on the choice, `[*, K, S]`.

    Returns:
        Choices, int64 `[*, K]`.

    Example:
        >>> decide_in_order(lambda k, queue: queue, torch.tensor([3.0, 1.0, 1.0]), torch.zeros(2))
        tensor([0, 1, 1])
    """
    queue = queue.clone()
    choices = torch.empty(amount.shape, dtype=torch.int64, device=amount.device)
    for k, one in enumerate(amount.unsqueeze(-1).unbind(-2)):
        choice = score(k, queue).argmin(-1, keepdim=True)
        choices[..., k] = choice.squeeze(-1)
        queue.scatter_add_(-1, choice, one if amount_on is None else amount_on[..., k, :].gather(-1, choice))
    return choices
