"""Conversations as the text a model was trained on: its own chat template."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from rf8.checkpoint.tokenizer import named_tokens, read_object
from rf8.errors import DataError

Message = dict[str, str]
"""``role`` ("system", "user" or "assistant") and ``content``."""


class ChatTemplate:
    """The chat template among a model's files, rendered as transformers' apply_chat_template does.

    Templates are programs that come with a model: they run in Jinja's sandbox, and see messages and
    the names of special tokens alone.

    Raises
    ------
    DataError
        Where there is none, or one that is broken. ``model`` is its name in messages.
    """

    def __init__(self, files: dict[str, bytes], model: str) -> None:
        text = _template_text(files, model)
        if text is None:
            raise DataError(
                f"{model} has no chat template: leave --chat out and give a text to continue, or "
                "put its chat_template.jinja beside tokenizer.json"
            )
        self._model, self._tokens = model, named_tokens(files)
        try:
            self._template = _environment().from_string(text)
        except Exception as error:  # of Jinja, or of Python where the template computes
            raise DataError(f"the chat template of {model} is broken: {error}") from error

    def render(self, messages: list[Message]) -> str:
        """The conversation as text, ending where the answer begins.

        Raises
        ------
        DataError
            Where the template refuses the messages, for instance a system message.
        """
        try:
            found: str = self._template.render(
                messages=messages, tools=None, documents=None, add_generation_prompt=True,
                **self._tokens,
            )  # fmt: skip
        except Exception as error:  # as above
            raise DataError(f"the chat template of {self._model} stops: {error}") from error
        return found


def _template_text(files: dict[str, bytes], model: str) -> str | None:
    """The template: of a file of its own, of tokenizer_config.json, of chat_template.json; of
    several the one named "default"."""
    if "chat_template.jinja" in files:
        try:
            return files["chat_template.jinja"].decode()
        except UnicodeDecodeError as error:
            raise DataError(f"chat_template.jinja of {model} is no UTF-8: {error}") from error
    for name in ("tokenizer_config.json", "chat_template.json"):
        found = read_object(files, name).get("chat_template")
        if isinstance(found, list):
            found = {part.get("name"): part.get("template") for part in found}
        if isinstance(found, dict):
            if "default" not in found:
                names = ", ".join(map(str, found))
                raise DataError(f"{name} of {model}: no chat template is named default: {names}")
            found = found["default"]
        if isinstance(found, str):
            return found
        if found is not None:
            raise DataError(f"{name} of {model}: chat_template is {found!r}, must be text")
    return None


def _environment() -> Any:
    """Jinja with what templates expect: the same names and settings as in transformers."""
    from jinja2 import nodes
    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """``{% generation %}`` marks answers for training; here it is just what it holds."""

        tags = {"generation"}  # noqa: RUF012 - as Jinja has it

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        # Jinja's own escapes for HTML.
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda layout: datetime.now().strftime(layout)
    return environment
