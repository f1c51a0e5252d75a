"""Snakemake as an import calls it: it ends with the import."""

import os
import signal
import subprocess
import sys

import pytest

from benchmark.transfer import workflow
from tests.support.terminal import interruptible

SAYS = """import time
try:
    print("ready", flush=True)
    time.sleep(120)
except KeyboardInterrupt:
    print("stopped")
"""
STUBBORN = """import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(120)
"""


@pytest.mark.parametrize(("code", "left"), [(SAYS, "stopped\n"), (STUBBORN, "")])
def test_it_is_interrupted_where_the_import_is_ended(code: str, left: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow, "PATIENCE", 5 if left else 0.1)
    before = signal.getsignal(signal.SIGTERM)
    process = subprocess.Popen(
        [sys.executable, "-c", code], text=True, stdout=subprocess.PIPE, preexec_fn=interruptible
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    with pytest.raises(SystemExit) as ended, workflow._ended_with_us(process):
        os.kill(os.getpid(), signal.SIGTERM)
        process.wait()
    assert ended.value.code == 128 + signal.SIGTERM and signal.getsignal(signal.SIGTERM) is before
    assert process.stdout.read() == left and process.wait(5) == (0 if left else -signal.SIGKILL)
