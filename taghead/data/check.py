"""``taghead datasets check``: all that is amiss with a data set on disk, before any training.

Beside the rules that `read_clips` enforces: source videos and file contents that training and evaluation share,
classes without clips, and every clip decoded as training would decode it.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path

from taghead.data.clips import Clip, ClipList, inspect_clips
from taghead.data.decode import UnreadableClip, sample_frames
from taghead.data.finegym import video_of
from taghead.data.listing import SPLITS, Finding, Split
from taghead.data.parallel import in_processes
from taghead.data.report import Report

_NUM_FRAMES, _SHORT_SIDE = 32, 16  # all of a clip is decoded whatever its frames' size in the result


def check(
    dataset: str,
    root: Path,
    *,
    missing: str = "error",
    decode: bool = True,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Holds a data set against every rule there is, and goes on after each fault.

    Args:
        dataset: A key of `DATASETS`.
        root: The data root.
        missing: ``error``, or ``skip``: clips that are missing or do not decode are warnings then.
        decode: Whether to decode every clip, all through. Without it files are only looked for.
        workers: Processes that decode; None takes one a CPU core.
        on_progress: Called with the number of clips decoded so far, and of all.

    Raises:
        InputError: No such data set or data root, or nothing in it that could be read.
    """
    clips, findings = inspect_clips(dataset, root, missing=missing)
    unreadable: dict[str, str] = {}
    if decode:
        unreadable = _decode(clips, workers=workers, on_progress=on_progress)
        findings += _what_does_not_decode(unreadable, clips, skip=missing == "skip")
    usable = [clip for clip in clips.clips if clips.relative(clip) not in unreadable]
    findings += [*_empty_classes(clips, usable), *_shared_videos(clips), *_shared_contents(clips)]
    return Report(clips, tuple(findings), unreadable, decoded=decode)


def _decode(clips: ClipList, *, workers: int | None, on_progress: Callable[[int, int], None] | None) -> dict[str, str]:
    """The reason by path for each clip that gives no frame."""
    paths = {clip.path: clips.relative(clip) for clip in clips.clips}
    unreadable = {}
    with closing(in_processes(why_unreadable, paths, died=_died, workers=workers)) as results:
        for done, (path, reason) in enumerate(results, start=1):
            if reason is not None:
                unreadable[paths[path]] = reason
            if on_progress:
                on_progress(done, len(paths))
    return dict(sorted(unreadable.items()))


def why_unreadable(path: Path) -> str | None:
    """Why a clip gives no frame to training; None where it gives some."""
    try:
        sample_frames(path, _NUM_FRAMES, short_side=_SHORT_SIDE)
    except UnreadableClip as error:
        return error.reason
    except OSError as error:
        return error.strerror or type(error).__name__
    return None


def _died(_: Path) -> str:
    return "the decoder crashes on it"


def _what_does_not_decode(unreadable: dict[str, str], clips: ClipList, *, skip: bool) -> Iterator[Finding]:
    if unreadable:
        remedy = "training passes over them, evaluation counts them as wrong" if skip else "replace or remove the files"
        message = f"{len(unreadable)} of {len(clips.clips)} clips do not decode; {remedy}."
        items = tuple(f"{path}: {reason}" for path, reason in unreadable.items())
        yield Finding("warning" if skip else "error", "unreadable", message, items)


def _empty_classes(clips: ClipList, usable: Iterable[Clip]) -> Iterator[Finding]:
    """Classes that no clip of theirs is listed, or left, to train, select or evaluate on."""
    listed = {clip.label for clip in clips.clips} | {row.label for row in clips.absent}
    number = Counter((clip.split, clip.label) for clip in usable)
    labels = set(range(len(clips.classes)))
    lost = {label for label in labels & listed if not any(number[split, label] for split in SPLITS)}
    cases = [("clip in any list", labels - listed), ("usable clip, though some are listed", lost)]
    for split, word in (("train", "training"), ("val", "validation"), ("test", "test")):
        if split in clips.counts:
            without = {label for label in labels & listed if not number[split, label]}
            cases.append((f"usable {word} clip", without - lost))
    for what, without in cases:
        if without:
            verb = "has" if len(without) == 1 else "have"
            message = f"{len(without)} of {len(labels)} classes {verb} no {what}."
            items = tuple(f"{label} {clips.classes[label]}" for label in sorted(without))
            yield Finding("warning", f"no {what}", message, items)


def _shared_videos(clips: ClipList) -> Iterator[Finding]:
    """FineGym's clips are cut out of videos: one that gives clips for training and for evaluation leaks."""
    splits: defaultdict[str, set[Split]] = defaultdict(set)
    entries: list[tuple[str, Split]] = [(clip.id, clip.split) for clip in clips.clips]
    entries += [(row.clip_id, row.split) for row in clips.absent]
    for clip_id, split in entries:
        if (video := video_of(clip_id)) is not None:
            splits[video].add(split)
    shared = tuple(sorted(video for video, found in splits.items() if len(found) > 1))
    if shared:
        known = " (in the published Gym99 lists: 40)" if clips.dataset == "gym99" else ""
        message = f"{len(shared)} of {len(splits)} source videos have clips in more than one split{known}."
        yield Finding("warning", "shared videos", message, shared)


def _shared_contents(clips: ClipList) -> Iterator[Finding]:
    """Files of one content under two ids, by size and then by hash."""
    by_size: defaultdict[int, list[Clip]] = defaultdict(list)
    by_content: defaultdict[tuple[int, str], list[Clip]] = defaultdict(list)
    for clip in clips.clips:
        with suppress(OSError):  # it has gone since: decoding tells
            by_size[clip.path.stat().st_size].append(clip)
    for size, alike in by_size.items():
        for clip in alike if len(alike) > 1 else ():
            with suppress(OSError):
                by_content[size, _hash(clip.path)].append(clip)
    groups = [group for group in by_content.values() if len({clip.id for clip in group}) > 1]
    across = [group for group in groups if len({clip.split for clip in group}) > 1]
    within = [group for group in groups if len({clip.split for clip in group}) == 1]
    for found, where in ((across, "in more than one split: evaluation sees what training saw"), (within, "in a split")):
        if found:
            message = f"{len(found)} file contents stand under more than one name {where}."
            yield Finding("warning", "same content", message, tuple(_names(group, clips) for group in found))


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _names(group: list[Clip], clips: ClipList) -> str:
    labels = "" if len({clip.label for clip in group}) == 1 else ", of different classes"
    return " = ".join(f"{clips.relative(clip)} ({clip.split})" for clip in group) + labels
