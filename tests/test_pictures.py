"""Pictures: names keep their looks, words do not collide, ticks are read easily, and a CSV alone is enough."""

import csv
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.path import Path

from diffpolicy import ActionMemory, DiffusionPolicy, with_recurrent_state
from diffpolicy._draw.canvas import THEMES, figure_of, plain
from diffpolicy._draw.frame import Frame, titled
from diffpolicy._draw.labels import Label, label_ends, label_points, spread
from diffpolicy._draw.style import METHODS, OTHERS, RULES, STYLES, style_of
from diffpolicy._draw.ticks import log_ticks
from diffpolicy.edge import OffloadingProblem, Scenario
from diffpolicy.edge.names import HEURISTIC_NAMES, PRETRAINED_NAMES
from diffpolicy.edge.scenario.availability import Availability
from diffpolicy.environments import Cost, Schedule
from diffpolicy.evaluation import make_policy, play
from diffpolicy.experiments.first_episode import Seen, chain_csv, chain_of, timeline_csv
from diffpolicy.experiments.method_names import METHOD_NAMES, PRESETS
from diffpolicy.experiments.pictures.curves import learning_curves, running_mean
from diffpolicy.experiments.pictures.episode import chain, steps
from diffpolicy.experiments.pictures.lines import Line, merged, ordered
from diffpolicy.experiments.pictures.results import front, ranking, undominated
from diffpolicy.experiments.pictures.shares import by_bin
from diffpolicy.experiments.pictures.sweeps import sweep
from diffpolicy.experiments.pictures.timeline import timeline
from diffpolicy.experiments.pictures.training import training
from diffpolicy.experiments.plots import draw, kind_of

LIGHT = THEMES[False]


def file(path, header, rows):
    with path.open("w", newline="") as handle:
        csv.writer(handle, lineterminator="\n").writerows([header, *rows])
    return path


def drawn(picture, path, theme=LIGHT):
    with theme.applied():
        figure = picture(Frame.read(path), theme)
        figure.draw_without_rendering()
    return figure


def words(axes):
    return [text.get_text() for text in axes.texts]


# Names


def test_every_name_that_comes_along_has_a_look_of_its_own():
    offloading = {name for name in METHOD_NAMES if PRESETS[name] == "diffpolicy.edge"}
    here = [*offloading, *HEURISTIC_NAMES, *(f"pretrained:{name}" for name in PRETRAINED_NAMES)]
    assert set(here) <= STYLES.keys()
    looks = [style_of(name) for name in here]
    assert len({(look.colour, look.marker, look.line) for look in looks}) == len(here)
    assert len({(style_of(name).colour, style_of(name).line) for name in HEURISTIC_NAMES}) == len(HEURISTIC_NAMES)


def test_what_was_trained_has_other_lines_than_rules():
    assert {look.line for look in (*METHODS.values(), *OTHERS)} == {"solid", "dashed"}
    assert {look.line for name, look in RULES.items() if name != "opt-ts"} == {"dotted", "dashdot"}


def test_no_rule_has_the_colour_of_a_bundled_policy():
    bundled = {style_of(f"pretrained:{name}").colour for name in PRETRAINED_NAMES}
    assert not bundled & {look.colour for look in RULES.values()}


@pytest.mark.parametrize("name", ["mine", "runs/lad-ts", "_", "\ud800", "$x$", "a" * 999, ""])
def test_an_unknown_name_looks_the_same_whoever_else_is_there(name):
    assert style_of(name) == style_of(name)
    assert style_of(name) in OTHERS


def test_an_unknown_name_looks_the_same_in_every_process():
    assert (style_of("mine:policy").colour, style_of("mine:policy").marker) == ("orange", "X")


def test_lines_stand_out_from_their_ground_and_words_can_be_read_on_it():
    def luminance(colour):
        parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    for theme in THEMES.values():
        ground = luminance(theme.ground)
        for least, colours in ((2.6, theme.colours.values()), (4.5, (*theme.words.values(), theme.ink))):
            for colour in colours:
                light, dark = max(luminance(colour), ground), min(luminance(colour), ground)
                assert (light + 0.05) / (dark + 0.05) > least


# Ticks and labels


@given(st.floats(1e-6, 1e6), st.floats(1.05, 1e7))
def test_ticks_of_a_logarithmic_axis_are_few_inside_and_in_steps_of_1_2_5(low, span):
    ticks = log_ticks(low, low * span)
    assert all(low <= tick <= low * span for tick in ticks)
    assert ticks == sorted(set(ticks))
    assert 2 <= len(ticks) <= 15
    logarithmic = all(f"{tick:.0e}"[0] in "125" for tick in ticks)
    steps = np.diff(ticks)
    assert logarithmic or (np.allclose(steps, steps[0]) and f"{steps[0]:.0e}"[0] in "125")


@given(st.lists(st.floats(0, 1), max_size=12))
def test_labels_keep_their_order_and_their_distance(places):
    at = spread(places, 0.05, 0.0, 1.0)
    assert all(-1e-9 <= y <= 1 + 1e-9 for y in at)
    ranked = sorted(range(len(places)), key=lambda k: places[k])
    assert all(at[b] - at[a] >= 0.05 - 1e-9 for a, b in itertools.pairwise(ranked))


def test_labels_that_have_room_stay_where_they_are():
    assert spread([0.2, 0.9, 0.5], 0.1, 0, 1) == pytest.approx([0.2, 0.9, 0.5])
    assert spread([0.5, 0.5], 0.1, 0, 1) == pytest.approx([0.45, 0.55])


def test_no_label_at_a_lines_end_covers_another():
    with LIGHT.applied():
        figure = figure_of(3, 5)
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1])
        figure.draw_without_rendering()
        label_ends(axes, [Label(1, 0.5 + 0.001 * k, f"name {k}", "black") for k in range(8)], LIGHT)
        figure.draw_without_rendering()
        renderer = figure.canvas.get_renderer()
        boxes = [super(type(t), t).get_window_extent(renderer) for t in axes.texts]
    assert len(boxes) == 8
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_no_label_beside_a_point_covers_another_or_lies_on_a_line():
    x = np.linspace(0, 1, 5)
    lines = [np.stack([x, (1 - x) ** 2 + lift], axis=1) for lift in (0, 0.03)]
    with LIGHT.applied():
        figure = figure_of(3)
        axes = figure.subplots()
        for line in lines:
            axes.plot(*line.T)
        labels = [Label(a, b, f"{a:.2f}", "black") for line in lines for a, b in line]
        missing = Label(0.5, float("nan"), "is not drawn", "black")
        label_points(axes, [*labels, missing], LIGHT, [*lines, np.array([[0.5, np.nan]])])
        figure.draw_without_rendering()
        renderer = figure.canvas.get_renderer()
        boxes = [super(type(t), t).get_window_extent(renderer) for t in axes.texts]
    assert len(boxes) == 10
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    drawn = [Path(axes.transData.transform(line)) for line in lines]
    assert not any(path.intersects_bbox(box, filled=False) for path in drawn for box in boxes)


@pytest.mark.parametrize(
    ("column", "title"),
    [("delay_s", "delay, s"), ("work_gcycles", "work, Gcycles"), ("cost", "cost"), ("lateness", "lateness")],
)
def test_columns_are_titled_with_their_units(column, title):
    assert titled(column) == title


# Order


def line(name, kind, *values):
    values = np.array(values, dtype=float)
    return Line(name, kind, values, values, values)


def test_a_legend_has_methods_before_rules_each_by_their_ends():
    lines = [
        line("a", "heuristic", 1, 0.5),
        line("b", "method", 1, 3),
        line("c", "pretrained", 9, 2),
        line("d", "heuristic", 1, 0.2),
    ]
    assert [x.name for x in ordered(lines)] == ["c", "b", "d", "a"]


def test_rules_that_coincide_are_one_line_named_after_the_baseline_first():
    lines = [
        line("twin", "heuristic", 1.001, 2),
        line("base", "heuristic", 1, 2),
        line("far", "heuristic", 1, 3),
        line("learned", "method", 1, 2),
    ]
    assert [x.label for x in merged(lines, "base")] == ["base = twin", "far", "learned"]


def test_the_front_is_what_nobody_beats_in_both():
    assert undominated(np.array([1.0, 2.0, 3.0, 1.5]), np.array([3.0, 2.0, 2.5, 3.5])) == [0, 1]


# Learning curves

CURVES = ["method", "kind", "seed", "episode", "delay_s", "baseline", "measure"]


def curves(path, costs, base=2.0, seeds=3, episodes=40):
    ends = ["base", "delay, s"]
    rows = [
        [name, "method", s, k + 1, cost + 0.01 * s, *ends]
        for name, cost in costs.items()
        for s in range(seeds)
        for k in range(episodes)
    ]
    return file(path, CURVES, [*rows, ["base", "heuristic", "", "", base, *ends]])


def test_learning_curves_are_ratios_on_a_logarithmic_axis_with_whole_episodes(tmp_path):
    axes = drawn(learning_curves, curves(tmp_path / "c.csv", {"good": 3.0, "bad": 300.0})).axes[0]
    assert axes.get_yscale() == "log"
    assert axes.get_ylabel() == "delay: ratio to base"
    assert words(axes) == ["good 1.51", "bad 150", "base 1"]
    assert all(tick == int(tick) for tick in axes.get_xticks())
    first = axes.get_lines()[0].get_ydata()
    assert np.allclose(first, (3.0 + 0.01) / 2)


def test_bands_say_what_they_are(tmp_path):
    for seeds, says in ((1, "one seed"), (2, "range of 2 seeds"), (5, "95 % interval over 5 seeds")):
        figure = drawn(learning_curves, curves(tmp_path / f"{seeds}.csv", {"good": 3.0}, seeds=seeds))
        assert says in figure.get_supxlabel().replace("\n", " ")


@pytest.mark.parametrize(("costs", "base"), [({"a": -3.0}, -2.0), ({"a": -0.005, "b": 2.0}, 1.0), ({"a": 3.0}, 0.0)])
def test_without_a_ratio_the_difference_is_drawn(costs, base, tmp_path):
    axes = drawn(learning_curves, curves(tmp_path / "c.csv", costs, base)).axes[0]
    assert axes.get_yscale() in ("linear", "symlog")
    assert axes.get_ylabel() == "delay, s: difference to base"
    assert np.allclose(axes.get_lines()[0].get_ydata(), costs["a"] + 0.01 - base)


def test_a_file_of_an_earlier_version_is_drawn_as_it_is(tmp_path):
    rows = [["mine", 0, k + 1, 5.0 + k] for k in range(5)]
    axes = drawn(learning_curves, file(tmp_path / "c.csv", ["method", "seed", "episode", "delay_s"], rows)).axes[0]
    assert axes.get_ylabel() == "delay, s"


def test_a_running_mean_begins_with_fewer_values():
    assert running_mean(np.arange(1.0, 6.0), 3) == pytest.approx([1, 1.5, 2, 3, 4])


# The other pictures

SWEEP = ["tasks", "load", "policy", "kind", "seeds", "episodes", "mean_delay_s", "ci95_s", "p95_delay_s", "ratio"]
RATIO = ["ratio_lo", "ratio_hi", "baseline", "measure"]


def sweep_rows(intervals=True):
    rows = []
    for k, tasks in enumerate((10, 20)):
        for j, (name, kind) in enumerate((("mine", "method"), ("base", "heuristic"), ("other", "heuristic"))):
            ratio = (2.0, 1.0, 1.5)[j]
            row = [tasks, 0.3 + k, name, kind, "", "", ratio * (k + 1), 0.1, 9.0, ratio]
            rows.append([*row, ratio - 0.1, ratio + 0.1, "base", "delay, s"] if intervals else row)
    return rows


def test_a_sweep_has_intervals_on_both_panels(tmp_path):
    figure = drawn(sweep, file(tmp_path / "s.csv", SWEEP + RATIO, sweep_rows()))
    for axes in figure.axes:
        heights = [np.ptp(bar[:, 1]) for c in axes.collections for bar in c.get_segments()]
        assert len(heights) == 6
        assert np.allclose(heights, 0.2)
    labels = [label.get_text() for label in figure.axes[1].get_xticklabels()]
    assert labels == ["10\nload 0.30", "20\nload 1.30"]
    assert "95 % intervals" in figure.get_supxlabel()
    assert words(figure.axes[1]) == ["mine 2", "base 1", "other 1.5"]


def test_a_sweep_of_an_earlier_version_finds_its_baseline_and_says_what_is_missing(tmp_path):
    figure = drawn(sweep, file(tmp_path / "s.csv", SWEEP, sweep_rows(intervals=False)))
    assert figure.axes[1].get_ylabel() == "ratio of the mean to base"
    assert "has none for ratios" in figure.get_supxlabel()


BINS = ["policy", "kind", "bin", "work_gcycles", "tasks", "mean_delay_s", "ratio", "baseline", "measure"]


def test_bins_are_ratios_of_each_bin(tmp_path):
    rows = [
        [name, kind, k, k + 0.5, 9, 2.0 * r, r, "base", "delay, s"]
        for name, kind, r in (("mine", "method", 0.5), ("base", "heuristic", 1.0), ("twin", "heuristic", 1.0))
        for k in range(3)
    ]
    axes = drawn(by_bin, file(tmp_path / "b.csv", BINS, rows)).axes[0]
    assert axes.get_xlabel() == "work, Gcycles"
    assert words(axes) == ["mine 0.5", "base = twin 1"]
    assert [len(each.get_xdata()) for each in axes.get_lines()] == [3, 3]


RESULTS = ["policy", "kind", "mean_cost", "ci95", "p99_cost", "ratio", "ratio_lo", "ratio_hi", "baseline", "measure"]


def results(path, rows):
    return file(path, RESULTS, [[*row, "base", "cost"] for row in rows])


def test_a_ranking_has_what_was_trained_first(tmp_path):
    rows = [
        ["base", "heuristic", 2.0, 0.1, 4.0, 1.0, 1.0, 1.0],
        ["mine", "method", 3.0, 0.1, 5.0, 1.5, 1.4, 1.6],
        ["_best", "method", 1.0, 0.1, 6.0, 0.5, 0.4, 0.6],
    ]
    axes = drawn(ranking, results(tmp_path / "r.csv", rows)).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [plain("_best"), "mine", "base"]
    assert axes.get_xlabel() == "mean cost: ratio to base"
    assert axes.get_xscale() == "log"
    labels = words(drawn(front, tmp_path / "r.csv").axes[0])
    assert sorted(labels) == sorted([plain("_best"), "mine", "base"])


def test_without_ratios_a_ranking_is_of_differences(tmp_path):
    header = [*RESULTS, "difference", "difference_ci95"]
    rows = [["base", "heuristic", -2.0, 0.1, 1.0, "", "", "", "base", "cost", 0.0, 0.0]]
    rows.append(["mine", "method", -3.0, 0.1, 1.0, "", "", "", "base", "cost", -1.0, 0.2])
    axes = drawn(ranking, file(tmp_path / "r.csv", header, rows)).axes[0]
    assert axes.get_xlabel() == "mean cost: difference to base"
    assert axes.get_xscale() == "linear"


# Files


def test_the_same_name_has_the_same_colour_whatever_its_rank(tmp_path):
    for costs in ({"mine": 1.0, "yours": 3.0}, {"mine": 9.0, "yours": 3.0}):
        axes = drawn(learning_curves, curves(tmp_path / "c.csv", costs)).axes[0]
        colours = {text.get_text().split()[0]: text.get_color() for text in axes.texts}
        assert colours["mine"] == LIGHT.word("mine")
        assert colours["yours"] == LIGHT.word("yours")


def test_words_are_nowhere_smaller_than_8_points(tmp_path):
    figure = drawn(sweep, file(tmp_path / "s.csv", SWEEP + RATIO, sweep_rows()))
    sizes = [text.get_fontsize() for text in figure.findobj(lambda artist: hasattr(artist, "get_fontsize"))]
    assert min(sizes) >= 8


def test_a_picture_is_drawn_in_every_format_light_and_dark(tmp_path):
    path = curves(tmp_path / "curves.csv", {"mine": 3.0})
    names = {p.name for dark in (False, True) for p in draw(path, formats=["png", "svg", "pdf"], dark=dark)}
    assert names == {f"curves{dark}.{form}" for dark in ("", "-dark") for form in ("png", "svg", "pdf")}
    before = {name: (tmp_path / name).read_bytes() for name in names}
    draw(path, dark=True)
    assert {name: (tmp_path / name).read_bytes() for name in names} == before


def test_the_command_draws_what_compare_wrote(cli, tmp_path):
    words = ("--stations", 3, "--slots", 3, "--tasks", 4, "--eval-episodes", 2, "--out", tmp_path / "out")
    done = cli("evaluate", "opt-ts", "random", "local", *words)
    assert done.status == 0, done.err
    pictures = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir() if p.suffix in (".png", ".svg")}
    assert set(pictures) == {
        f"{name}.{form}"
        for name in ("evaluation", "evaluation_front", "delay_by_size", "steps", "timeline")
        for form in ("png", "svg")
    }
    files = [tmp_path / "out" / f"{name}.csv" for name in ("evaluation", "delay_by_size", "steps", "timeline")]
    rows = list(csv.DictReader(files[2].open()))
    assert [row["step"] for row in rows if row["policy"] == "local"] == ["0", "1", "2"]
    assert {"delay_s", "backlog_s:0", "backlog_s:2"} <= rows[0].keys()
    assert {row["what"] for row in csv.DictReader(files[3].open())} == {"server"}
    again = cli("plot", *files, "--out", tmp_path / "again")
    assert again.status == 0, again.err
    assert {p.name: p.read_bytes() for p in (tmp_path / "again").iterdir()} == pictures
    assert cli("plot", files[0], "--format", "pdf", "--dark", "--out", tmp_path / "third").status == 0
    assert {p.name for p in (tmp_path / "third").iterdir()} == {"evaluation-dark.pdf", "evaluation_front-dark.pdf"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n", "is none of the tables that can be drawn"),
        ("method,seed,episode,delay_s\nx,0,1,fast\n", "line 2: 'delay_s' must be a finite number, got 'fast'"),
        ("method,seed,episode,delay_s\nx,0,1,inf\n", "must be a finite number"),
        ("method,seed,episode,delay_s\n", "has a header but no rows"),
        ("", "is empty"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(refused, tmp_path, text, says):
    (tmp_path / "x.csv").write_text(text)
    refused("plot", tmp_path / "x.csv", says=[says])


def small():
    return OffloadingProblem(Scenario.load("lad-ts").override(stations=3, slots=2, tasks=4))


def test_a_chain_is_drawn_from_noise_to_what_is_chosen(tmp_path):
    problem = small()
    policy = DiffusionPolicy.from_specs(problem.make_env(1), prior=ActionMemory(), steps=4, seed=1)
    assert chain_csv(problem, {"opt-ts": make_policy("opt-ts", problem)}, 0) is None
    before = policy.generator.get_state()
    text = chain_csv(problem, {"mine": policy, "opt-ts": make_policy("opt-ts", problem)}, 0)
    assert torch.equal(policy.generator.get_state(), before)
    assert text == chain_csv(problem, {"mine": policy}, 0)
    (tmp_path / "chain.csv").write_text(text)
    frame = Frame.read(tmp_path / "chain.csv")
    assert list(dict.fromkeys(frame.texts("chain_step"))) == ["4", "3", "2", "1", "0"]
    probabilities = frame.numbers("probability").reshape(5, 3)
    assert probabilities.sum(1) == pytest.approx(np.ones(5), abs=1e-5)
    axes = drawn(chain, tmp_path / "chain.csv").axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == [f"$x_{{{k}}}$" for k in (4, 3, 2, 1, 0)]
    assert np.allclose(axes.get_images()[0].get_array(), probabilities.T)


def test_the_last_state_of_a_chain_is_what_the_policy_acts_on():
    problem = small()
    policy = DiffusionPolicy.from_specs(problem.make_env(1), prior=ActionMemory(), steps=4, seed=1).eval()
    td = with_recurrent_state(problem.make_episodes(0, 1), policy).reset()
    state = policy.generator.get_state()
    with torch.no_grad():
        last = chain_of(policy, td)[-1]
        policy.generator.set_state(state)
        probabilities = policy.get_dist(td).probs
    first = int(td["agents", "valid"].flatten().nonzero()[0])
    assert last == pytest.approx(probabilities.flatten(0, -2)[first].numpy(), abs=1e-5)


def test_steps_without_levels_are_what_they_cost(tmp_path):
    both = (("mine", "method"), ("base", "heuristic"))
    rows = [[name, kind, k, k + 1.0, "base", "cost"] for name, kind in both for k in range(4)]
    path = file(tmp_path / "s.csv", ["policy", "kind", "step", "cost", "baseline", "measure"], rows)
    axes = drawn(steps, path).axes[0]
    assert words(axes) == ["mine", "base"]
    assert all(tick == int(tick) for tick in axes.get_xticks())


def busy(problem, name):
    """All that is done in the first episode under a rule, its delays, and the environment."""
    policy, env = make_policy(name, problem), problem.make_episodes(0, 1, view="live")
    tells, done, steps_ = problem.schedule(env), [], []

    def watch(step):
        done.append(tells(step))
        steps_.append(step)

    played = play(env, policy, problem.steps, watch=watch)
    return [np.concatenate([getattr(x, key) for x in done]) for key in vars(done[0])], played, env, steps_


def test_a_timeline_has_each_task_once_in_turn_for_as_long_as_its_server_needs():
    problem = OffloadingProblem(Scenario.load("lad-ts").override(stations=3, slots=6, tasks=30))
    (place, arrives, begins, ends), played, env, steps_ = busy(problem, "random")
    assert len(place) == len(played.cost)
    assert np.all(arrives <= begins)
    work = np.concatenate([s["agents", "work_gcycles"][s["agents", "valid"]].numpy() for s in steps_])
    capacity = env.fleet.capacity_gcycles_per_s.numpy()
    for at in range(3):
        here = place == at
        assert np.all(begins[here][1:] >= ends[here][:-1] - 1e-9)
        assert (ends - begins)[here].sum() == pytest.approx((work[here] / capacity[at]).sum())
    # a task that waited for nobody costs its own time and its transfers
    waited = begins - arrives
    assert waited.max() > 0
    assert played.cost.sum() == pytest.approx((ends - arrives).sum(), rel=0.2)
    assert np.all(played.cost >= ends - arrives - 1e-9)


def test_a_timeline_of_single_requests_goes_on_from_one_to_the_next():
    problem = OffloadingProblem(replace(Scenario.load("gpu-mix"), slots=40))
    (place, arrives, begins, ends), played, *_ = busy(problem, "opt-ts")
    assert np.all(np.diff(arrives) >= 0)
    assert arrives[0] == 0
    assert all(np.all(begins[place == at][1:] >= ends[place == at][:-1] - 1e-9) for at in set(place))
    assert np.all(played.cost >= ends - arrives - 1e-9)


def test_where_servers_fail_there_is_no_timeline():
    scenario = Scenario.load("lad-ts").override(stations=2, slots=2, tasks=3)
    down = [
        replace(server, availability=Availability.from_dict({"down_s": [[0.0, 1.0]]}, "x"))
        for server in scenario.servers
    ]
    problem = OffloadingProblem(replace(scenario, servers=tuple(down)))
    seen = {"opt-ts": Seen.of(problem, make_policy("opt-ts", problem), 0)}
    assert timeline_csv(problem, seen, {"opt-ts": "heuristic"}) is None


def test_a_timeline_shows_what_is_done_and_how_many_wait(tmp_path):
    free = {}
    done = Schedule.in_turn(
        np.array([0, 0, 0, 1]), np.array([0.0, 0.0, 1.0, 2.0]), np.array([2.0, 3.0, 5.0, 3.0]), free
    )
    assert done.begins.tolist() == [0.0, 2.0, 3.0, 2.0]
    assert free == {0: 5.0, 1: 3.0}
    rows = [["mine", "method", 0, *x, "nurse", "time, min"] for x in zip(*vars(done).values(), strict=True)]
    header = ["policy", "kind", "step", "place", "arrives", "begins", "ends", "what", "clock"]
    figure = drawn(timeline, file(tmp_path / "timeline.csv", header, rows))
    axes = figure.axes[0]
    assert axes.get_title(loc="left") == "mine: all done after 5 min"
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("nurse", "time, min")
    corners = axes.patches[0].get_path().vertices.reshape(4, 5, 2)
    assert np.ptp(corners[:, :4, 0], axis=1) == pytest.approx([2.0, 1.0, 2.0, 1.0])
    assert "at most 2." in figure.get_supxlabel().replace("\n", " ")


def test_a_training_has_a_panel_for_each_figure_that_it_noted(tmp_path):
    rows = [[k, 10.0 / k, -1.0 + k % 2, "" if k % 2 else 3.0, ""] for k in range(1, 21)]
    figure = drawn(
        training, file(tmp_path / "training.csv", ["episode", "delay_s", "loss_actor", "alpha", "never"], rows)
    )
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["delay, s", "loss actor", "alpha"]
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "linear", "linear"]
    assert "1 more columns" in figure.get_supxlabel()
    assert kind_of(Frame.read(tmp_path / "training.csv")).name == "a training"


def test_two_files_of_one_name_are_not_drawn_over_each_other(refused, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        curves(tmp_path / folder / "c.csv", {"mine": 3.0})
    both = [tmp_path / "a" / "c.csv", tmp_path / "b" / "c.csv"]
    refused("plot", *both, "--out", tmp_path / "out", says=["would be written to the same picture"])


def test_a_plot_that_is_refused_leaves_no_folder(refused, tmp_path):
    refused("plot", tmp_path / "none.csv", "--out", tmp_path / "out", says=["none.csv does not exist"])
    refused("plot", tmp_path / "none.csv", "--out", tmp_path / "a.svg", says=["a.svg is named as a picture"])
    assert not list(tmp_path.iterdir())


def test_a_users_own_unit_is_in_the_picture(tmp_path):
    cost = Cost("lateness", "min")
    rows = [["base", "heuristic", 2.0, 0.1, 4.0, "", "", "", "base", cost.titled("").strip()]]
    axes = drawn(ranking, file(tmp_path / "r.csv", RESULTS, rows)).axes[0]
    assert axes.get_xlabel() == "mean lateness, min"
    assert kind_of(Frame.read(tmp_path / "r.csv")).name.startswith("a comparison")
