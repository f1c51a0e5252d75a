"""What became of faults, counted by outcome."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Outcome:
    """One line of the campaign's table."""

    fault: str
    right: tuple[str, ...]  # outcomes that are as they should be
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)  # the first of each wrong outcome

    def add(self, outcome: str, about: str = "") -> None:
        """Count one outcome."""
        self.counts[outcome] += 1
        if outcome not in self.right:
            self.examples.setdefault(outcome, about)

    @property
    def wrong(self) -> int:
        """The number of wrong outcomes."""
        return sum(count for outcome, count in self.counts.items() if outcome not in self.right)

    @property
    def row(self) -> str:
        """The line of the table in Markdown."""
        counts = ", ".join(f"{count:,} {outcome}" for outcome, count in self.counts.most_common())
        return f"| {self.fault} | {self.counts.total():,} | {counts} | {self.wrong:,} |"


def table(outcomes: list[Outcome]) -> str:
    """The whole table in Markdown, and below it the first of each wrong outcome."""
    lines = ["| fault | tried | outcome | wrong |", "|:--|--:|:--|--:|", *(outcome.row for outcome in outcomes)]
    lines += [
        f"\nwrong: {outcome.fault}: {example}: {about}"
        for outcome in outcomes
        for example, about in outcome.examples.items()
    ]
    return "\n".join(lines)
