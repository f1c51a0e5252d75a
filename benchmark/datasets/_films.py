"""Rewrite titles of MovieLens as a person would write them, and merge films that the catalogue holds more than once."""

import re

import pandas as pd

# Articles that MovieLens puts behind a comma: English first, then those of other languages that occur in it.
ARTICLES = ("The", "A", "An", "La", "Le", "Les", "L'", "L’", "Un", "Une", "El", "Los", "Las", "Lo", "Il", "I", "Der",
            "Die", "Das", "Det", "Den", "De", "En", "O", "Da")  # fmt: skip
# An article at the end of a title, at the end of brackets, or before a colon; and one behind brackets.
BEHIND = re.compile(rf"(?:(?<=[()])|^)(?P<name>[^()]*[^()\s]),\s*(?P<article>{'|'.join(ARTICLES)})(?=\s*(?:[():]|$))")
AT_THE_END = re.compile(rf"(?P<name>.*[)]),\s*(?P<article>{'|'.join(ARTICLES)})", re.DOTALL)
ALIAS = re.compile(r"(\s*(?:a\.k\.a\.\s+)?)(.*)", re.DOTALL)
YEAR = re.compile(r"(.*\S)\s*[(](\d{4})[)]", re.DOTALL)


def article_first(title: str) -> str:
    """A title with its article, and that of a title in brackets, where they are spoken.

    >>> article_first("Crow, The"), article_first("Good, the Bad and the Ugly, The")
    ('The Crow', 'The Good, the Bad and the Ugly')
    >>> article_first("Samouraï, Le (Godson, The)"), article_first("Enfer, L'")
    ('Le Samouraï (The Godson)', "L'Enfer")
    >>> article_first("Librarian, The: The Curse of the Judas Chalice")
    'The Librarian: The Curse of the Judas Chalice'
    >>> article_first("Macbeth (a.k.a. Tragedy of Macbeth, The)")
    'Macbeth (a.k.a. The Tragedy of Macbeth)'
    >>> article_first("Human Centipede II (Full Sequence), The"), article_first("Trilogy: One: Two, A")
    ('The Human Centipede II (Full Sequence)', 'A Trilogy: One: Two')
    >>> article_first("Play It Again, Sam"), article_first("Crazy, Stupid, Love.")
    ('Play It Again, Sam', 'Crazy, Stupid, Love.')
    """

    def turned(match: re.Match[str]) -> str:
        before, name = ALIAS.fullmatch(match["name"]).groups()  # type: ignore[union-attr]
        space = "" if match["article"].endswith(("'", "’")) else " "
        return f"{before}{match['article']}{space}{name}"

    return AT_THE_END.sub(turned, BEHIND.sub(turned, title))


def year_apart(title: str, year: str) -> tuple[str, str]:
    """Title and year. Where the column `year` holds no year, it is taken from the title's end; "" where that has none.

    >>> year_apart("The Time of the Great Giving (1995)", "V"), year_apart("unkonwn", "unkonwn")
    (('The Time of the Great Giving', '1995'), ('unkonwn', ''))
    >>> year_apart("1941 (1979)", "1979")
    ('1941 (1979)', '1979')
    """
    if re.fullmatch(r"\d{4}", year):
        return title, year
    match = YEAR.fullmatch(title)
    return (match[1], match[2]) if match else (title, "")


def merged(log: pd.DataFrame, films: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """The log and the films with those merged that differ in nothing but item_id, and the number of films that went.

    The first in the catalogue stays, and with it the interactions of the others. Films without a title aren't merged.
    """
    columns = [name for name in films.columns if name != "item_id"]
    titled = films[films["title"].fillna("").str.strip() != ""]
    first = titled.groupby(columns, sort=False, dropna=False)["item_id"].transform("first")
    other = first != titled["item_id"]
    to = dict(zip(titled["item_id"][other], first[other], strict=True))
    kept = films[~films["item_id"].isin(to)].reset_index(drop=True)
    return log.assign(item_id=log["item_id"].replace(to) if to else log["item_id"]), kept, len(to)
