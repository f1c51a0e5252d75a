"""Starting a command as a terminal does, wherever the tests themselves run."""

import signal


def interruptible() -> None:
    """For `preexec_fn`: Ctrl-C reaches the command. A shell that runs the tests in the background has it ignored, and
    that is inherited.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
