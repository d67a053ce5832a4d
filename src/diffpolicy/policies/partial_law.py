"""`PartialLaw`: a `torch.distributions.Distribution` of which only some is known, and which says so of the rest."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import Tensor
from torch.distributions import Distribution


class PartialLaw(Distribution):
    """Raises a sentence where torch's own class raises an empty `NotImplementedError`, which losses await."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (torch's attribute)

    def unknown(self, what: str) -> str:
        """The sentence that says so. Args: what: is asked for."""
        raise NotImplementedError

    def _refuse(self, what: str) -> NoReturn:
        raise NotImplementedError(self.unknown(what))

    @property
    def mean(self) -> Tensor:
        """Not known."""
        self._refuse("mean")

    @property
    def variance(self) -> Tensor:
        """Not known, and so no `stddev`."""
        self._refuse("variance")

    @property
    def support(self) -> Any:
        """Not known."""
        self._refuse("support")

    def cdf(self, value: Tensor) -> NoReturn:
        """Not known."""
        self._refuse("cdf")

    def icdf(self, value: Tensor) -> NoReturn:
        """Not known."""
        self._refuse("icdf")

    def enumerate_support(self, expand: bool = True) -> NoReturn:
        """Not known."""
        self._refuse("enumerate_support")

    def expand(self, batch_shape: Any, _instance: Any = None) -> NoReturn:
        """Not known."""
        self._refuse("expand")
