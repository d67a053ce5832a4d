"""A trace of the first updates of each preset, so that a refactor can prove that learning did not change.

The recorded values are in `data/determinism_trace.json`. After a change that is meant to alter them (another order of
random draws, another initialisation, a correction of an objective) write them anew and say why in the commit:

    python tests/test_determinism_trace.py
"""

import json
import tempfile
from pathlib import Path

import lightning as L
import pytest
import torch

from diffpolicy.edge.names import METHOD_NAMES
from diffpolicy.edge.training import build
from diffpolicy.training.fit import fit
from toys import quick_method, small

FILE = Path(__file__).parent / "data" / "determinism_trace.json"
UPDATES = (1, 2, 4, 8)
SCENARIO = small(3, 5, 12)


class Trace(L.Callback):
    """After some of the updates, by group of parameters: the sum of their magnitudes, and how far they have moved."""

    def __init__(self):
        self.updates, self.start, self.sums = 0, {}, {}

    def on_train_start(self, trainer, pl_module):
        self.start = groups(pl_module)
        self.record(pl_module)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if len(pl_module.replay) > pl_module.start_after:
            self.updates += 1
            if self.updates in UPDATES:
                self.record(pl_module)

    def record(self, module):
        self.sums[str(self.updates)] = {
            name: {
                "sum": rounded(sum(p.abs().sum() for p in now)),
                # some go up and some go down, so that this tells directions apart
                "moved": rounded(sum(_weighted(a - b) for a, b in zip(now, self.start[name], strict=True))),
            }
            for name, now in groups(module).items()
        }


def groups(module):
    return {
        name: [p.detach().double().clone() for p in group]
        for name, group in module.objective.parameter_groups().items()
    }


def _weighted(x):
    return (x.flatten() * torch.arange(x.numel()).cos()).sum()


def rounded(x):
    return float(f"{float(x):.6g}")


def trace(name):
    """The sums after some updates, and the history of the episodes: delays, losses and entropies."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        module = build(quick_method(name, Path(folder)), SCENARIO, seed=1)
    watch = Trace()
    fitted = fit(module, episodes=2, callbacks=[watch])
    history = [{key: rounded(value) for key, value in row.items()} for row in fitted.history]
    return {"parameters": watch.sums, "history": history}


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_learning_is_what_was_recorded(name):
    expected = json.loads(FILE.read_text())[name]
    now = trace(name)
    assert now["parameters"].keys() == expected["parameters"].keys() == {"0", *map(str, UPDATES)}
    for updates, groups_then in expected["parameters"].items():
        for group, then in groups_then.items():
            value = now["parameters"][updates][group]
            where = f"{group} after {updates} updates"
            assert value["sum"] == pytest.approx(then["sum"], rel=1e-5), where
            assert value["moved"] == pytest.approx(then["moved"], rel=1e-2, abs=1e-5), where
    assert len(now["history"]) == len(expected["history"])
    for row, then in zip(now["history"], expected["history"], strict=True):
        assert row == pytest.approx(then, rel=1e-4)


def test_every_preset_is_recorded():
    assert json.loads(FILE.read_text()).keys() == set(METHOD_NAMES)


if __name__ == "__main__":
    FILE.write_text(json.dumps({name: trace(name) for name in METHOD_NAMES}, indent=1) + "\n")
