"""Four fires and one plane: the problem of the tutorials. `diffpolicy train d2sac --problem mine:problem`."""

import torch
from tensordict import TensorDict
from torchrl.data import Binary, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from diffpolicy.environments import EnvProblem

SPREAD = torch.tensor([0.1, 0.2, 0.4, 0.6])  # how much each fire grows in a minute, hectares
DROP = 2.5  # what a load of water puts out, hectares
MINUTES = 60


class Fires(EnvBase):
    """Where does the plane drop its water? It sees how large the fires are."""

    def __init__(self, batch, seed=0):
        super().__init__(batch_size=[batch])
        self.generator = torch.Generator().manual_seed(seed)
        self.observation_spec = Composite(
            observation=Unbounded((batch, 4)),
            action_mask=Binary(4, (batch, 4), dtype=torch.bool),
            shape=(batch,),
        )
        self.action_spec = Categorical(4, (batch,))
        self.reward_spec = Unbounded((batch, 1))
        ends = {
            name: Binary(1, (batch, 1), dtype=torch.bool)
            for name in ("done", "terminated", "truncated")
        }
        self.done_spec = Composite(ends, shape=(batch,))

    def _reset(self, tensordict=None, **options):
        size = 1 + 5 * torch.rand(*self.batch_size, 4, generator=self.generator)
        minute = torch.zeros(*self.batch_size, 1)
        again = None if tensordict is None else tensordict.get("_reset", None)
        if again is not None:  # lanes that have not ended go on as they are
            size, minute = torch.where(again, size, self.size), torch.where(again, minute, self.minute)
        self.size, self.minute = size, minute
        return self.shown()

    def _step(self, tensordict):
        water = DROP * torch.nn.functional.one_hot(tensordict["action"], 4)
        self.size = (self.size - water).clamp_min(0)
        wind = 2 * torch.rand(*self.batch_size, 4, generator=self.generator)
        self.size = self.size + (self.size > 0) * SPREAD * wind
        self.minute = self.minute + 1
        return self.shown().set("reward", -self.size.sum(-1, keepdim=True))

    def shown(self):
        burns = self.size > 0
        out = ~burns.any(-1, keepdim=True)
        late = self.minute >= MINUTES
        return TensorDict(
            observation=self.size.clone(),
            action_mask=burns | out,  # where nothing burns any more, anything goes
            terminated=out,
            truncated=late,
            done=out | late,
            batch_size=self.batch_size,
        )

    def _set_seed(self, seed):
        self.generator.manual_seed(seed or 0)


def largest(td):
    """Water on the largest fire."""
    return td.set("action", td["observation"].argmax(-1))


def fastest(td):
    """Water on the fire that grows fastest, of those that burn."""
    return td.set("action", (td["action_mask"] * SPREAD).argmax(-1))


problem = EnvProblem(
    Fires,
    steps=MINUTES,
    rules={"largest": largest, "fastest": fastest},
    cost="burning, ha x min",
    name="fires",
)
