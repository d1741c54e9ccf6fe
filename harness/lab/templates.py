"""The templates of configuration files."""

from __future__ import annotations

import jinja2

from harness import places
from harness.errors import ConfigError

_FOLDER = places.TOPOLOGIES / "config"
_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_FOLDER),
    undefined=jinja2.StrictUndefined,
    autoescape=False,  # noqa: S701 -- configuration files, not HTML
    keep_trailing_newline=True,
)


def render(name: str, facts: dict[str, object]) -> str:
    """Render a configuration template.

    :raises ConfigError: with file and line of an invalid template.
    """
    path = _FOLDER / f"{name}.j2"
    try:
        return _TEMPLATES.get_template(f"{name}.j2").render(facts)
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"invalid template: {error.message}", where=f"{path}:{error.lineno}") from None
    except jinja2.TemplateError as error:
        raise ConfigError(f"this template cannot be rendered: {error.message}", where=str(path)) from None
