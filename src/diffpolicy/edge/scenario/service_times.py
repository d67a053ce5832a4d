"""What a server's runs take, as tables: the `service` of a scenario's server, which `diffpolicy calibrate` writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy._suggest import meant
from diffpolicy._types import Floats
from diffpolicy.errors import InputError

ANY_MODEL = "*"
SCATTER = 10.0
"""The greatest scatter: of a normal law of the logarithm, beyond which means say nothing."""


@dataclass(frozen=True)
class ModelTimes:
    """What one request of one image takes with a model that is loaded: `text + steps x step(size) + decode(size)`.

    Args:
        text_s: text encoding, seconds.
        megapixels: sizes that were measured, increasing, millions of pixels, `[P]`.
        step_s: one denoising step at each size, seconds `[P]`.
        decode_s: decoding at each size, seconds `[P]`.

    Raises:
        InputError: a time is out of range, or sizes do not increase; on reading, also a key is unknown or missing.

    Example:
        >>> import numpy as np
        >>> times = ModelTimes(text_s=0.1, megapixels=(0.25, 1.0), step_s=(0.02, 0.08), decode_s=(0.1, 0.4))
        >>> times.seconds(megapixels=np.array([0.25, 1.0]), steps=np.array([20, 20])).round(2).tolist()
        [0.6, 2.1]
    """

    text_s: float
    megapixels: tuple[float, ...]
    step_s: tuple[float, ...]
    decode_s: tuple[float, ...]

    def __post_init__(self) -> None:
        columns = [check.sequence(getattr(self, name), name) for name in _SIZE]
        if len({len(column) for column in columns}) != 1:
            lengths = [len(column) for column in columns]
            raise InputError(f"megapixels, step_s and decode_s must be equally long, got {lengths} entries")
        rows = _sizes(zip(*columns, strict=True), lambda i, name: f"{name}[{i}]", "megapixels")
        object.__setattr__(self, "text_s", check.number(self.text_s, "text_s", least=0, most=_limits.MOST))
        for name, column in zip(_SIZE, zip(*rows, strict=True), strict=True):
            object.__setattr__(self, name, column)

    @classmethod
    def from_dict(cls, data: Any, key: str) -> ModelTimes:
        """An entry of `service.models`.

        Args:
            data: as it stands in the file. key: names it in messages.

        Raises:
            InputError: a key is unknown or missing or a value is out of range; the sentence names it.
        """
        data = check.mapping(data, key, allowed=("text_s", "sizes"), required=("text_s", "sizes"))
        sizes = [
            check.mapping(size, f"{key}.sizes[{i}]", allowed=_SIZE, required=_SIZE)
            for i, size in enumerate(check.sequence(data["sizes"], f"{key}.sizes"))
        ]
        rows = _sizes(
            [[size[name] for name in _SIZE] for size in sizes],
            lambda i, name: f"{key}.sizes[{i}].{name}",
            f"{key}.sizes",
        )
        with check.within(key):
            return cls(data["text_s"], *zip(*rows, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """The entry of a scenario file."""
        rows = zip(self.megapixels, self.step_s, self.decode_s, strict=True)
        return {"text_s": self.text_s, "sizes": [dict(zip(_SIZE, row, strict=True)) for row in rows]}

    def seconds(self, megapixels: Floats, steps: Floats) -> Floats:
        """Expected seconds of requests of one image.

        Args:
            megapixels: size of each, millions of pixels, `[K]`. steps: denoising steps, `[K]`.

        Returns:
            Seconds `[K]`; linear between the sizes that were measured, beyond them in proportion to the pixels.
        """
        return self.text_s + steps * self._at(megapixels, self.step_s) + self._at(megapixels, self.decode_s)

    def _at(self, megapixels: Floats, values: tuple[float, ...]) -> Floats:
        """Linear between the sizes that were measured; beyond them in proportion to the pixels."""
        inside = np.interp(megapixels, self.megapixels, values)
        nearest = np.clip(megapixels, self.megapixels[0], self.megapixels[-1])
        result: Floats = inside * (megapixels / nearest)
        return result


_SIZE = ("megapixels", "step_s", "decode_s")


def _sizes(rows: Iterable[Sequence[Any]], at: Callable[[int, str], str], of: str) -> list[tuple[float, ...]]:
    """Checked sizes, in the order of `_SIZE`. Args: at: names a value of a row. of: names all."""
    bounds = {"megapixels": {"above": 0.0}, "step_s": {"above": 0.0}, "decode_s": {"least": 0.0}}
    found = [
        tuple(
            check.number(x, at(i, name), **bounds[name], most=_limits.MOST) for name, x in zip(_SIZE, row, strict=True)
        )
        for i, row in enumerate(rows)
    ]
    if not found:
        raise InputError(f"{of} must hold at least one size, got []")
    increasing = [row[0] for row in found]
    if any(b <= a for a, b in zip(increasing, increasing[1:], strict=False)):
        what = "have increasing megapixels" if of != "megapixels" else "increase"
        raise InputError(f"{of} must {what}, got {increasing}")
    return found


@dataclass(frozen=True)
class ServerService:
    """How long a server's runs take.

    Args:
        models: times by the model's name; `*` stands for every other name.
        switch_s: seconds to load a model where another one is loaded.
        cold_s: seconds to load the first model after a start.
        batch: time of a batch of 1, 2, ... images over that many times the time of one, the first being 1.
        joins: whether like requests (same model, size and steps) that wait one behind the other share a batch, up to
            the length of `batch`.
        scatter: standard deviation of the logarithm of a run's time around its expectation.
        slots: requests that it works on at once where they are held; bound on arrival, it does one after the other.
        together: time of a run while all slots are taken, over that of one alone.

    Raises:
        InputError: a value is out of range or of another kind; on reading, also a key is unknown or missing; when asked
            for seconds, the server cannot run the model.

    Example:
        >>> times = ModelTimes(text_s=0.1, megapixels=(1.0,), step_s=(0.08,), decode_s=(0.4,))
        >>> service = ServerService({"sd3": times}, switch_s=6.0, batch=(1.0, 0.75))
        >>> service.times("sdxl") is None, service.batch_factor(torch.tensor([1, 2, 3]).numpy()).tolist()
        (True, [1.0, 1.5, 2.5])
    """

    models: Mapping[str, ModelTimes]
    switch_s: float = 0.0
    cold_s: float = 0.0
    batch: tuple[float, ...] = (1.0,)
    joins: bool = False
    scatter: float = 0.0
    slots: int = 1
    together: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.models, Mapping) or not self.models:
            raise InputError(f"models must be an object with at least one model, got {check.show(self.models)}")
        for name, times in self.models.items():
            if not isinstance(times, ModelTimes):
                raise InputError(f"models.{name} must be a ModelTimes, got {check.show(times)}")
        for name, most in (("switch_s", _limits.MOST), ("cold_s", _limits.MOST), ("scatter", SCATTER)):
            object.__setattr__(self, name, check.number(getattr(self, name), name, least=0, most=most))
        check.flag(self.joins, "joins")
        object.__setattr__(self, "slots", check.integer(self.slots, "slots", least=1, most=_limits.PROCESSES))
        object.__setattr__(self, "together", check.number(self.together, "together", least=1, most=_limits.MOST))
        batch = tuple(
            check.number(x, f"batch[{i}]", above=0, most=_limits.MOST)
            for i, x in enumerate(check.sequence(self.batch, "batch"))
        )
        if batch[:1] != (1.0,):
            raise InputError(f"batch must begin with 1, got {check.show(list(batch))}")
        whole = [j * x for j, x in enumerate(batch, 1)]
        if any(b < a for a, b in zip(whole, whole[1:], strict=False)):
            raise InputError(f"batch must not let a larger batch end sooner, got {check.show(list(batch))}")
        object.__setattr__(self, "batch", batch)

    @classmethod
    def from_dict(cls, data: Any, key: str) -> ServerService:
        """The `service` of a scenario's server.

        Args:
            data: as it stands in the file. key: names it in messages.

        Raises:
            InputError: a key is unknown or missing or a value is out of range; the sentence names it.
        """
        data = check.mapping(data, key, allowed=[f.name for f in fields(cls)], required=("models",))
        if isinstance(data["models"], Mapping):
            data["models"] = {
                name: ModelTimes.from_dict(x, f"{key}.models.{name}") for name, x in data["models"].items()
            }
        with check.within(key):
            return cls(**data)

    def to_dict(self) -> dict[str, Any]:
        """The `service` of a scenario file."""
        return {
            "models": {name: times.to_dict() for name, times in self.models.items()},
            "switch_s": self.switch_s,
            "cold_s": self.cold_s,
            "batch": list(self.batch),
            "joins": self.joins,
            "scatter": self.scatter,
            **({} if self.slots == 1 else {"slots": self.slots, "together": self.together}),
        }

    def times(self, model: str) -> ModelTimes | None:
        """The times of a model, or None where the server cannot run it.

        Args:
            model: its name.
        """
        return self.models.get(model, self.models.get(ANY_MODEL))

    def batch_factor(self, images: Floats) -> Floats:
        """Time of requests of several images over that of one; past the table's end in batches of its length.

        Args:
            images: of each request, `[K]`.

        Returns:
            Factors `[K]`.
        """
        table = np.arange(1, len(self.batch) + 1) * np.array(self.batch)
        longest = len(table)
        whole, rest = np.divmod(images.astype(np.int64), longest)
        result: Floats = whole * table[-1] + np.where(rest > 0, table[np.maximum(rest, 1) - 1], 0.0)
        return result

    def seconds(self, model: str, megapixels: Floats, steps: Floats, images: Floats) -> Floats:
        """Expected seconds of requests of a loaded model.

        Args:
            model: its name. megapixels: size of one image, `[K]`. steps: denoising steps, `[K]`.
            images: of each request, `[K]`.

        Returns:
            Seconds `[K]`.

        Raises:
            InputError: the server cannot run it.
        """
        times = self.times(model)
        if times is None:
            raise InputError(
                f"no server times are known for model {check.show(model)}; known are {', '.join(self.models)}"
                f"{meant(model, self.models)}"
            )
        return times.seconds(megapixels, steps) * self.batch_factor(images)
