"""What the check of a data set found: as text to read, as JSON, and as the list of missing files."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from taghead.data.clips import ClipList
from taghead.data.listing import SPLITS, Finding, Split
from taghead.files import write_text, written_whole

_LEVELS = ("error", "warning", "fact")
_MOST_MESSAGES = 5  # of one rule, in the text
_MOST_ITEMS = 8  # of one finding, in the text
_INDENT = " " * 9


@dataclass(frozen=True)
class Report:
    """The outcome of a check.

    Attributes:
        clips: What is there and what is not.
        findings: Errors, warnings and facts.
        unreadable: Reason by path (relative to the data root) for each clip that does not decode.
        decoded: Whether clips were decoded at all.
    """

    clips: ClipList
    findings: tuple[Finding, ...]
    unreadable: dict[str, str]
    decoded: bool

    @property
    def exit_status(self) -> int:
        """1 where training would be refused or wrong, else 0."""
        return int(any(finding.level == "error" for finding in self.findings))

    def write_missing_list(self, path: Path) -> None:
        """Writes the missing files, one path a line, relative to the data root, in the bytes of the file system."""
        with written_whole(path) as beside:
            beside.write_bytes(b"".join(os.fsencode(f"{row.path}\n") for row in self.clips.absent))

    def write_json(self, path: Path) -> None:
        """Writes `as_json`."""
        write_text(path, json.dumps(self.as_json(), indent=1) + "\n")

    @cached_property
    def by_class(self) -> list[dict[str, Any]]:
        """For each class its label, name and, by split, the clips listed, present, missing and unreadable."""
        clips = self.clips
        present = Counter((clip.split, clip.label) for clip in clips.clips)
        missing = Counter((row.split, row.label) for row in clips.absent)
        splits = tuple(clips.counts)
        broken = Counter((clip.split, clip.label) for clip in clips.clips if clips.relative(clip) in self.unreadable)

        def counts(split: Split, label: int) -> dict[str, int]:
            there, gone = present[split, label], missing[split, label]
            return {"listed": there + gone, "present": there, "missing": gone, "unreadable": broken[split, label]}

        return [
            {"label": label, "name": name, "splits": {split: counts(split, label) for split in splits}}
            for label, name in enumerate(clips.classes)
        ]

    def as_json(self) -> dict[str, Any]:
        """All of it, for programs."""
        clips = self.clips
        return {
            "dataset": clips.dataset,
            "root": str(clips.root),
            "synthetic": clips.synthetic,
            "exit_status": self.exit_status,
            "decoded": self.decoded,
            "splits": {
                split: counts._asdict() | {"unreadable": self._num_unreadable(split)}
                for split, counts in clips.counts.items()
            },
            "classes": self.by_class,
            "findings": [finding._asdict() for finding in self.findings],
            "missing": [row.path for row in clips.absent],
            "unreadable": self.unreadable,
        }

    def text(self) -> str:
        """Counts by split, then errors, warnings and facts; of what is many, the first few."""
        lines = [f"{self.clips.dataset} in {self.clips.root}: {len(self.clips.classes)} classes", *self._table()]
        for level in _LEVELS:
            of_level = [finding for finding in self.findings if finding.level == level]
            for rule in dict.fromkeys(finding.rule for finding in of_level):
                lines += self._paragraph(level, [finding for finding in of_level if finding.rule == rule])
        number = Counter(finding.level for finding in self.findings)
        lines.append(f"{_counted(number['error'], 'error')}, {_counted(number['warning'], 'warning')}.")
        return "\n".join(map(_printable, lines))

    def _num_unreadable(self, split: str) -> int | None:
        if not self.decoded:
            return None
        return sum(self.clips.relative(clip) in self.unreadable for clip in self.clips.split(split))

    def _table(self) -> Iterator[str]:
        yield f"{'':7}{'listed':>9}{'present':>9}{'missing':>9}{'unreadable':>12}"
        for split in SPLITS:
            if split in self.clips.counts:
                numbers = "".join(f"{number:9,}" for number in self.clips.counts[split])
                broken = self._num_unreadable(split)
                yield f"{split:7}{numbers}{'not tried' if broken is None else format(broken, ','):>12}"

    def _paragraph(self, level: str, alike: list[Finding]) -> Iterator[str]:
        """The findings of one rule."""
        for finding in alike[:_MOST_MESSAGES]:
            yield f"{level + ':':9}{finding.message}"
            items = self._worst_classes() if finding.rule == "missing" else list(finding.items)
            yield from (f"{_INDENT}{item}" for item in items[:_MOST_ITEMS])
            if len(items) > _MOST_ITEMS:
                yield f"{_INDENT}... and {len(items) - _MOST_ITEMS:,} more"
        if len(alike) > _MOST_MESSAGES:
            yield f"{_INDENT}... and {len(alike) - _MOST_MESSAGES:,} more of this kind"

    def _worst_classes(self) -> list[str]:
        """The classes that miss clips, those that miss most first."""
        totals = []
        for entry in self.by_class:
            splits = entry["splits"].values()
            missing, listed = (sum(counts[key] for counts in splits) for key in ("missing", "listed"))
            if missing:
                totals.append((missing, f"class {entry['label']} {entry['name']}: {missing:,} of {listed:,}"))
        totals.sort(key=lambda total: -total[0])
        return [line for _, line in totals]


def _counted(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def _printable(line: str) -> str:
    """A line for a terminal: names out of files may hold control characters, and bytes that are no text."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in line)
