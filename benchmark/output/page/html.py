"""Put the page's one file together: the document, the compressed parts, the scripts and the style.

Text of data or models never becomes markup: the template escapes it, JSON is written without "<", parts are base64. A
policy in the page itself allows only the script whose hash it names, and no request at all.
"""

import base64
import gzip
import hashlib
import json
import re
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from benchmark.errors import InputError

PACKAGE = "benchmark.output.page"
LIBRARIES = ("d3.min.js", "plot.umd.min.js", "table-core.min.js")
SCRIPTS = (
    "dom",
    "store",
    "charts",
    "tables",
    "leaderboard",
    "pair",
    "thinking",
    "ablations",
    "headroom",
    "cases",
    "reasonings",
    "provenance",
    "app",
)


@cache
def asset(name: str) -> str:
    """The text of a file of this package."""
    return files(PACKAGE).joinpath(name).read_text(encoding="utf-8")


@cache
def library(name: str) -> str:
    """A library of vendor/. Raises InputError where it isn't the one that vendor/versions.txt names."""
    text = asset(f"vendor/{name}")
    lines = (line.split("  ") for line in asset("vendor/versions.txt").splitlines() if not line.startswith("#"))
    expected = {file: sha for sha, file, _ in lines}
    if hashlib.sha256(text.encode()).hexdigest() != expected[name]:
        raise InputError(f"vendor/{name}: isn't the file of vendor/versions.txt; take it from the package named there")
    return text


def script() -> str:
    """All scripts as one: the libraries, then ours in a scope of their own."""
    own = "\n".join(asset(f"assets/{name}.js") for name in SCRIPTS)
    libraries = [re.sub(r"\n?//# sourceMappingURL=\S+", "", library(name)) for name in LIBRARIES]  # which nobody has
    return "\n".join([*libraries, f'(() => {{\n"use strict";\n{own}\n}})();'])


def as_json(value: Any) -> str:
    r"""JSON that can stand in a script element.

    >>> as_json({"title": "</script><b>"})
    '{"title":"\\u003c/script>\\u003cb>"}'
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def packed(value: Any) -> str:
    """JSON, compressed and in base64; the same value gives the same text."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=6, mtime=0)).decode("ascii")


def policy(text: str) -> str:
    """The Content-Security-Policy that allows this script alone and no request."""
    sha = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
    return (
        f"default-src 'none'; script-src 'sha256-{sha}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def render(document: dict[str, Any], parts: dict[str, Any]) -> str:
    """The whole page."""
    environment = Environment(
        loader=PackageLoader(PACKAGE, "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = script()
    return environment.get_template("page.html.jinja").render(
        title=document["answer"]["title"],
        said=document["answer"]["said"],
        more=document["answer"]["more"],
        note=document["note"],
        policy=policy(text),
        style=Markup(asset("assets/style.css")),
        script=Markup(text),
        document=Markup(as_json(document)),
        parts=[(name, packed(value)) for name, value in parts.items()],
    )
