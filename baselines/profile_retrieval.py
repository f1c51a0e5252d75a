"""Profile retrieval: an LLM describes what the user would choose next, a sentence encoder ranks the catalogue by that.

The plainest decoupled reasoner: neither part is trained, and only the text passes between them. Close to the zero-shot
text rankers from which LangPTune (Gao et al., arXiv 2410.18870) and Rec-R1 (Lin et al., arXiv 2503.24289) start. Kept:
a written profile and an encoder's cosine. Left out: their trainings, which are rows of their own.
"""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from baselines._writers.popularity import PopularityMix, WithPopularity, popular, with_best_share
from benchmark.config.methods import ENCODER
from benchmark.contract import Cases, Recommender, Split
from benchmark.data.texts import PROMPT_TOKENS
from benchmark.storage.stages import Stage
from benchmark.workload import Sizes, Work, chosen_by, texts_of
from lm.settings import BackboneSettings

if TYPE_CHECKING:
    from torch import Tensor

    from baselines._writers.llm_texts import Text, Writer
    from baselines._writers.sentences import SentenceEncoder

FIT = Stage("profile_retrieval", 1)

REQUEST = (
    "These are the last {several} I chose, the newest at the end:\n{history}\n"
    "In one short sentence, describe the {category} that I will choose next."
)


class Params(PopularityMix):
    """query: the text that is looked up: the profile, or the newest titles and the profile behind them.

    max_items: history items shown; max_prompt_tokens: of a prompt, beyond which the oldest items leave; max_new_tokens:
    of a profile; encoder: folder of the sentence encoder, fetched if it is the default and isn't there; texts: folder
    of what has been written.
    """

    backbone: BackboneSettings
    encoder: str = ENCODER
    texts: str = "results/texts"
    query: Literal["profile", "titles and profile"] = "profile"
    max_items: int = Field(default=6, ge=1)
    max_prompt_tokens: int = Field(default=PROMPT_TOKENS, ge=1)
    max_new_tokens: int = Field(default=16, ge=1)


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> WithPopularity:
    """Encode the items' texts. Nothing is trained but the share of popularity, if it is a choice."""
    settings = Params.model_validate(params)
    from baselines._writers.llm_texts import Writer
    from baselines._writers.sentences import item_texts, sentence_encoder

    encoder = sentence_encoder(settings.encoder)
    writer = Writer(settings.backbone, settings.max_new_tokens, Path(settings.texts))
    items = encoder.encode(item_texts(split.items, writer.tokenizer), "encoding items")
    recommender = ProfileRetrieval(split, settings, writer, encoder, items)
    nothing = np.array([], dtype=np.int64)
    return with_best_share(
        recommender, split, popular(split), settings.popularity, settings.valid_cases, trained=nothing
    )


class ProfileRetrieval(Recommender):
    """Cosine of the profile's and the items' embeddings."""

    def __init__(
        self, split: Split, settings: Params, writer: "Writer", encoder: "SentenceEncoder", items: "Tensor"
    ) -> None:
        self.settings = settings
        self.builder = writer.builder(split, settings.max_items, settings.max_prompt_tokens)
        self.writer, self.encoder, self.items = writer, encoder, items
        self._texts = pd.DataFrame()
        self._written: list[Text] = []

    def score(self, cases: Cases) -> Iterator[np.ndarray]:
        from baselines._writers.llm_texts import as_frame

        messages = self.builder.user_messages(REQUEST, cases)
        self._written = self.writer.write([self.writer.prompt(text) for text in messages], "writing profiles")
        self._texts = as_frame(cases, messages, self._written)
        queries = [text.text for text in self._written]
        if self.settings.query == "titles and profile":
            queries = ["; ".join([*self.builder.shown(cases, i), query]) for i, query in enumerate(queries)]
        cosines = self.encoder.encode(queries, "encoding profiles") @ self.items.T
        for start in range(0, len(cases), 1024):
            yield cosines[start : start + 1024].numpy()

    def texts(self) -> pd.DataFrame:
        """case, prompt, reasoning (the profile), cut, of the cases scored last."""
        return self._texts

    def uncached(self) -> "ProfileRetrieval":
        fresh = copy.copy(self)
        fresh.writer = self.writer.without_cache()
        return fresh

    def tokens_written(self) -> int:
        return sum(text.tokens for text in self._written)

    def report(self) -> dict[str, Any]:
        """writing_seconds: that the texts took when they were written, perhaps in another run."""
        return {"writing_seconds": round(sum(text.seconds for text in self._written), 3)}


def thinking(p: dict[str, Any]) -> str:
    """What is computed before a recommendation: see `benchmark.config.methods.thinking_of`."""
    return "written"


def work(s: Sizes, p: dict[str, Any], k: int) -> list[Work]:
    """A profile per test case, and per validation case where a share of popularity is chosen."""
    return [texts_of(s, p, s.test + chosen_by(s, p, "popularity"))]
