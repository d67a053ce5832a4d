"""A profile's parts: the law between and beyond what was measured, and records that refuse by key."""

import json

import pytest

from diffpolicy.edge.hardware.measuring.fit import fit_points
from diffpolicy.edge.hardware.schema.records import (
    ColdStart,
    Fit,
    ModelInfo,
    Point,
    ServerInfo,
    SizeFit,
    Software,
    Source,
    Spread,
)
from diffpolicy.edge.hardware.schema.server_profile import ServerProfile
from diffpolicy.errors import InputError


def made(*sizes, text_s=0.5):
    return ServerProfile(
        ServerInfo("a", "cpu"),
        Software(),
        ModelInfo("m", "random"),
        ColdStart(switch_s=3.0),
        (),
        Fit(text_s, tuple(SizeFit(*size) for size in sizes), r2=0.99, scatter_sigma=0.1),
        Source(),
    )


def test_sizes_between_measured_ones_are_linear_in_pixels():
    got = made((10, 10, 1, 1.0, 0.2), (20, 20, 1, 4.0, 0.8))
    assert got.service_s(10, 10, 3) == pytest.approx(0.5 + 3 * 1.0 + 0.2)
    assert got.service_s(25, 10, 2) == pytest.approx(0.5 + 2 * 2.5 + 0.5)  # 250 pixels: half way
    assert (got.switch_s, got.scatter_sigma) == (3.0, 0.1)


def test_larger_sizes_follow_the_line_and_smaller_ones_never_fall_below_proportion():
    got = made((10, 10, 1, 1.0, 0.0), (20, 20, 1, 7.0, 0.0), text_s=0.0)
    assert got.service_s(30, 30, 1) == pytest.approx(17.0)
    assert got.service_s(5, 5, 1) == pytest.approx(0.25)  # the line would give less than nothing
    falling = made((10, 10, 1, 2.0, 0.0), (20, 20, 1, 1.0, 0.0), text_s=0.0)
    assert falling.service_s(100, 100, 1) == pytest.approx(1.0)


def test_one_size_scales_by_pixels_and_alike_ones_are_averaged():
    assert made((10, 10, 1, 1.0, 0.4), text_s=0.0).service_s(10, 20, 2) == pytest.approx(2 * (2 * 1.0 + 0.4))
    assert made((10, 20, 1, 1.0, 0.0), (20, 10, 1, 3.0, 0.0), text_s=0.0).service_s(10, 20, 1) == pytest.approx(2.0)


def test_batches_are_linear_between_measured_ones_and_proportional_beyond():
    got = made((10, 10, 1, 1.0, 0.0), (10, 10, 4, 2.5, 0.0))
    assert got.service_s(10, 10, 2, batch=2) == pytest.approx(0.5 + 2 * 1.5)
    assert got.service_s(10, 10, 2, batch=8) == pytest.approx(0.5 + 2 * 5.0)


def points(law, steps=(4, 10, 20), **parts):
    return [Point(64, 64, n, 1, 1, 0, Spread.of([law(n)]), **parts) for n in steps]


def test_the_constant_is_divided_by_the_parts_that_were_measured():
    got = fit_points(points(lambda n: 0.3 + 0.05 * n, text_s=0.1))
    assert got.text_s == pytest.approx(0.1)
    assert got.sizes[0].step_s == pytest.approx(0.05)
    assert got.sizes[0].decode_s == pytest.approx(0.2)
    assert got.r2 == pytest.approx(1.0)
    assert got.ok


def test_neither_step_nor_constant_falls_below_zero():
    steep = fit_points(points(lambda n: n * n / 100))
    assert steep.text_s == 0
    assert steep.sizes[0].decode_s == 0
    assert steep.sizes[0].step_s > 0
    flat = fit_points(points(lambda n: 1.0 - n / 100))
    assert flat.sizes[0].step_s > 0
    assert not flat.ok


def test_one_number_of_steps_takes_the_constant_from_the_parts_and_is_not_relied_on():
    got = fit_points(points(lambda n: 1.0, steps=(8,), text_s=0.1, decode_s=0.1))
    assert got.sizes[0].step_s == pytest.approx(0.1)
    assert got.r2 is None
    assert not got.ok


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("server", "hostname"), "x", "profile.server has the unknown key 'hostname'"),
        (("server", "count"), 0, "profile.server.count must be at least 1, got 0"),
        (("server", "count"), 10**400, "profile.server.count must be at most 9007199254740992, got"),
        (("fit", "sizes", 0, "step_s"), 0, r"profile.fit.sizes\[0\].step_s must be greater than 0, got 0"),
        (("fit", "text_s"), float("nan"), "profile.fit.text_s must be a finite number, got nan"),
        (("fit", "text_s"), True, "profile.fit.text_s must be a number, got True"),
        (("model", "weights"), "stolen", "profile.model.weights must be one of random, .* got 'stolen'"),
        (("cold_start", "switch_s"), -1, "profile.cold_start.switch_s must be at least 0, got -1"),
    ],
)
def test_a_wrong_value_is_named_by_its_path(path, value, words):
    data = made((10, 10, 1, 1.0, 0.0)).to_dict()
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(InputError, match=words):
        ServerProfile.from_dict(data)


def test_nothing_is_written_that_cannot_be_read(tmp_path):
    path = tmp_path / "p.json"
    with pytest.raises(InputError, match=r"step_s must be a finite number, got inf"):
        made((10, 10, 1, float("inf"), 0.0)).save(path)
    assert not path.exists()
    good = made((10, 10, 1, 1.0, 0.0))
    good.save(path)
    assert ServerProfile.load(path) == good
    assert json.loads(path.read_text())["schema"] == "diffpolicy.server_profile/1"
