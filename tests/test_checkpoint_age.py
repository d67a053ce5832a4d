"""A run that is killed asks nobody: its checkpoint is never much older than a minute."""

import csv
from types import SimpleNamespace

import lightning as L
import pytest

from diffpolicy.environments import EnvProblem
from diffpolicy.experiments import build
from diffpolicy.problems import Clinic
from diffpolicy.training import callbacks, fit


def module():
    return build(EnvProblem(Clinic, steps=5), "sac", environments=2, changes={"start_after": 8})


class Hours(L.Callback):
    """Passes take this long, and so does writing; it notes after which episodes there was a new checkpoint.

    A callback's end of a pass comes before the checkpoint of it, so that of the last pass is never noted.
    """

    def __init__(self, monkeypatch, out, a_pass, writing=0.0):
        self.now, self.out, self.a_pass, self.written = 0.0, out, a_pass, []
        monkeypatch.setattr(callbacks, "time", SimpleNamespace(monotonic=lambda: self.now))
        write = callbacks._files.write

        def slowly(path, save):
            write(path, save)
            self.now += writing

        monkeypatch.setattr(callbacks, "_files", SimpleNamespace(**{**vars(callbacks._files), "write": slowly}))

    def on_train_epoch_end(self, trainer, pl_module):
        self.now += self.a_pass
        table = self.out / "training.csv"
        if table.is_file():
            last = int(list(csv.DictReader(table.open()))[-1]["episode"])
            self.written += [last] if last not in self.written else []


@pytest.mark.parametrize(
    ("a_pass", "writing", "episodes"),
    [
        (25.0, 0.0, [6, 12, 18]),  # the third pass after each is the first that ends a minute later
        (100.0, 0.0, [2, 4, 6, 8, 10, 12, 14, 16, 18]),
        (5.0, 0.0, []),
        (100.0, 20.0, [2, 10, 18]),  # a twentieth of the time at most
    ],
)
def test_a_checkpoint_is_written_once_the_last_is_a_minute_old(a_pass, writing, episodes, tmp_path, monkeypatch):
    clock = Hours(monkeypatch, tmp_path, a_pass, writing)
    fit(module(), episodes=20, out=tmp_path, callbacks=[clock])
    assert clock.written == episodes


def test_a_run_that_broke_off_goes_on_from_a_checkpoint_of_its_age(tmp_path, monkeypatch):
    whole = fit(module(), episodes=12, out=tmp_path / "whole")

    class Breaks(Hours):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if pl_module.episodes == 8:
                raise MemoryError

    with pytest.raises(MemoryError):
        fit(module(), episodes=12, out=tmp_path / "killed", callbacks=[Breaks(monkeypatch, tmp_path / "killed", 25.0)])
    last = tmp_path / "killed" / "checkpoint.ckpt"
    assert callbacks.checkpoint.read(last)["run"]["episodes"] == 6
    assert fit(module(), episodes=12, out=tmp_path / "killed", resume=last).history == whole.history


def test_an_old_checkpoint_is_not_replaced_amid_a_pass(tmp_path, monkeypatch):
    class Ends(Hours):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if pl_module.episodes == 4 and batch_idx == 1:
                self.now += 100.0
                trainer.should_stop = True

    with pytest.warns(UserWarning, match="amid a pass, after 4 whole episodes; .* so it wrote no checkpoint"):
        fit(module(), episodes=12, out=tmp_path, callbacks=[Ends(monkeypatch, tmp_path, 1.0)])
    assert not (tmp_path / "checkpoint.ckpt").exists()
