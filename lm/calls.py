"""Whether a call of a module is its class's forward and nothing else, so that other code may stand in for it."""

from torch import nn
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks


def hooks_on_all() -> bool:
    """Whether torch calls a hook around every module."""
    return bool(_global_forward_hooks or _global_forward_pre_hooks)


def is_called_plainly(module: nn.Module) -> bool:
    """Whether a module has no hook, and no forward of its own in the place of its class's."""
    return not (module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))
