"""`TaughtModule`: a policy that learns from what another one plays, as a LightningModule."""

from __future__ import annotations

from typing import Any

from torch import nn

from diffpolicy.errors import InputError
from diffpolicy.policies.protocols import Decides, OwnsGenerator
from diffpolicy.training.off_policy import OffPolicyModule
from diffpolicy.training.trainable import described


class TaughtModule(OffPolicyModule):
    """`OffPolicyModule` whose stream a teacher plays: the policy that is trained never acts.

    Imitation of a teacher's decisions, and distillation of its law, learn from the rows of its own play (behaviour
    cloning, Pomerleau 1991, doi:10.1162/neco.1991.3.1.88); `ImitationModule` is for those who want rows of the
    learner's. The cost in the history is the teacher's.

    Args:
        policy: what is trained.
        stream: of the teacher, `RolloutStream(env, teacher, ...)`.
        others: of `OffPolicyModule`.

    Raises:
        InputError: of `OffPolicyModule`; in `fit`: there are several processes.

    Example:
        >>> from diffpolicy.policies.keys import Keys
        >>> env = Clinic(8)
        >>> policy, keys = FeedforwardPolicy.from_specs(env), Keys.of(env)
        >>> stream = RolloutStream(env, longest_queue, episode_steps=50)
        >>> rows = lambda rollout: step_transitions(rollout, keys)
        >>> loss, replay = LikelihoodLoss(policy), PackedReplay(400, agents=None)
        >>> module = TaughtModule(policy, loss, stream, replay, rows, learning_rates={"actor": 0.01})
        >>> fit(module, episodes=8).history[-1]["loss_actor"] < 1.1
        True
    """

    @property
    def teacher(self) -> Decides:
        """Who plays."""
        teacher: Decides = self.stream.policy
        return teacher

    def content(self) -> dict[str, Any]:
        return {**super().content(), "teacher": described(self.teacher)}

    def on_train_start(self) -> None:
        super().on_train_start()
        if isinstance(self.teacher, nn.Module):
            self.teacher.eval()

    def remember(self) -> None:
        """Nothing: what is remembered in the environments is the teacher's."""

    def setup(self, stage: str) -> None:
        if self.trainer.world_size > 1:
            raise InputError(f"a teacher plays in one process, got {self.trainer.world_size}")

    def state_of_process(self) -> dict[str, Any]:
        drawn = self.teacher.generator.get_state() if isinstance(self.teacher, OwnsGenerator) else None
        return {**super().state_of_process(), "teacher": drawn}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        drawn = checkpoint["diffpolicy"]["processes"][0]["teacher"]
        if drawn is not None and isinstance(self.teacher, OwnsGenerator):
            self.teacher.generator.set_state(drawn)
