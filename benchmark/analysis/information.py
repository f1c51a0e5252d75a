"""What rows of a table learned from, and the refusal to compare rows that learned from unequal data without saying
so."""

from collections.abc import Mapping

from benchmark.config.wording import names_in_words
from benchmark.contract import Learned
from benchmark.errors import InputError

KEY = "less_information"  # of a method, or of an ablation, in the config


def check_information(
    dataset: str, learned: Mapping[tuple[str, int], Learned], permitted: Mapping[str, str]
) -> dict[str, str]:
    """Of the rows that the config permits to learn from less, those that did, each with its reason.

    learned: by row and seed, as in the runs' records. permitted: the reason by row. Users and targets count; positions
    follow from them. Raises InputError where a row without permission differs from the others or between its seeds, and
    where one with permission learned from more than the others.
    """
    first = {row: one for (row, seed), one in learned.items() if seed == 1}
    for (row, seed), one in learned.items():
        if row not in permitted and _budget(one) != _budget(first[row]):
            raise InputError(
                f"{dataset}: {row}: seed {seed} learned from {in_words(one)}, but seed 1 from {in_words(first[row])}; "
                "delete the folder of one of them and run it again"
            )
    held = {row: one for row, one in first.items() if row not in permitted}
    most = max((held or first).values(), key=_budget)
    others = names_in_words([row for row, one in (held or first).items() if _budget(one) == _budget(most)])
    for row, one in held.items():
        if _budget(one) != _budget(most):
            raise InputError(
                f"{dataset}: {row} learned from {in_words(one)}, but {others} from {in_words(most)}; let it learn from "
                f"all of split.train, or give {row} {KEY} in the config, with the reason"
            )
    for (row, _), one in learned.items():
        if one.targets > most.targets or one.users > most.users:
            raise InputError(
                f"{dataset}: {row} learned from {in_words(one)}, which is more than the {in_words(most)} of {others}, though the "
                f"config gives it {KEY}; take that away and let all learn from the same data"
            )
    less = {row for (row, _), one in learned.items() if _budget(one) != _budget(most)}
    return {row: reason for row, reason in permitted.items() if row in less}


def _budget(learned: Learned) -> tuple[int, int]:
    return learned.targets, learned.users


def in_words(learned: Learned) -> str:
    """How much that is.

    >>> in_words(Learned(users=600, targets=77725, positions=78325)), in_words(Learned(0, 0, 0))
    ('77,725 targets of 600 users', 'nothing')
    """
    return f"{learned.targets:,} targets of {learned.users:,} users" if learned.targets or learned.users else "nothing"
