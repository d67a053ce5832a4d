"""What `nightly.py` runs: commands, and the files of figures in `docs/_static` that each is held to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Record:
    """A file of figures that a page shows.

    Args:
        file: in `docs/_static`.
        keys: columns that name a row; where several rows have the same names, their mean counts.
        figure: column. margin: by which share a figure may be worse.
        high: whether more is better. exact: whether any machine has the same figure, so that no other one is better.
        part: of the first key, whose rows alone count; empty: all.
        written: the file's name as the command writes it, where that is another one.
    """

    file: str
    keys: tuple[str, ...]
    figure: str
    margin: float = 1e-6
    high: bool = False
    exact: bool = False
    part: str = ""
    written: str = ""


@dataclass(frozen=True)
class Check:
    """A command.

    Args:
        words: of it, with `{out}` for a folder. quick: words of the small form; None: left out.
        minutes: after which it is ended; the small form has `nightly.QUICK_MINUTES`.
        records: what it is held to.
    """

    words: str
    quick: str | None
    minutes: float
    records: tuple[Record, ...] = ()


FRONT = ("policy", "weight")
SPREAD = ("mean_delay_s", "p99_delay_s")
GPU_MIX = (
    "opt-ts price weighted-round-robin power-of-two least-work capacity-proportional random pretrained:live"
    " pretrained:stale"
)
CHECKS = {
    "slow tests": Check("-m pytest -n 2 -m slow", "-m pytest -m slow tests/test_problems_clinic.py", 120),
    "fuzz": Check("tests/fuzz.py --inputs 50000", "tests/fuzz.py --reader policy --inputs 50", 120),
    "rules by load": Check(
        "benchmarks/load.py --out {out}/load.csv",
        "benchmarks/load.py --tasks 10 --out {out}/load.csv",
        30,
        (Record("load.csv", ("tasks", "policy"), "mean_delay_s", exact=True),),
    ),
    "bounds": Check(
        "benchmarks/bounds.py --out {out}/bounds.csv",
        None,
        60,
        (Record("bounds.csv", ("tasks", "rule or bound"), "mean delay, s", 1e-3),),
    ),
    "held requests": Check(
        "benchmarks/held.py --out {out}",
        None,
        60,
        (
            *(Record(f"{case}.csv", FRONT, "mean_delay_s", exact=True) for case in ("held_equal", "held_unlike")),
            Record("held_erosion.csv", ("what", "value"), "ratio", exact=True),
        ),
    ),
    "learned order of held requests": Check(
        "benchmarks/held_learned.py --out {out}",
        None,
        60,
        (
            Record("held_learned.csv", ("fleet", "rule"), "ratio", exact=True),
            *(
                Record("held_learned_fleets.csv", ("fleet",), figure, exact=True)
                for figure in ("mean", "mean_to_as_free", "mean_to_any")
            ),
        ),
    ),
    "learned order on sixty fleets": Check(
        "benchmarks/held_learned.py --part patience --fleets 60 --out {out}",
        None,
        60,
        (Record("held_learned_patience.csv", ("fleet", "patience"), "mean", exact=True),),
    ),
    "who pays": Check(
        "benchmarks/deciding.py --out {out}",
        None,
        20,
        (
            # without the trained policy, which another processor trains to other digits
            *(
                Record(
                    "deciding_sizes.csv",
                    ("policy", "work_gcycles"),
                    "mean_delay_s",
                    1e-6,
                    exact=True,
                    part=name,
                    written="sizes.csv",
                )
                for name in ("opt-ts", "price", "pretrained:live", "pretrained:stale")
            ),
            *(Record("deciding_front.csv", FRONT, figure, exact=True, written="front.csv") for figure in SPREAD),
        ),
    ),
    "best fixed split": Check(
        "benchmarks/fixed_split.py --csv {out}/fixed_split.csv",
        None,
        20,
        (Record("fixed_split.csv", ("scenario", "slots"), "ratio to opt-ts", 1e-3, exact=True),),
    ),
    "the paper's Table II": Check(
        "benchmarks/table2.py --out {out}/table2.csv",
        "benchmarks/table2.py --out {out}/table2.csv",
        5,
        tuple(Record("table2.csv", ("seconds to N images",), f"N = {n}", exact=True) for n in (1, 100, 500, 1000)),
    ),
    "trials of a policy": Check(
        "benchmarks/trial.py --csv {out}/trial.csv",
        None,
        40,
        (Record("trial.csv", ("share", "delays", "policy"), "ended", exact=True),),
    ),
    "measured GPUs": Check(
        f"-m diffpolicy evaluate {GPU_MIX} --scenario gpu-mix --out {{out}}",
        None,
        20,
        tuple(Record("gpu_mix.csv", ("policy",), figure, exact=True, written="evaluation.csv") for figure in SPREAD),
    ),
    "fleets": Check(
        "benchmarks/fleets.py --out {out}",
        "benchmarks/fleets.py --quick --out {out}",
        90,
        (Record("fleets.csv", ("problem", "rule"), "mean, s", 1e-3, exact=True),),
    ),
    "other arrivals than were told": Check(
        "benchmarks/unseen.py --out {out}/unseen --csv {out}",
        None,
        60,
        (
            *(
                Record("unseen.csv", ("tasks", "stations come", "told"), f"pretrained:{level}", exact=True)
                for level in ("live", "stale", "private")
            ),
            Record("unseen_other.csv", ("arrivals", "policy"), "mean, s", exact=True),
        ),
    ),
    "searches for joint decisions": Check(
        "benchmarks/joint_decisions.py --part search --part renewed --part held --csv {out}/joint_decisions.csv",
        None,
        120,
        tuple(
            Record("joint_decisions.csv", ("part", "problem", "rule", "seed"), "ratio", exact=True, part=part)
            for part in ("search", "renewed", "held")
        ),
    ),
    "chains of joint actions": Check(
        "benchmarks/joint.py --out {out}/joint.csv",
        None,
        30,
        (Record("joint.csv", ("choices", "items", "seed"), "best factorised", 5e-3, exact=True),),
    ),
    "mirror descent with an exact critic": Check(
        "benchmarks/mirror_speed.py --csv {out}/mirror_speed.csv",
        "benchmarks/mirror_speed.py --csv {out}/mirror_speed.csv",
        30,
        (Record("mirror_speed.csv", ("method", "changed"), "2000 updates", exact=True),),
    ),
    "students of one pass": Check(
        "benchmarks/distilling.py --seeds 3 --seconds 16 --csv {out}/distilling.csv",
        None,
        30,
        (Record("distilling.csv", ("policy",), "score", 0.02, high=True),),
    ),
    "pendulum": Check(
        "benchmarks/pendulum.py --seeds 5 --each 1.5 --jobs 2 --csv {out}/pendulum.csv",
        None,
        90,
        (Record("pendulum.csv", ("method",), "mean return", 0.25, high=True),),
    ),
    "problems": Check(
        "benchmarks/problems.py --seeds 5 --jobs 2 --minutes 32 --csv {out}/problems.csv",
        None,
        60,
        (Record("problems.csv", ("problem", "method"), "score", 0.05, high=True),),
    ),
    "methods": Check(
        "benchmarks/methods.py --seeds 5 --jobs 2 --minutes 31 --csv {out}/benchmarks.csv",
        None,
        60,
        (Record("benchmarks.csv", ("problem", "method"), "score", 0.1, high=True),),
    ),
}
