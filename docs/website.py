"""A hook of mkdocs: pages for the files outside docs/, and a list of all modules."""

import ast
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
    files.append(File.generated(config, "files.md", content="\n".join(_list_modules())))
    return files


def _list_modules():
    """The lines of a page with the first line of each module's docstring."""
    yield "# Files\n"
    for package in ("ssd_tf", "data_tools"):
        for path in sorted((ROOT / package).rglob("__init__.py")):
            yield f"\n## {path.parent.relative_to(ROOT)}\n\n{_first_line(path)}\n"
            yield "| file | content |\n| -- | -- |"
            for module in sorted(path.parent.glob("*.py")):
                if module != path:
                    yield f"| `{module.name}` | {_first_line(module)} |"


def _first_line(path):
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    return docstring.partition("\n")[0].replace("|", "\\|")


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
