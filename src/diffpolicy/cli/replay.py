"""`diffpolicy replay`: a task file under its own decisions or under a policy."""

from __future__ import annotations

import argparse

from diffpolicy import _files
from diffpolicy.cli import options as opt
from diffpolicy.errors import InputError

HELP = "run a task file under its own decisions or under a policy"
EXAMPLES = (
    "diffpolicy replay --scenario fleet.json --task-file monday.csv                  # what happened",
    "diffpolicy replay --scenario fleet.json --task-file monday.csv --policy opt-ts --out greedy.csv",
    "diffpolicy replay --scenario fleet.json --task-file monday.csv --policy opt-ts --binding free",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("--scenario", required=True, metavar="SCENARIO", help="the servers that do the tasks; required")
    parser.add_argument("--task-file", metavar="FILE", help="CSV of tasks in order of arrival; required")
    parser.add_argument("--tasks", action=opt.OldSpelling, dest="task_file", instead="--task-file")
    parser.add_argument("--policy", metavar="POLICY", help="decides instead of the file's column 'server'")
    opt.add_sampler(parser)
    opt.add_binding(parser)
    parser.add_argument("--out", metavar="FILE", help="write the tasks with the columns server and delay_s")
    opt.add_common(parser)


def run(options: argparse.Namespace) -> None:
    """Checks what can be checked without torch, then plays."""
    from diffpolicy.edge.resolve import check_policy
    from diffpolicy.edge.scenario.scenario import Scenario
    from diffpolicy.edge.workload.task_file import TaskList

    if options.task_file is None:
        raise InputError("--task-file is needed, a CSV of tasks; see diffpolicy replay --help")
    scenario = Scenario.load(options.scenario)
    if options.policy is not None:
        check_policy(options.policy)
    held = opt.holding(options, scenario, [options.policy])
    if held is not None and options.policy is None:
        raise InputError(
            "--binding free needs --policy, which says which of the free servers; opt-ts takes the soonest"
        )
    tasks = TaskList.read(options.task_file, scenario, decisions=options.policy is None)
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
    if held is None or policy is None:
        result = replay(scenario, tasks, policy, name=options.policy or "recorded", seed=options.seed)
    else:
        from diffpolicy.edge.dispatch.replay import replay_held

        result = replay_held(scenario, tasks, policy, held, name=options.policy, seed=options.seed)
    if options.out is not None:
        _files.write_text(options.out, tasks.to_csv(result.server.tolist(), result.delay_s.tolist()))
    if options.json:
        opt.print_json(result.to_dict(), options)
    else:
        print(replay_table(result))
