"""Run a module with N GPUs of its own in P processes: `python -m benchmark.jobs.launch --gpus N --processes P MODULE`.

The job sees these GPUs and no others, and none where N is 0. torchrun starts several processes, each with its rank in
the environment, as accelerate and transformers' Trainer expect it. This command becomes the job by `exec`, so that the
locks on the GPUs end with the job.
"""

import argparse
import os
import sys
from pathlib import Path

from benchmark.errors import InputError, command
from benchmark.jobs.gpus import LOCKS, hold
from benchmark.processes import end_with_parent
from benchmark.sandbox.seal import seal

SUPERVISOR = "R2EC_BENCH_SUPERVISOR"  # in the environment: the number of the process that watches this job
LAUNCHER = "R2EC_BENCH_LAUNCHER"  # in the environment: the number of torchrun's process, of those that it starts


def is_main_process() -> bool:
    """Whether this process is the one that writes: the only one, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def process_count() -> int:
    """How many processes torchrun has started together; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def end_with_launcher() -> None:
    """Let the kernel kill this process when torchrun dies: no process keeps a GPU behind a freed lock.

    Imports take seconds before this is called; where torchrun has died meanwhile, this process ends here.
    """
    if launcher := os.environ.pop(LAUNCHER, ""):
        end_with_parent(int(launcher))


def environment(gpus: list[str], processes: int) -> dict[str, str]:
    """The environment of a job with these entries of CUDA_VISIBLE_DEVICES; its processes share its threads.

    This process becomes their launcher.
    """
    # Numbers are nvidia-smi's, which counts in the order of the PCI bus.
    variables = dict(os.environ) | {"CUDA_VISIBLE_DEVICES": ",".join(gpus), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    threads = variables.get("OMP_NUM_THREADS", "")
    if processes > 1:
        variables[LAUNCHER] = str(os.getpid())
        if threads.isdigit():
            variables["OMP_NUM_THREADS"] = str(max(1, int(threads) // processes))
    return variables


def command_line(module: list[str], processes: int) -> list[str]:
    """Python's arguments for a module and its own arguments, in so many processes of this machine."""
    if processes == 1:
        return [sys.executable, "-m", *module]
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, "-m", *torchrun, "-m", *module]


@command
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmark.jobs.launch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--gpus", type=int, default=0, help="GPUs of the job")
    parser.add_argument("--processes", type=int, default=1, help="processes that train together")
    parser.add_argument(
        "--locks", type=Path, default=LOCKS, help="folder of the locks, one for all jobs of the machine"
    )
    parser.add_argument(
        "--seal",
        action="store_true",
        help="run a method without access to test targets and to files that aren't its own",
    )
    parser.add_argument("module", nargs=argparse.REMAINDER, help="the module, and its own arguments")
    args = parser.parse_args()
    if supervisor := os.environ.pop(SUPERVISOR, ""):
        end_with_parent(int(supervisor))
    if args.gpus < 0 or args.processes < 1:
        raise InputError(f"--gpus {args.gpus} --processes {args.processes}: at least 0 GPUs and 1 process")
    if not args.module:
        raise InputError("no module is named; give one, such as benchmark.jobs.run, and its arguments behind it")
    gpus = [gpu.entry for gpu in hold(args.gpus, args.locks)]
    line = command_line(args.module, args.processes)
    variables = environment(gpus, args.processes)
    if args.seal:
        variables |= seal(args.module[1:])
    os.execve(line[0], line, variables)


if __name__ == "__main__":
    main()
