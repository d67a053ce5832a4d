"""Checks what `diffpolicy compare` left behind; takes the table's text file and the output folder."""

import csv
import sys
from pathlib import Path

METHODS = {"lad-ts", "d2sac-ts", "sac-ts", "dqn-ts", "lad-ts-plus", "plus-no-chain"}
RULES = {"opt-ts", "price", "weighted-round-robin", "capacity-proportional", "power-of-two", "least-work-own"}
BUNDLED = {"pretrained:live", "pretrained:stale"}
RULES |= {"round-robin", "slot-greedy", "random", "least-work", "local"}


def main() -> None:
    """Fails with an assertion that names what is missing."""
    table, out = Path(sys.argv[1]).read_text(), Path(sys.argv[2])
    with (out / "comparison.csv").open(newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert set(rows) == METHODS | RULES | BUNDLED, sorted(rows)
    for name, row in rows.items():
        assert f" {name} " in table, f"{name} is not in the table"
        assert 0 < float(row["mean_delay_s"]) < 200, row
        assert float(row["p50_delay_s"]) <= float(row["p99_delay_s"]) <= float(row["max_delay_s"]), row
        assert (row["episodes"] == "2") == (name in METHODS), row
        assert (row["converged"] == "no") == (name in METHODS), row
    assert float(rows["opt-ts"]["ratio"]) == 1.0
    assert float(rows["opt-ts"]["mean_delay_s"]) < float(rows["random"]["mean_delay_s"])
    with (out / "learning_curves.csv").open(newline="") as file:
        curves = list(csv.DictReader(file))
    assert len([row for row in curves if row["kind"] == "method"]) == 2 * len(METHODS)
    assert {row["method"] for row in curves if row["kind"] == "pretrained"} == BUNDLED
    for name in ("comparison.png", "learning_curves.png", "delay_by_size.png", "steps.png", "chain.png"):
        data = (out / name).read_bytes()
        assert data.startswith(b"\x89PNG"), name
        assert len(data) > 10_000, name
    for name in METHODS:
        assert (out / "policies" / name / "seed-0" / "policy.safetensors").is_file(), name
    print("table, CSV, pictures and policies are there")


if __name__ == "__main__":
    main()
