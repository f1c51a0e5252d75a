"""Behaviours of a text, each a pattern that everybody can read.

The paper counts seven behaviours in 100 texts (its Figure 4 and Section 4.5), by people and GPT-4.1. These are rules of
our own for what such texts do, and not its categories. A rule sees words, so that it is believed only as far as two
raters agree with each other and with it (`benchmark.behaviours.ratings`).
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Behaviour:
    """A name, what a rater is asked, and the pattern by which a text has it."""

    name: str
    asks: str
    pattern: re.Pattern[str]

    def in_text(self, text: str) -> bool:
        """Whether the pattern is found anywhere in a text."""
        return self.pattern.search(text) is not None


def _words(*stems: str) -> re.Pattern[str]:
    """Any of these, each a regular expression that begins and ends with a word."""
    return re.compile(rf"\b(?:{'|'.join(stems)})\b", re.IGNORECASE)


BEHAVIOURS = (
    Behaviour(
        "names an item",
        "Does the text name a particular item by its title?",
        # A title in quotes, a year in brackets, or two words with capitals within a sentence.
        re.compile(
            r"[\"“][^\"”]{2,}[\"”]|\((?:19|20)\d\d\)|(?<=[a-z,] )[A-Z][\w'&-]+(?: (?:of|the|and|in))* [A-Z][\w'&-]+"
        ),
    ),
    Behaviour(
        "states a preference",
        "Does the text say what the user likes or dislikes?",
        _words(r"likes?", r"liked", r"loves?", r"enjoy(?:s|ed)?", r"prefer(?:s|red|ences?)?", r"favou?rites?",
               r"fans? of", r"interest(?:s|ed)? in", r"dislikes?", r"taste for"),
    ),
    Behaviour(
        "speaks of a kind",
        "Does the text speak of a kind of items: a genre, a category, a brand, a theme?",
        _words(r"genres?", r"categor(?:y|ies)", r"series", r"themes?", r"styles?", r"brands?", r"types?", r"kinds?",
               r"films?|movies?|games?|albums?|products?"),
    ),
    Behaviour(
        "follows the order",
        "Does the text speak of when or in which order the user took items?",
        _words(r"recent(?:ly)?", r"lately", r"latest", r"last", r"first", r"next", r"before", r"after(?:wards)?",
               r"then", r"(?:years?|months?|weeks?|days?|hours?|minutes?) ago"),
    ),
    Behaviour(
        "weighs ratings",
        "Does the text speak of how the user or others rated items?",
        _words(r"rat(?:ed|ings?|es?)", r"stars?", r"scores?", r"scored", r"reviews?", r"\d(?:\.\d)? (?:out of|/) ?\d"),
    ),
    Behaviour(
        "compares",
        "Does the text compare items, or hold one against another?",
        _words(r"similar", r"compar(?:e|ed|es|ison)", r"than", r"unlike", r"whereas", r"however", r"both",
               r"in contrast"),
    ),
    Behaviour(
        "concludes",
        "Does the text conclude what the user may want next?",
        _words(r"recommend(?:s|ed|ations?)?", r"suggests?", r"therefore", r"likely", r"might", r"would", r"should",
               r"will (?:like|enjoy|love|want|buy|watch)"),
    ),
)  # fmt: skip
