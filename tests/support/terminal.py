"""Starting a command as a terminal does, wherever the tests themselves run."""

import os
import signal


def interruptible() -> None:
    """For `preexec_fn`: Ctrl-C reaches the command. A shell that runs the tests in the background has it ignored, and
    that is inherited.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def without_make() -> dict[str, str]:
    """The environment as a shell has it, also where the tests themselves were started by make."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
