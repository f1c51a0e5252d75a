"""What every section of the config has in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from benchmark.config.wording import NAME

TABLES_OF_ALL = ("main", "costs", "against", "thinking")  # files of results/tables that are no dataset's

Name = Annotated[str, Field(pattern=NAME)]  # a row, a file and a folder have it


class Strict(BaseModel):
    """A section of the config: unknown keys are errors, and so are numbers that aren't finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
