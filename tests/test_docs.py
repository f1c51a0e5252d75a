"""README and docs: short, true about files and commands, and easy to find one's way in."""

import re
import subprocess
import sys
from functools import cache

import pandas as pd
import pytest

from benchmark.config.methods import ROOT

PAGES = [
    "README.md",
    "config/README.md",
    "results/README.md",
    "findings/README.md",
    *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
]
PUBLISHED = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "results/published").rglob("*.md"))
LONGEST_README, LONGEST_SENTENCE, LONG_PAGE = 160, 30, 120
# A file that the README tells its reader to make, and one of a server's.
ELSEWHERE = {"baselines/latest.py", "benchmark/0core/rating_only/{category}.csv.gz"}


@cache
def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def prose(text: str) -> list[str]:
    """The paragraphs and bullets of a page, without code, tables, headings and comments; of links only the words."""
    text = re.sub(r"^```.*?^```$|<!--.*?-->", "", text, flags=re.S | re.M)
    text = re.sub(r"(?<=\n\n)(?: {4}.*\n)+", "", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"[*\"]", "", text)  # emphasis and quotes, which would stand behind full stops
    lines = ["" if re.match(r"\||#", line) else line for line in text.splitlines()]
    blocks = re.split(r"\n\s*\n|\n(?=\s*(?:-|\d+\.) )", "\n".join(lines))
    return [" ".join(block.split()) for block in blocks if block.strip()]


def sentences(paragraph: str) -> list[str]:
    """Split where a sentence ends.

    >>> sentences("It is .5 of 1.2.1. Yes (by `a.py`.) No.")
    ['It is .5 of 1.2.1.', 'Yes (by `a.py`.)', 'No.']
    """
    return re.split(r"(?:(?<=[.!?])|(?<=[.!?]\)))\s+(?=[A-Z`(\[\d.])", paragraph)


def words(sentence: str) -> int:
    return sum(any(letter.isalnum() for letter in word) for word in sentence.split())


def slugs(text: str) -> list[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M)
    heads = re.findall(r"^#+ (.+)$", text, flags=re.M)
    return [re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads]


def code_in(text: str) -> str:
    """The fenced and indented blocks and the code within sentences."""
    fenced, rest = (
        re.findall(r"^```.*?^```$", text, flags=re.S | re.M),
        re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M),
    )
    return "\n".join([*fenced, *re.findall(r"^ {4}.+$", rest, flags=re.M), *re.findall(r"`[^`]+`", rest)])


def makefile() -> str:
    return (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")


def written() -> list[str]:
    """The folders of results/ that runs write: what `make clean-results` removes."""
    pattern = re.search(r"^WRITTEN := (.+)$", makefile(), flags=re.M)
    assert pattern
    return pattern[1].split()


def test_readme_is_short() -> None:
    assert len(text_of("README.md").splitlines()) <= LONGEST_README


@pytest.mark.parametrize("page", PAGES)
def test_no_sentence_is_long(page: str) -> None:
    text = re.sub(
        r"<!-- BEGIN table.*?<!-- END table -->", "", text_of(page), flags=re.S
    )  # their captions are the tables' own
    long = [sentence for part in prose(text) for sentence in sentences(part) if words(sentence) > LONGEST_SENTENCE]
    assert not long, f"{page}: over {LONGEST_SENTENCE} words: {long}"


def test_sentences_are_told_apart() -> None:
    text = "# A. B\n\nOne `a.b` [two\nthree](x.md). Four!\n\n- Five. **Six.** Seven\n- Eight\n\n| no. |\n\n"
    text += "```\nno. code\n```\n"
    split = [sentence for part in prose(text) for sentence in sentences(part)]
    assert [words(sentence) for sentence in split] == [4, 1, 1, 1, 1, 1]


def test_readme_says_no_number_twice() -> None:
    """Measured numbers count, without those of the table; also one at the end of a sentence."""
    text = re.sub(r"<!-- BEGIN table.*?<!-- END table -->|```.*?```|\]\([^)]*\)", "", text_of("README.md"), flags=re.S)
    pattern = re.compile(r"(?<![\w.-])[+-]?\d*\.\d+(?!\w|\.\d)")
    assert pattern.findall("of 1.2.1: .07 and .07.") == [".07", ".07"]
    numbers = pattern.findall(text)
    assert numbers and len(set(numbers)) == len(numbers), numbers


def test_readmes_answer_is_that_of_the_published_run() -> None:
    frame = pd.read_csv(ROOT / "results/published/default/tables/against.csv")
    row = frame[(frame["dataset"] == "all datasets") & (frame["method"] == "r2ec_no_reasoning")].iloc[0]
    answer = text_of("README.md").partition("## The answer so far")[2].partition("\n## ")[0]
    for sign, value in (("+", row.difference), ("+", row.low), ("+", row.high), ("", row.detectable)):
        assert f"{value:{sign}.4f}".replace("0.", ".", 1) in answer, f"README.md: {value:{sign}.4f} is published"
    assert (row.p >= 0.05) == ("no evidence that" in " ".join(answer.split()))


def cell(row: pd.Series, column: str) -> str:
    return f"{row[column]:.4f}".replace("0.", ".", 1)


def test_the_tables_made_by_hand_are_of_the_published_runs() -> None:
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text_of("docs/results.md").splitlines()
        if line[:1] == "|"
    ]
    against = pd.read_csv(ROOT / "results/published/decoupled/tables/against.csv").set_index(["dataset", "method"])
    rows = {line[0].strip("`"): line for line in lines if line[0].startswith("`") and len(line) == 11}
    datasets = ("ml-100k", "movielens-2016", "complete-journey")
    thinking = pd.read_csv(ROOT / "results/published/decoupled/tables/thinking.csv").set_index("method")
    seconds = pd.read_csv(ROOT / "results/published/latency/latency.csv").set_index("method").alone_s
    assert len(rows) + 1 == len(thinking) == len(seconds)  # R2ec's own row is bold
    assert set(rows) == set(against.index.get_level_values("method"))
    for method, line in rows.items():
        of_each = [against.loc[dataset, method] for dataset in datasets]
        assert line[1:4] == [cell(row, "mean") + ("†" if row.p_holm < 0.05 else "") for row in of_each], method
        row = against.loc["all datasets", method]
        assert line[4:6] == [f"{row.difference:+.4f}", f"[{row.low:+.4f}, {row.high:+.4f}]"], method
        assert line[6:8] == [f"{row.p:.2g}", f"{row.p_holm:.2g}"], method
        assert line[9] == f"{thinking.tokens[method]:.0f}", method
        assert float(line[10]) == pytest.approx(seconds[method], rel=0.06, abs=1e-4), method
    main = pd.read_csv(ROOT / "results/published/slices/tables/main.csv").set_index(["dataset", "method"])
    slices = {
        "Video Games": "video-games",
        "Industrial and Scientific": "industrial-and-scientific",
        "CDs and Vinyl": "cds-and-vinyl",
    }
    for name, dataset in slices.items():
        (line,) = (line for line in lines if line[0] == name)
        rows = main.loc[f"amazon-2018-{dataset}"]  # in the table's order
        published = [cell(row, "NDCG@10") + ("†" if row["NDCG@10_p_holm"] < 0.05 else "") for _, row in rows.iterrows()]
        assert [value.replace("*", "") for value in line[1:]] == published, name
    means = main["NDCG@10"].groupby("method", sort=False).mean()
    (line,) = (line for line in lines if line[0] == "mean")
    assert [value.strip("*†") for value in line[1:]] == [f"{value:.4f}".replace("0.", ".", 1) for value in means]


def test_ratios_to_sasrec_are_right_and_ours_are_of_the_published_runs() -> None:
    table = text_of("docs/reproductions.md").partition("| source |")[2].partition("\n\n")[0]
    lines = [[cell.strip().rstrip("\\*") for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    assert len(lines) == 18
    for line in lines:
        if line[3] != "misprint":
            assert f"{float(line[3]) / float(line[4]):.2f}" == line[5], line
    ours = [f"results/published/{run}/tables/main.csv" for run in ("default", "slices")]
    main = pd.concat([pd.read_csv(ROOT / path) for path in ours]).set_index(["dataset", "method"])["NDCG@10"]
    for line in lines[-6:]:
        shop = f"amazon-2018-{line[2].removesuffix(' of 2018').lower().replace(' ', '-')}"
        dataset = shop if "2018" in line[2] else line[2]
        assert line[3:5] == [f"{main[dataset, method]:.4f}".lstrip("0") for method in ("r2ec", "sasrec")], line


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```$", "", text_of(page), flags=re.S | re.M)):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (ROOT / page).parent / path if path else ROOT / page
        assert linked.exists(), f"{page}: {target}: no such file"
        if anchor:
            assert anchor in slugs(linked.read_text(encoding="utf-8")), f"{page}: {target}: no such heading"


def exists(path: str) -> bool:
    """Whether a path, with {placeholders} and a missing ending filled in, is in the checkout or written by a run."""
    first, _, rest = path.partition("/")
    if path in ELSEWHERE or (first == "results" and rest.split("/")[0] in written()):
        return True
    pattern = re.sub(r"\{[^}]*\}", "*", path).rstrip("/")
    return any(any(ROOT.glob(pattern + ending)) for ending in ("", ".*"))


@pytest.mark.parametrize("page", [*PAGES, *PUBLISHED])
def test_every_path_is_in_the_checkout_or_written_by_a_run(page: str) -> None:
    text = re.sub(r"\]\([^)]*\)", "]", text_of(page))
    top = "benchmark|baselines|lm|r2ec|workflow|config|results|docs|tests|install"
    for path in re.findall(rf"(?<![\w/.\-])((?:{top})/(?:[\w./*-]|\{{[^}}]*\}})*(?:[\w/]|\{{[^}}]*\}}))", text):
        assert exists(path), f"{page}: {path} is neither in the checkout nor written by a run"


def test_results_readme_names_all_that_runs_write() -> None:
    for folder in written():
        assert f"`{folder}/" in text_of("results/README.md"), f"results/README.md doesn't say what {folder}/ is"


@pytest.mark.parametrize("page", PAGES)
def test_every_target_of_make_exists(page: str) -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", makefile(), flags=re.M))
    for name in re.findall(r"\bmake ([a-z][a-z-]*)", code_in(text_of(page))):
        assert name in targets, f"{page}: make {name}: no such target"


def test_every_command_exists() -> None:
    help_text = subprocess.run(
        [sys.executable, "-m", "benchmark.cli", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    known = set(re.findall(r"^ {4}([a-z][a-z-]*)(?: |$)", help_text.stdout, flags=re.M))
    assert {"run", "quick"} <= known, help_text.stderr
    for page in PAGES:
        unknown = set(re.findall(r"^`?r2ec-bench ([a-z][a-z-]*)", code_in(text_of(page)), flags=re.M)) - known
        assert not unknown, f"{page}: r2ec-bench has no {unknown}"


@pytest.mark.parametrize("page", [page for page in PAGES if page != "README.md"])
def test_a_page_begins_with_a_summary_and_a_long_one_with_its_contents(page: str) -> None:
    text = text_of(page)
    beginning = text.partition("\n## ")[0]
    assert beginning.startswith("# ")
    summary = prose(beginning)[0]
    assert not summary.startswith(("-", "Contents")) and 2 <= len(sentences(summary)) <= 5, f"{page}: {summary}"
    if len(text.splitlines()) > LONG_PAGE:
        sections = slugs("\n".join(line for line in text.splitlines() if not line.startswith("###")))[1:]
        missing = set(sections) - set(re.findall(r"\]\(#([^)]+)\)", beginning))
        assert not missing, f"{page}: the contents list leaves out {missing}"


def test_every_finding_is_listed_with_its_first_sentence() -> None:
    listed = dict(re.findall(r"^\| \[[^]]+\]\(([^)]+)\) \| (.*) \|$", text_of("findings/README.md"), flags=re.M))
    assert sorted(listed) == sorted(path.name for path in (ROOT / "findings").glob("*.sh"))
    for name, row in listed.items():
        head = text_of(f"findings/{name}").splitlines()[1].removeprefix("# ")
        software, _, says = head.partition(": ")
        assert row.replace("`", "").lower().startswith(f"{software} | {says}"[:60].replace("`", "").lower()), name
