"""`diffpolicy replay`: a task file under its own decisions or under a policy."""

from __future__ import annotations

import argparse

from diffpolicy import _files, _limits
from diffpolicy.cli import options as opt

HELP = "run a task file under its own decisions or under a policy"


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("--scenario", required=True, help="a built-in name (lad-ts, dedgeai, gpu-mix) or a JSON file")
    parser.add_argument("--tasks", required=True, metavar="FILE", help="CSV of tasks in order of arrival")
    parser.add_argument("--policy", metavar="POLICY", help="decides instead of the file's column 'server'")
    parser.add_argument("--sampler", choices=["ddpm", "ddim"], help="of a diffusion policy, instead of its own")
    parser.add_argument("--sampler-steps", type=opt.whole(1, _limits.CHAIN), metavar="K", help="of that sampler")
    parser.add_argument("--out", metavar="FILE", help="write the tasks with the columns server and delay_s")
    opt.add_common(parser)


def run(options: argparse.Namespace) -> None:
    """Checks what can be checked without torch, then plays."""
    from diffpolicy.edge.resolve import check_policy
    from diffpolicy.edge.scenario.scenario import Scenario
    from diffpolicy.edge.workload.task_file import TaskList

    scenario = Scenario.load(options.scenario)
    if options.policy is not None:
        check_policy(options.policy)
    tasks = TaskList.read(options.tasks, scenario, decisions=options.policy is None)
    if options.out is not None:
        _files.check_writable(options.out)

    from diffpolicy.edge.evaluation import replay
    from diffpolicy.edge.resolve import make_policy, resample
    from diffpolicy.edge.tables import replay_table

    opt.set_threads(options.threads)
    policy = None
    if options.policy is not None:
        policy = make_policy(options.policy, scenario, seed=options.seed)
        policy = resample(policy, options.policy, options.sampler, options.sampler_steps)
    result = replay(scenario, tasks, policy, name=options.policy or "recorded", seed=options.seed)
    if options.out is not None:
        _files.write_text(options.out, tasks.to_csv(result.server.tolist(), result.delay_s.tolist()))
    if options.json:
        opt.print_json(result.to_dict())
    else:
        print(replay_table(result))
