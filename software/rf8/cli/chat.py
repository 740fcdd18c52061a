"""``rf8 run --chat``: conversations in the model's own chat template."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from rf8.checkpoint.chat import ChatTemplate, Message
from rf8.cli.generate import Generated, Text, generate
from rf8.console import notes
from rf8.errors import DataError, UsageError
from rf8.program.image import Program
from rf8.runtime.session import Session

COMMANDS = "/reset forgets the conversation, /exit ends it"


class Conversation:
    """What was said so far, and the model's way of writing it down.

    Raises
    ------
    DataError
        Where the model has no chat template or no tokenizer.
    """

    def __init__(self, program: Program, system: str | None) -> None:
        self._template = ChatTemplate(program.files, program.model)
        self._tokenizer, self._program = program.tokenizer(), program
        if self._tokenizer is None:
            raise DataError(f"{program.model} has no tokenizer.json, and a chat needs one")
        self._system: list[Message] = []
        if system is not None:
            self._system = [{"role": "system", "content": system}]
        self._said = list(self._system)

    def reset(self) -> None:
        """Forget what was said, but for the system message."""
        self._said = list(self._system)

    def ids(self, question: str) -> list[int]:
        """The tokens of the conversation with a further question.

        Raises
        ------
        UsageError
            Where they leave no room for an answer.
        """
        text = self._template.render([*self._said, {"role": "user", "content": question}])
        ids = list(self._tokenizer.encode(text, add_special_tokens=False).ids)
        context = self._program.context
        if len(ids) > context:
            raise UsageError(
                f"the conversation has {len(ids)} tokens, the context {context}: shorten it"
            )
        return ids

    def answer(
        self,
        session: Session,
        question: str,
        max_new_tokens: int | None,
        *,
        quiet: bool,
        **options: Any,
    ) -> Generated:
        """Ask, and show the answer as it comes.

        ``max_new_tokens``: at most; as many as the context has room for, if None. ``options``: as
        of `Session.stream`.
        """
        ids = self.ids(question)
        room = self._program.context - len(ids) + 1
        most = room if max_new_tokens is None else min(max_new_tokens, room)
        text = Text(self._program, quiet=quiet, hidden=self._program.eos)
        found = generate(session, ids, most, text, resume=True, **options)
        if not found.ids or found.ids[-1] not in self._program.eos:
            limit = "--max-new-tokens" if most == max_new_tokens else "the context"
            notes.print(f"[dim]the answer is cut off: {limit} ends here[/dim]")
        self._said += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": str(found.text)},
        ]
        return found


def talk(
    conversation: Conversation, answer: Callable[[str], Generated], *, as_json: bool
) -> list[Generated]:
    """Answer each line of standard input until it ends; with ``as_json``, an object a line.

    On a terminal, a turn that fails or is interrupted is no end.
    """
    terminal, turns = sys.stdin.isatty(), list[Generated]()
    if terminal:
        notes.print(f"[dim]{COMMANDS}[/dim]")
    for line in _lines(terminal):
        question = line.strip()
        if question == "/exit":
            break
        if question == "/reset":
            conversation.reset()
        if not question or question == "/reset":
            continue
        try:
            turns.append(answer(question))
        except (DataError, UsageError, KeyboardInterrupt) as error:
            if not terminal:
                raise
            reason = str(error) or "interrupted, and the question forgotten"
            notes.print(f"\n{reason} ({COMMANDS})", markup=False)
            continue
        if as_json:
            print(json.dumps(asdict(turns[-1])), flush=True)
        elif terminal:
            notes.print(f"[dim]{turns[-1].speed}[/dim]")
    return turns


def _lines(terminal: bool) -> Iterator[str]:
    if terminal:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - gives `input` its keys
        while True:
            try:
                yield input("> ")
            except EOFError:
                print()
                return
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"standard input, line {number}, is no UTF-8: {error}") from error
