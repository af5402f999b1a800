"""Progress of long work on stderr: live lines on a terminal, plain ones elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.progress import Progress as RichProgress
from rich.progress import SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from ringfence.lab.progress import Note

_NOTE_INTERVAL = 15.0  # seconds between two notes where there is no terminal
_NOTE_WIDTH = 60  # characters


class _Display(Protocol):
    def begin(self, title: str) -> TaskID: ...
    def note(self, task: TaskID, text: str) -> None: ...
    def end(self, task: TaskID, title: str, seconds: float, *, ok: bool) -> None: ...


@dataclass
class StepProgress:
    """Shows steps as they run, which may overlap, and remembers how long each took."""

    display: _Display
    times: list[tuple[str, float]] = field(default_factory=list)
    """Title and seconds of each step that ended well."""

    @contextmanager
    def step(self, title: str) -> Iterator[Note]:
        """Show a step until the end of the ``with`` block."""
        task = self.display.begin(title)
        began = time.monotonic()
        ok = False
        try:
            yield lambda text: self.display.note(task, text)
            ok = True
        finally:
            seconds = time.monotonic() - began
            self.display.end(task, title, seconds, ok=ok)
            if ok:
                self.times.append((title, seconds))


@contextmanager
def shown() -> Iterator[StepProgress]:
    """Show progress on stderr for the length of the ``with`` block."""
    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        with _live(console) as live:
            yield StepProgress(_Terminal(live))
    else:
        yield StepProgress(_Plain(console))


def _live(console: Console) -> RichProgress:
    columns = (
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
    )
    return RichProgress(*columns, console=console)


@dataclass
class _Terminal:
    live: RichProgress

    def begin(self, title: str) -> TaskID:
        return self.live.add_task(title, total=1, note="")

    def note(self, task: TaskID, text: str) -> None:
        self.live.update(task, note=text[:_NOTE_WIDTH])

    def end(self, task: TaskID, title: str, seconds: float, *, ok: bool) -> None:  # noqa: ARG002
        if ok:
            self.live.update(task, completed=1, note="")
        else:
            self.live.stop_task(task)
            self.live.update(task, note="failed")


@dataclass
class _Plain:
    console: Console
    _titles: list[str] = field(default_factory=list)
    _noted: float = 0.0

    def begin(self, title: str) -> TaskID:
        self._noted = time.monotonic()
        self._titles.append(title)
        self._print(f"{title} …")
        return TaskID(len(self._titles) - 1)

    def note(self, task: TaskID, text: str) -> None:
        if time.monotonic() - self._noted >= _NOTE_INTERVAL:
            self._noted = time.monotonic()
            self._print(f"{self._titles[task]} … {text[:_NOTE_WIDTH]}")

    def end(self, task: TaskID, title: str, seconds: float, *, ok: bool) -> None:  # noqa: ARG002
        self._print(f"{title}: {'done' if ok else 'failed'} after {seconds:.1f} s")

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, soft_wrap=True)
