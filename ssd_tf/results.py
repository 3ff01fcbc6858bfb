"""The results of `train`, `evaluate` and `export`, which a notebook shows as table and images."""

import collections.abc
import dataclasses
import html
import pathlib
import typing

from rich.table import Column, Table


@dataclasses.dataclass(frozen=True, eq=False)
class Result(collections.abc.Mapping[str, typing.Any]):
    """What a command has measured and written; a notebook shows it as a table and images.

    `result["coco"]` is short for `result.metrics["coco"]`.

    folder: of its files; None if nothing was written. metrics: numbers and texts by name. paths:
    its files by what they are. header, rows: the table, as texts. images: {caption: data URI}.
    """

    folder: pathlib.Path | None
    metrics: dict[str, typing.Any]
    paths: dict[str, pathlib.Path] = dataclasses.field(default_factory=dict)
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    images: dict[str, str] = dataclasses.field(default_factory=dict)

    def __getitem__(self, key: str) -> typing.Any:
        return self.metrics[key]

    def __iter__(self) -> collections.abc.Iterator[str]:
        return iter(self.metrics)

    def __len__(self) -> int:
        return len(self.metrics)

    def __repr__(self) -> str:
        numbers = "; ".join(" ".join(filter(None, row)) for row in self.rows)
        return f"<Result in {self.folder}: {numbers}>"

    def as_table(self) -> Table:
        """The table for a terminal."""
        table = Table(*(Column(name, no_wrap=not index) for index, name in enumerate(self.header)))
        for row in self.rows:
            table.add_row(*row)
        return table

    def _repr_html_(self) -> str:
        header = "".join(f"<th>{html.escape(text)}</th>" for text in self.header)
        rows = "".join(
            f"<tr>{''.join(f'<td>{html.escape(text)}</td>' for text in row)}</tr>"
            for row in self.rows
        )
        files = "".join(
            f"<li>{html.escape(name)}: <code>{html.escape(str(path))}</code></li>"
            for name, path in self.paths.items()
        )
        images = "".join(
            f'<figure><img src="{source}" style="max-width: 100%">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
            for caption, source in self.images.items()
        )
        return f"<table><tr>{header}</tr>{rows}</table><ul>{files}</ul>{images}"

    def _repr_markdown_(self) -> str:
        lines = [self.header, ("--",) * len(self.header), *self.rows] if self.header else []
        table = [f"| {' | '.join(_escape(text) for text in row)} |" for row in lines]
        files = [f"- {name}: `{path}`" for name, path in self.paths.items()]
        images = [f"![{_escape(caption)}]({source})" for caption, source in self.images.items()]
        return "\n".join([*table, "", *files, "", *images])


def _escape(text):
    """A text as a cell of a table of Markdown."""
    return text.replace("|", "\\|").replace("\n", " ")
