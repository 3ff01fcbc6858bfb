"""A hook of mkdocs: pages of the repository outside docs/ become pages of the website."""

import pathlib
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/results.md": "benchmarks.md",
}


def on_files(files, config):
    for source, name in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown, **_):
    """Point links at the pages of the website; files that are not pages become code."""
    return re.sub(r"\[([^][]*)\]\(([^()\s]+)\)", _adapt_link, markdown)


def _adapt_link(match):
    text, target = match.groups()
    if re.match(r"https?:|#", target):
        return match[0]
    path, mark, anchor = target.partition("#")
    path = path.removeprefix("../").removeprefix("docs/")
    path = PAGES.get(path, path)
    if path in PAGES.values() or (ROOT / "docs" / path).exists():
        return f"[{text}]({path}{mark}{anchor})"
    return text
