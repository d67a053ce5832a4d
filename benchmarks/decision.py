"""One decision of a station: eager, compiled, ONNX Runtime and AOTInductor, side by side.

python benchmarks/decision.py                # a policy of the preset lad-ts, untrained: weights do not change the time
python benchmarks/decision.py runs/lad-ts
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from functools import partial
from pathlib import Path

import torch
from tensordict import TensorDict

from diffpolicy.edge import Scenario
from diffpolicy.edge.training import build
from diffpolicy.export import Decision, ExportedDecision, export_decision
from diffpolicy.policies import Policy
from timing import interleaved, machine, table

BATCHES = (1, 64, 1000)


def main() -> None:
    """Exports, times, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("policy", nargs="?", type=Path, help="a policy folder; default: a fresh one of a preset")
    parser.add_argument("--method", default="lad-ts")
    parser.add_argument("--agent", type=int, default=0)
    parser.add_argument("--formats", default="onnx,aoti")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    whole = Policy.load(options.policy) if options.policy else build(options.method, Scenario.load("lad-ts")).policy
    policy = whole.for_agent(options.agent) if whole.agents is not None else whole
    decision = Decision(policy)
    compiled = torch.compile(Decision(policy), dynamic=True)
    generator = torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        files = {f: export_decision(policy, Path(folder) / f"decision.{f}", f).path for f in options.formats.split(",")}
        exported = {f: ExportedDecision(path) for f, path in files.items()}
        rows = []
        for batch in BATCHES:
            inputs = {i.name: i.random(batch, generator) for i in decision.inputs}
            td = TensorDict({"observation": inputs["observation"]}, batch_size=[batch])
            if "latent" in inputs:
                td["latent"] = inputs["latent"]
            keyed = _plain(policy, td)
            ordered = list(inputs.values())
            candidates = {
                "policy(tensordict)": partial(policy, keyed),
                "module": partial(decision, *ordered),
                "compiled": partial(compiled, *ordered),
                **{f: partial(run, **inputs) for f, run in exported.items()},
            }
            times = interleaved(candidates, rounds=options.rounds)
            eager = times["policy(tensordict)"]
            for name, seconds in times.items():
                rows.append(
                    [str(batch), name, f"{1e6 * seconds:.0f}", f"{1e6 * seconds / batch:.2f}", f"{seconds / eager:.3f}"]
                )
    print(f"one decision, {policy.choices} choices; {machine()}")
    print(table(["rows", "how", "us a call", "us a row", "of eager"], rows))


def _plain(policy: Policy, td: TensorDict) -> TensorDict:
    """The rows under the policy's own keys."""
    result = TensorDict(batch_size=td.batch_size)
    result[policy.observation_keys[0]] = td["observation"]
    if "latent" in td:
        result[policy.latent_key] = td["latent"]
    if policy.mask_key is not None:
        result[policy.mask_key] = torch.ones(len(td), policy.choices, dtype=torch.bool)
    if policy.valid_key is not None:
        result[policy.valid_key] = torch.ones(len(td), dtype=torch.bool)
    return result


if __name__ == "__main__":
    main()
