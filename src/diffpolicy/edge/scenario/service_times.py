"""What a server's runs take, as tables: the `service` of a scenario's server, which `diffpolicy calibrate` writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from diffpolicy import _validate as check
from diffpolicy._types import Floats
from diffpolicy.errors import InputError

ANY_MODEL = "*"


@dataclass(frozen=True)
class ModelTimes:
    """What one request of one image takes with a model that is loaded: `text + steps x step(size) + decode(size)`.

    Args:
        text_s: text encoding, seconds.
        megapixels: sizes that were measured, increasing, millions of pixels, `[P]`.
        step_s: one denoising step at each size, seconds `[P]`.
        decode_s: decoding at each size, seconds `[P]`.

    Raises:
        InputError: on reading, a key is unknown or missing, a time is out of range, or sizes do not increase.

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

    @classmethod
    def from_dict(cls, data: Any, key: str) -> ModelTimes:
        """An entry of `service.models`.

        Args:
            data: as it stands in the file. key: names it in messages.

        Raises:
            InputError: a key is unknown or missing or a value is out of range; the sentence names it.
        """
        data = check.mapping(data, key, allowed=("text_s", "sizes"), required=("text_s", "sizes"))
        sizes = check.sequence(data["sizes"], f"{key}.sizes")
        if not sizes:
            raise InputError(f"{key}.sizes must hold at least one size, got []")
        rows = []
        for i, size in enumerate(sizes):
            at = f"{key}.sizes[{i}]"
            size = check.mapping(size, at, allowed=_SIZE, required=_SIZE)
            rows.append(
                (
                    check.number(size["megapixels"], f"{at}.megapixels", above=0),
                    check.number(size["step_s"], f"{at}.step_s", above=0),
                    check.number(size["decode_s"], f"{at}.decode_s", least=0),
                )
            )
        columns = tuple(zip(*rows, strict=True))
        if any(b <= a for a, b in zip(columns[0], columns[0][1:], strict=False)):
            raise InputError(f"{key}.sizes must have increasing megapixels, got {list(columns[0])}")
        return cls(check.number(data["text_s"], f"{key}.text_s", least=0), *columns)

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


@dataclass(frozen=True)
class ServerService:
    """What a server's runs take.

    Args:
        models: times by the model's name; `*` stands for every other name.
        switch_s: seconds to load a model where another one is loaded.
        cold_s: seconds to load the first model after a start.
        batch: time of a batch of 1, 2, ... images over that many times the time of one, the first being 1.
        joins: whether like requests (same model, size and steps) that wait one behind the other share a batch, up to
            the length of `batch`.
        scatter: standard deviation of the logarithm of a run's time around its expectation.

    Raises:
        InputError: on reading, a key is unknown or missing or a value is out of range; when asked for seconds, the
            server cannot run the model.

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

    @classmethod
    def from_dict(cls, data: Any, key: str) -> ServerService:
        """The `service` of a scenario's server.

        Args:
            data: as it stands in the file. key: names it in messages.

        Raises:
            InputError: a key is unknown or missing or a value is out of range; the sentence names it.
        """
        data = check.mapping(data, key, allowed=[f.name for f in fields(cls)], required=("models",))
        models = data["models"]
        if not isinstance(models, Mapping) or not models:
            raise InputError(f"{key}.models must be an object with at least one model, got {check.show(models)}")
        for name in ("switch_s", "cold_s", "scatter"):
            data[name] = check.number(data.get(name, 0.0), f"{key}.{name}", least=0)
        if not isinstance(data.get("joins", False), bool):
            raise InputError(f"{key}.joins must be true or false, got {check.show(data['joins'])}")
        batch = check.sequence(data.get("batch", [1.0]), f"{key}.batch")
        data["batch"] = tuple(check.number(x, f"{key}.batch[{i}]", above=0) for i, x in enumerate(batch))
        if data["batch"][:1] != (1.0,):
            raise InputError(f"{key}.batch must begin with 1, got {check.show(batch)}")
        whole = [j * x for j, x in enumerate(data["batch"], 1)]
        if any(b < a for a, b in zip(whole, whole[1:], strict=False)):
            raise InputError(f"{key}.batch must not let a larger batch end sooner, got {check.show(batch)}")
        data["models"] = {name: ModelTimes.from_dict(x, f"{key}.models.{name}") for name, x in models.items()}
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
                f"no server times are known of model {check.show(model)}; known are {', '.join(self.models)}"
            )
        return times.seconds(megapixels, steps) * self.batch_factor(images)
