"""A training that a callback ends amid a pass, as Lightning's `Timer` does: what it leaves, and how it goes on."""

import lightning as L
import pytest
from torch import nn

from diffpolicy.environments import EnvProblem
from diffpolicy.experiments import train
from diffpolicy.experiments.training import build
from diffpolicy.problems import Clinic
from diffpolicy.training import fit


class Ends(L.Callback):
    """Ends the run with a step of a pass, both counted from 0."""

    def __init__(self, number, step):
        self.when = number, step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.when:
            trainer.should_stop = True


class Unsaved(Clinic):
    """Has no state that could be saved."""

    get_extra_state, set_extra_state = nn.Module.get_extra_state, nn.Module.set_extra_state


@pytest.mark.parametrize("saves", [True, False])
def test_a_run_that_is_ended_amid_a_pass_leaves_the_checkpoint_of_the_pass_before(saves, tmp_path):
    """The middle of a pass cannot be gone on from: it was refused after the work, or what resumed was a pass short."""
    problem = EnvProblem(Clinic if saves else Unsaved, steps=20)

    def part(**given):
        return train(problem, "sac", episodes=8, environments=2, changes={"start_after": 20}, **given)

    whole = part()
    stop = Ends(1, 3)
    with pytest.warns(UserWarning, match="amid a pass, after 2 whole episodes; .* so it wrote no checkpoint"):
        assert part(out=tmp_path / "early", callbacks=[stop]).episodes == 2
    assert sorted(path.name for path in (tmp_path / "early").iterdir()) == [
        "policy.json",
        "policy.safetensors",
        "training.csv",
    ]
    module, out = build(problem, "sac", environments=2, changes={"start_after": 20}), tmp_path / "late"
    stop = Ends(3, 3)
    with pytest.warns(UserWarning, match="after 6 whole episodes; .* so its last checkpoint is of 4 episodes"):
        assert fit(module, episodes=8, out=out, checkpoint_every=4, callbacks=[stop]).episodes == 6
    module = build(problem, "sac", environments=2, changes={"start_after": 20})
    resumed = fit(module, episodes=8, out=out, resume=out / "checkpoint.ckpt")
    assert resumed.history == whole.history
