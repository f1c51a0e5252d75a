"""Slurm's commands as scripts that write down how they were called and run the job here at once, for test_slurm.py."""

import sys
from pathlib import Path

# A job's GPUs, as Slurm gives them: the first ones. Its state is that of its command.
SBATCH = """
options, command = sys.argv[1:-1], sys.argv[-1]
assert command.startswith("--wrap="), command
number = len((folder / "calls.jsonl").read_text().splitlines()) + 1 if (folder / "calls.jsonl").exists() else 1
with (folder / "calls.jsonl").open("a") as calls:
    calls.write(json.dumps(options) + "\\n")
gpus = next((int(option.split("=")[1]) for option in options if option.startswith("--gpus=")), 0)
environment = os.environ | {"SLURM_JOB_ID": str(number), "SLURM_CPUS_PER_TASK": "1"}
environment |= {"SLURM_GPUS": str(gpus), "CUDA_VISIBLE_DEVICES": ",".join(map(str, range(gpus)))} if gpus else {}
log = options[options.index("--output") + 1].replace("%j", str(number))
done = f"; if [ $? -eq 0 ]; then echo COMPLETED; else echo FAILED; fi > {folder}/state{number}"
with open(log, "w") as out:
    subprocess.Popen(["bash", "-c", "(" + command.removeprefix("--wrap=") + ")" + done], env=environment, stdout=out,
                     stderr=out, start_new_session=True)
print(number)
"""
SRUN = """
words = sys.argv[1:]
while words[0].startswith("-"):
    words.pop(0)
os.execvp(words[0], words)
"""
SACCT = """
for call in range(1, 100):
    if (folder / f"state{call}").exists():
        print(f"{call}|{(folder / f'state{call}').read_text().strip()}")
"""
ANSWERS = {"sacctmgr": "default", "sinfo": "cpu*", "scontrol": "MinJobAge = 300 sec", "squeue": "", "scancel": ""}


def install(folder: Path) -> Path:
    """The folder with the commands."""
    programs = {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT}
    programs |= {name: f"print({answer!r})" for name, answer in ANSWERS.items()}
    (folder / "bin").mkdir(parents=True)
    for name, body in programs.items():
        path = folder / "bin" / name
        head = f"#!{sys.executable}\nimport json, os, subprocess, sys\nfrom pathlib import Path\n"
        path.write_text(f"{head}folder = Path({str(folder)!r})\n{body}")
        path.chmod(0o755)
    return folder / "bin"
