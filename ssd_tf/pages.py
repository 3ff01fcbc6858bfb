"""HTML pages made from templates.

They have one style and images that enlarge when clicked, and need no network.
"""

import functools
import pathlib

import jinja2

_TEMPLATES = pathlib.Path(__file__).with_name("templates")


@functools.cache  # it keeps the templates, which take longer to compile than to fill in
def make_environment(*folders) -> jinja2.Environment:
    """The environment of the templates in these folders and in ssd_tf/templates."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, _TEMPLATES]),
        autoescape=True,
        undefined=jinja2.ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["fixed"] = lambda value, digits: f"{value:.{digits}f}"
    return environment
