"""`CostModel`: how long a request will take on each server, learned from every answer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from diffpolicy import _validate as check
from diffpolicy._types import Bools, Floats, Ints
from diffpolicy.edge.dispatch.service_fit import guess_s, size_law, speeds

MEMORY = 200
"""Answers of a server and kind over which a mean runs, so that a server that changes is noticed."""
KINDS = 512
"""Pairs of model and size that are remembered; those that were seen longest ago go."""
REFIT = 25
"""Answers after which what was not seen is guessed again; at the beginning, `EARLY` of them, after each."""
EARLY = 100
TRUST = 0.25
"""Answers that a guess counts for, beside those of the same server and kind."""


class CostModel:
    """Seconds of a request on each server: of its kind where answers tell, else by the laws of `ServiceFit`.

    What a request declares is never taken for its cost: 2.2 s and 19.7 s are a ratio of 9 where steps x pixels say 16.
    A kind that was never seen has the seconds of its size by a law fitted to those that were, in proportion to its size
    where there was one alone; a server that has not answered yet is taken to be as fast as the others on average.
    A request that does not tell its size has the mean size of its model, and a model that nobody knows the mean of all
    answers.

    Args:
        servers: their number, S.
        first_s: seconds that are expected before there is any answer.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> model = CostModel(2)
        >>> for _ in range(30):
        ...     model.observe(0, 2.0, model="sd3", size=1.0)
        >>> model.expected_s("sd3", 1.0).tolist()  # nothing is known of the other: it is taken for as fast
        [2.0, 2.0]
    """

    def __init__(self, servers: int, *, first_s: float = 1.0) -> None:
        self.servers = check.integer(servers, "servers", least=1)
        self.mean_s, self.answers = check.number(first_s, "first_s", above=0), 0
        self._kinds: OrderedDict[tuple[str, float], tuple[Floats, Floats]] = OrderedDict()
        """Mean seconds and numbers of answers, `[S]` each, by model and size."""
        self._sizes: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._guessed: dict[tuple[str, float], Floats] = {}
        self._fit: _Fit | None = None
        self._told = np.ones(self.servers)

    def observe(self, server: int, seconds: float, *, model: str = "", size: float | None = None) -> None:
        """Takes an answer up.

        Args:
            server: which. seconds: that the request kept it busy. model: its name.
            size: images x steps x megapixels, or any other number; None: it was not told.

        Raises:
            InputError: there is no such server, or a number is out of range.
        """
        server = check.integer(server, "server", least=0, most=self.servers - 1)
        check.number(seconds, "seconds", least=0)
        self.answers += 1
        self.mean_s += (seconds - self.mean_s) / min(self.answers, MEMORY)
        if size is not None:
            mean, count = self._sizes.get(model, (0.0, 0))
            self._sizes[model] = (mean + (size - mean) / min(count + 1, MEMORY), count + 1)
            self._sizes.move_to_end(model)
            if len(self._sizes) > KINDS:  # where no server says what it serves, clients name what they like
                self._sizes.popitem(last=False)
        kind = self._kind(model, size)
        means, counts = self._kinds.get(kind, (np.zeros(self.servers), np.zeros(self.servers)))
        counts[server] += 1
        means[server] += (seconds - means[server]) / min(counts[server], MEMORY)
        self._kinds[kind] = (means, counts)
        self._kinds.move_to_end(kind)
        if len(self._kinds) > KINDS:
            self._kinds.popitem(last=False)
        self._fit = None
        if self.answers <= EARLY or self.answers % REFIT == 0:
            self._guessed.clear()

    def knows(self, model: str = "") -> bool:
        """Whether a server has answered a request of a model. Args: model: its name."""
        return any(name == model and counts.any() for (name, _), (_, counts) in self._kinds.items())

    def expected_s(self, model: str = "", size: float | None = None) -> Floats:
        """Seconds on each server, `[S]`.

        Args:
            model: its name. size: None: the mean of the model.
        """
        if not any(name == model for name, _ in self._kinds):
            return (
                self.mean_s / self._told * float(self._told.mean())
                if not self._kinds
                else np.full(self.servers, self.mean_s)
            )
        kind = self._kind(model, size)
        guess = self._guessed.get(kind)
        if guess is None:
            guess = self._guessed[kind] = self._guess(kind)
        known = self._kinds.get(kind)
        return guess.copy() if known is None else (known[0] * known[1] + TRUST * guess) / (known[1] + TRUST)

    def tell(self, server: int, speed: float) -> None:
        """Says how fast a server is, in relation to the others; it holds until the server has answered.

        Args:
            server: which. speed: above 0; of those of which nobody said it, 1.

        Raises:
            InputError: there is no such server, or the speed is none.
        """
        server = check.integer(server, "server", least=0, most=self.servers - 1)
        self._told[server] = check.number(speed, "speed", above=0)
        self._clear()

    def forget(self, server: int) -> None:
        """Forgets what a server took, since it is another one now, or adds a server.

        Args:
            server: which; the one after the last is new.

        Raises:
            InputError: there is no such server.
        """
        server = check.integer(server, "server", least=0, most=self.servers)
        if server == self.servers:
            self.servers += 1
            self._told = np.append(self._told, 1.0)
            self._kinds = OrderedDict((k, (np.append(m, 0.0), np.append(c, 0.0))) for k, (m, c) in self._kinds.items())
        self._told[server] = 1.0
        for means, counts in self._kinds.values():
            means[server] = counts[server] = 0.0
        self._clear()

    def _kind(self, model: str, size: float | None) -> tuple[str, float]:
        """Of requests that are alike: sizes to three digits."""
        told = self._sizes.get(model, (1.0, 0))[0] if size is None else check.number(size, "size", least=0)
        return model, float(f"{told:.3g}")

    def _guess(self, kind: tuple[str, float]) -> Floats:
        """By what is known of all kinds; what is fitted to them serves all that were seen, until the next answer."""
        known = kind in self._kinds
        fit = self._fit if known and self._fit is not None else self._fitted(kind)
        if known:
            self._fit = fit
        place = fit.kinds[kind]
        row: Floats = fit.guess[place]
        if fit.answered.any():  # of the others what was said holds
            row = np.where(fit.answered, row, np.nan)
        if np.isfinite(row).all() and (row > 0).all():
            return row
        samples, sizes = fit.samples, fit.sizes
        seen = (fit.models == fit.models[place]) & (samples.sum(1) > 0)
        base = np.nansum(np.where(samples > 0, fit.means * fit.speed * samples, 0.0), 1) / samples.sum(1).clip(min=1)
        weight = samples.sum(1)[seen]
        if len(np.unique(sizes[seen])) > 1:
            a, b, power = size_law(sizes[seen], base[seen], weight)
            pooled = a + b * sizes[place] ** power
        else:
            pooled = float((base[seen] * weight).sum() / max((sizes[seen] * weight).sum(), 1e-9)) * sizes[place]
        of_kind = base[place] if samples[place].any() else pooled
        result: Floats = np.where(np.isfinite(row) & (row > 0), row, of_kind / fit.speed)
        return np.where(result > 0, result, self.mean_s)

    def _fitted(self, kind: tuple[str, float]) -> _Fit:
        """What all kinds tell, this one among them."""
        kinds = list(dict.fromkeys([*self._kinds, kind]))
        none = (np.zeros(self.servers), np.zeros(self.servers))
        means, counts = (np.stack([self._kinds.get(k, none)[i] for k in kinds]) for i in (0, 1))
        names = list(dict.fromkeys(name for name, _ in kinds))
        models = np.array([names.index(name) for name, _ in kinds])
        sizes = np.array([size for _, size in kinds])
        means, samples = np.where(counts > 0, means, np.nan), counts.astype(np.int64)
        speed = speeds(means, samples)
        guess = guess_s(means, samples, sizes, models, speed)
        answered: Bools = samples.sum(0) > 0
        if answered.any():
            unit = float(np.exp(np.log(speed[answered] / self._told[answered]).mean()))
            speed = np.where(answered, speed, self._told * unit)
        return _Fit({k: place for place, k in enumerate(kinds)}, models, sizes, means, samples, speed, answered, guess)

    def _clear(self) -> None:
        """What was not seen is guessed anew."""
        self._guessed.clear()
        self._fit = None


class _Fit(NamedTuple):
    """Of K kinds on S servers.

    Args:
        kinds: their places. models: numbers of their models, `[K]`. sizes: `[K]`. means: seconds, NaN where there is no
            answer, `[K, S]`. samples: answers, int64 `[K, S]`. speed: `[S]`. answered: whether a server has, `[S]`.
        guess: seconds by `guess_s`, `[K, S]`.
    """

    kinds: Mapping[tuple[str, float], int]
    models: Ints
    sizes: Floats
    means: Floats
    samples: Ints
    speed: Floats
    answered: Bools
    guess: Floats
