"""`EnvProblem`: a problem out of a function that makes environments."""

from __future__ import annotations

import functools
import hashlib
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

from tensordict import TensorDict, TensorDictBase
from torch import nn
from torchrl.envs import EnvBase

from diffpolicy import _validate as check
from diffpolicy._identity import describe
from diffpolicy.environments.arguments import kept_arguments, taken_by
from diffpolicy.environments.cost import Cost
from diffpolicy.environments.gym_lane import SHARED, as_lane, is_made, told_made
from diffpolicy.environments.lanes import Lanes
from diffpolicy.environments.problem import Problem, Split
from diffpolicy.environments.seeds import episode_seed
from diffpolicy.errors import InputError
from diffpolicy.policies.keys import Keys
from diffpolicy.policies.protocols import Decides

GIVEN = ("batch", "seed", "split", "view", "device")
"""What a factory may ask for, by these names."""


class EnvProblem(Problem):
    """Makes a problem from any TorchRL or Gymnasium environment.

    Args:
        make_env: makes an environment. It is given those of `batch`, `seed`, `split`, `view` and `device` that it
            names. One that names no `batch` makes single lanes, of batch `[]` or `[1]`, which are put side by side; one
            of Gymnasium is always such a lane. One that names no `seed` has its environment seeded by `set_seed`.
        steps: of an episode; None: until it is done, within 10,000.
        rules: untrained policies by name, the first the baseline: a function of a tensordict, a tensordict module, or
            a class or function that makes one of a `seed`, a class of nothing too. By default `random`.
        cost: its label, or a `Cost`; the cost of an episode is minus the sum of its rewards.
        name: of the problem; by default the factory's, of a `functools.partial` with its plain arguments.
        version: of the problem; where it is given, other source with the same version is the same problem.
        transitions: makes transitions of a rollout; by default `step_transitions`.
        methods: presets that `compare` trains by default.

    Raises:
        InputError: an argument is of another kind, or the factory asks for what it is not given.

    Example:
        >>> problem = EnvProblem(lambda batch, seed: Clinic(batch, seed), steps=50)
        >>> problem.make_env(8, seed=1).batch_size
        torch.Size([8])
    """

    def __init__(
        self,
        make_env: Callable[..., Any],
        *,
        steps: int | None = None,
        rules: Mapping[str, Decides | Callable[..., Decides]] | None = None,
        cost: str | Cost = "cost",
        name: str | None = None,
        version: str | None = None,
        transitions: Callable[[TensorDictBase], TensorDict] | None = None,
        methods: Sequence[str] = Problem.methods,
    ) -> None:
        if is_made(make_env):  # its state would be that of all lanes and seeds
            raise InputError(f"make_env is {told_made(make_env)}")
        if not callable(make_env):
            raise InputError(f"make_env must be a function that makes an environment, got {check.show(make_env)}")
        if steps is not None:
            steps = check.integer(steps, "steps", least=1)
        self.factory, self.asks = make_env, _asked(make_env)
        self.steps, self.version = steps, version
        self.cost = cost if isinstance(cost, Cost) else Cost(cost)
        self.name = name or _name(make_env) + _sizes(make_env)
        check.names(methods, "methods", "names")
        self.methods = tuple(methods)
        self._rules = dict(rules or {})
        for rule, policy in self._rules.items():
            if not callable(policy):
                raise InputError(
                    f"rule {rule!r} must be a function of a tensordict or a module, got {check.show(policy)}"
                )
            _check_rule(rule, policy)
        self._transitions = transitions

    def make_env(
        self, batch: int = 1, seed: int = 0, *, split: Split = "train", view: str | None = None, device: Any = None
    ) -> EnvBase:
        given = {"batch": batch, "split": split, "view": view, "device": device}
        chosen = {name: given[name] for name in self.asks if name in given}
        if "batch" in self.asks:
            env = self._make(seed, chosen)
            if tuple(env.batch_size) != (batch,):
                raise InputError(
                    f"problem {self.name}: make_env(batch={batch}) gave an environment of batch {list(env.batch_size)}"
                )
            return env
        lanes = [self._make(episode_seed(seed, k), chosen) for k in range(batch)]
        # what Gymnasium's stand in is a fresh one; a lane's own attribute is asked, as an environment put together of
        # others gives for theirs what it makes anew each time
        held = [vars(lane).get("_env", lane) for lane in lanes]
        if len({id(env) for env in held}) < batch:
            raise InputError(f"problem {self.name}: make_env {SHARED}")
        return Lanes(lanes)

    def _make(self, seed: int, chosen: Mapping[str, Any]) -> EnvBase:
        try:
            given = self.factory(**chosen, **({"seed": seed} if "seed" in self.asks else {}))
        except InputError:
            raise
        except Exception as error:  # of what a user's environment stumbles over there is no list
            if isinstance(error, TypeError) and str(error).startswith("Can't instantiate abstract class"):
                raise InputError(
                    f"problem {self.name}: the environment is not complete: {error}; write what is missing"
                ) from None
            said = (str(error).splitlines() or [""])[0]
            raise InputError(
                f"problem {self.name}: to make the environment failed: {type(error).__name__}: {said}"
            ) from error
        env = as_lane(given)
        if not isinstance(env, EnvBase):
            raise InputError(
                f"problem {self.name}: make_env must give an environment of TorchRL or Gymnasium, got {check.show(env)}"
            )
        if "seed" not in self.asks:
            self._seed(env, seed, "set_seed" if env is given else "reset(seed=...)")
        return env

    def _seed(self, env: EnvBase, seed: int, what: str) -> None:
        """Seeds an environment; Gymnasium's are reset by it. Args: env: of the factory. seed: of it. what: does it."""
        try:
            with warnings.catch_warnings():
                # TorchRL tells that `reset` takes no seed, and then fails for the lack of an old method
                warnings.filterwarnings("ignore", message="reset with seed kwarg")
                env.set_seed(seed)
        except InputError:
            raise
        except Exception as error:  # of what a user's environment stumbles over there is no list
            first = error.__context__ if isinstance(error, AttributeError) and error.__context__ else error
            said = (str(first).splitlines() or [""])[0]
            raise InputError(f"problem {self.name}: {what} failed: {type(first).__name__}: {said}") from error

    def transitions(self, rollout: TensorDictBase, keys: Keys) -> TensorDict:
        return super().transitions(rollout, keys) if self._transitions is None else self._transitions(rollout)

    def rules(self) -> Mapping[str, Callable[[int], Decides]]:
        if not self._rules:
            return super().rules()
        return {name: functools.partial(_seeded, policy) for name, policy in self._rules.items()}

    def description(self) -> dict[str, Any]:
        env = self.make_env()
        specs = {
            name: {
                str(key): str(spec[key].__class__.__name__) + str(list(spec[key].shape))
                for key in spec.keys(True, True)
            }
            for name, spec in (
                ("observation", env.observation_spec),
                ("action", env.full_action_spec),
                ("reward", env.full_reward_spec),
            )
        }
        own, _ = kept_arguments(self, taken_by(EnvProblem))  # of a subclass
        return {
            **self._named(),
            **({"arguments": own} if own else {}),
            "specs": specs,
            "reference": self.reference,
            "make_env": _form(self.factory),
            **({"source": _source(self.factory)} if self.version is None else {"version": self.version}),
        }


def _asked(make_env: Callable[..., Any]) -> tuple[str, ...]:
    """Which arguments a factory is given by name."""
    try:
        # TorchRL's environments have a metaclass, whose own signature says nothing
        whole = make_env if isinstance(make_env, functools.partial) else functools.partial(make_env)
        inner = whole.func
        if isinstance(inner, type):
            whole = functools.partial(inner.__init__, None, *whole.args, **whole.keywords)  # type: ignore[misc]
        taken = whole.keywords.keys()
        parameters = [p for p in inspect.signature(whole).parameters.values() if p.name not in taken]
    except (TypeError, ValueError):
        return ()
    for parameter in parameters:
        if (
            parameter.name not in GIVEN
            and parameter.default is parameter.empty
            and parameter.kind
            not in (
                parameter.VAR_POSITIONAL,
                parameter.VAR_KEYWORD,
            )
        ):
            raise InputError(
                f"make_env asks for {parameter.name!r}, but is given only {', '.join(GIVEN)}; give {parameter.name} a "
                "default, or wrap make_env in a function of these"
            )
    return tuple(p.name for p in parameters if p.name in GIVEN and p.kind is not p.POSITIONAL_ONLY)


def _name(make_env: Any) -> str:
    while isinstance(make_env, functools.partial):
        make_env = make_env.func
    name = getattr(make_env, "__name__", type(make_env).__name__)
    return "problem" if name == "<lambda>" else name


def _sizes(make_env: Any) -> str:
    """The words and numbers given to a `functools.partial`, as `(drones=3)`: two sizes in one table have two names."""
    if not isinstance(make_env, functools.partial):
        return ""
    given = [("", value) for value in make_env.args] + [(f"{name}=", v) for name, v in make_env.keywords.items()]
    told = [f"{name}{value}" for name, value in given if isinstance(value, (str, Real)) and len(str(value)) < 20]
    return f"({', '.join(told)})" if told else ""


def _check_rule(name: str, policy: Any) -> None:
    """Refuses an environment for a rule, and a class or function that asks for another thing than it is given."""
    if is_made(policy) or (isinstance(policy, type) and issubclass(policy, EnvBase)):
        raise InputError(f"rule {name!r} must be a function of a tensordict or a module, got an environment")
    try:
        signature = inspect.signature(policy)
    except (TypeError, ValueError):
        return
    try:
        if isinstance(policy, type):
            signature.bind(**({"seed": 0} if "seed" in signature.parameters else {}))
        elif list(signature.parameters) != ["seed"]:
            signature.bind(None)
    except TypeError:
        what = "a class" if isinstance(policy, type) else "a function"
        raise InputError(
            f"rule {name!r} must be a function of a tensordict, a module, or what makes one of a seed, got {what} "
            f"of {signature}"
        ) from None


def _seeded(policy: Decides | Callable[..., Decides], seed: int) -> Decides:
    """A rule as an experiment plays it: a class or a function of `seed` is called with it."""
    if isinstance(policy, nn.Module):
        return policy
    try:
        names = list(inspect.signature(policy).parameters)
    except (TypeError, ValueError):
        return policy
    makes: Any = policy
    is_class = isinstance(policy, type)
    if names == ["seed"] or (is_class and "seed" in names):
        made: Decides = makes(seed=seed)
    else:
        made = makes() if is_class else makes
    return made


def _form(make_env: Any) -> Any:
    """A factory by its content: what it is called, or its code and what it closes over; an object by its attributes."""
    try:
        return describe(make_env, "make_env")
    except InputError:
        kept = kept_arguments(make_env)[0]
        return {"class": _name(make_env), "arguments": kept} if kept else _name(make_env)


def _source(make_env: Any) -> str | None:
    """SHA-256 of the source of the module that defines a factory; None where it has none, as in an interpreter."""
    while isinstance(make_env, functools.partial):
        make_env = make_env.func
    try:
        return hashlib.sha256(inspect.getsource(inspect.getmodule(make_env) or make_env).encode()).hexdigest()
    except (OSError, TypeError):
        return None
