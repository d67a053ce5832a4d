"""The costs that a dispatcher learns from answers."""

from __future__ import annotations

import numpy as np
import pytest

from diffpolicy.edge.dispatch import CostModel
from diffpolicy.edge.dispatch.cost_model import KINDS
from diffpolicy.errors import InputError


def law(server: int, size: float) -> float:
    """Seconds: two servers, the second half as fast; not in proportion to the size."""
    return (1 + server) * (0.5 + 0.3 * size**0.8)


def taught(count: int = 600, sizes: tuple[float, ...] = (1.0, 4.0, 9.0)) -> CostModel:
    model, rng = CostModel(2), np.random.default_rng(0)
    for _ in range(count):
        server, size = int(rng.integers(2)), float(rng.choice(sizes))
        model.observe(server, law(server, size) * np.exp(0.05 * rng.standard_normal()), model="sd3", size=size)
    return model


def test_kinds_that_were_seen_have_their_means() -> None:
    for size in (1.0, 4.0, 9.0):
        assert taught().expected_s("sd3", size) == pytest.approx([law(0, size), law(1, size)], rel=0.03)


def test_a_size_that_nobody_asked_for_comes_from_the_law_of_size() -> None:
    assert taught().expected_s("sd3", 6.0) == pytest.approx([law(0, 6.0), law(1, 6.0)], rel=0.05)
    declared = law(0, 1.0) * 16  # what proportion to the size would say of sixteen times the size
    assert taught().expected_s("sd3", 16.0)[0] < 0.65 * declared


def test_what_is_not_told_is_the_mean() -> None:
    model = taught()
    assert model.expected_s("sdxl", 3.0).tolist() == [model.mean_s] * 2
    assert CostModel(3, first_s=2.0).expected_s().tolist() == [2.0] * 3
    mean_size = 14 / 3
    assert model.expected_s("sd3") == pytest.approx([law(0, mean_size), law(1, mean_size)], rel=0.1)


def test_a_server_that_becomes_slower_is_noticed() -> None:
    model = taught()
    for _ in range(600):
        model.observe(0, 2 * law(0, 4.0), model="sd3", size=4.0)
    assert model.expected_s("sd3", 4.0) == pytest.approx([2 * law(0, 4.0), law(1, 4.0)], rel=0.06)


def test_a_server_without_answers_of_a_kind_is_judged_by_its_speed() -> None:
    model = CostModel(2)
    for _ in range(40):
        model.observe(0, 2.0, model="a", size=1.0)
        model.observe(1, 6.0, model="a", size=1.0)
        model.observe(0, 5.0, model="b", size=1.0)
    assert model.expected_s("b", 1.0) == pytest.approx([5.0, 15.0], rel=0.01)


def test_what_is_remembered_is_bounded() -> None:
    model = CostModel(1)
    for k in range(2_000):
        model.observe(0, 1.0, model="x", size=float(k))
    assert len(model._kinds) == 512


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((2, 1.0), "server must be at most 1, got 2"),
        ((0, -1.0), "seconds must be at least 0, got -1"),
        ((0, float("nan")), "seconds must be"),
    ],
)
def test_wrong_answers_are_refused(given: tuple[int, float], says: str) -> None:
    with pytest.raises(InputError) as error:
        CostModel(2).observe(*given)
    assert says in str(error.value)


def test_one_answer_tells_its_kind_and_scales_the_others_by_size_and_server() -> None:
    model = CostModel(2)
    model.observe(0, 0.5, model="a", size=2.0)
    assert model.expected_s("a", 2.0) == pytest.approx([0.5, 0.5])
    assert model.expected_s("a", 20.0) == pytest.approx([5.0, 5.0])
    model.observe(1, 1.0, model="a", size=2.0)
    assert model.expected_s("a", 20.0) == pytest.approx([5.0, 10.0])
    model.observe(0, 3.0, model="a", size=20.0)
    assert model.expected_s("a", 20.0) == pytest.approx([3.0, 6.0], rel=0.05)


def test_what_is_said_of_a_server_holds_until_it_has_answered() -> None:
    model = CostModel(3, first_s=2.0)
    model.tell(2, 0.5)
    assert model.expected_s("a", 1.0)[2] == pytest.approx(2 * model.expected_s("a", 1.0)[0])
    model.observe(0, 1.0, model="a", size=1.0)
    assert model.expected_s("a", 1.0) == pytest.approx([1.0, 1.0, 2.0])
    model.observe(2, 1.0, model="a", size=1.0)
    assert model.expected_s("a", 1.0)[[0, 2]] == pytest.approx([1.0, 1.0])
    model.forget(2)
    assert model.expected_s("a", 1.0) == pytest.approx([1.0, 1.0, 1.0])


def test_models_that_clients_name_as_they_like_are_forgotten_in_time() -> None:
    model = CostModel(1)
    for k in range(3 * KINDS):
        model.observe(0, 2.0, model=f"m{k}", size=4.0)
    assert len(model._sizes) == len(model._kinds) == KINDS
    assert model.expected_s(f"m{3 * KINDS - 1}").tolist() == [2.0]
    assert model.expected_s("m0").tolist() == [model.mean_s]
