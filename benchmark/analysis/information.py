"""Check that the rows of a table learned from equal data, or that the config says which ones may learn from less."""

from collections.abc import Mapping

from benchmark.config.wording import names_in_words
from benchmark.contract import Learned
from benchmark.errors import InputError

KEY = "less_information"  # of a method, or of an ablation, in the config


def check_information(
    dataset: str, learned: Mapping[tuple[str, int], Learned], permitted: Mapping[str, str]
) -> dict[str, str]:
    """The rows that the config permits to learn from less data than the others, and that did, each with its reason.

    learned: by row and seed, as in the runs' records. permitted: the reason by row. Users and targets count; positions
    follow from them. Raises InputError where a row without permission differs from the others or between its seeds, and
    where one with permission learned from more than the others.
    """
    first = {row: amount for (row, seed), amount in learned.items() if seed == 1}
    for (row, seed), amount in learned.items():
        if row not in permitted and _budget(amount) != _budget(first[row]):
            raise InputError(
                f"{dataset}: {row}: seed {seed} learned from {in_words(amount)}, but seed 1 from "
                f"{in_words(first[row])}; delete the folder of one of them and run it again"
            )
    unpermitted = {row: amount for row, amount in first.items() if row not in permitted}
    most = max((unpermitted or first).values(), key=_budget)
    others = names_in_words([row for row, amount in (unpermitted or first).items() if _budget(amount) == _budget(most)])
    for row, amount in unpermitted.items():
        if _budget(amount) != _budget(most):
            raise InputError(
                f"{dataset}: {row} learned from {in_words(amount)}, but {others} from {in_words(most)}; let it learn "
                f"from all of split.train, or give {row} {KEY} in the config, with the reason"
            )
    for (row, _), amount in learned.items():
        if amount.targets > most.targets or amount.users > most.users:
            raise InputError(
                f"{dataset}: {row} learned from {in_words(amount)}, which is more than the {in_words(most)} of "
                f"{others}, though the config gives it {KEY}; take that away and let all learn from the same data"
            )
    less = {row for (row, _), amount in learned.items() if _budget(amount) != _budget(most)}
    return {row: reason for row, reason in permitted.items() if row in less}


def _budget(learned: Learned) -> tuple[int, int]:
    return learned.targets, learned.users


def in_words(learned: Learned) -> str:
    """The amount of training data in words.

    >>> in_words(Learned(users=600, targets=77725, positions=78325)), in_words(Learned(0, 0, 0))
    ('77,725 targets of 600 users', 'nothing')
    """
    return f"{learned.targets:,} targets of {learned.users:,} users" if learned.targets or learned.users else "nothing"
