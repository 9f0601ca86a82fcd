"""``taghead prepare finegym``: cuts the clips out of the source videos, by the published JSON.

Rules. A clip has the frames that are first shown within [start, end) of the player's clock, to a millisecond; where
that is none (a segment of length zero, or shorter than a frame), the one frame on screen at its start. It keeps the
source's size and the times of its frames, which count from the first; it is H.264 without sound. A clip that begins or
ends beyond the end of its video is not made.
A clip is there whole or not at all, and what is there is not made again: the same command goes on where it stopped.
"""

import errno
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import av

from taghead.data.events import Segment, read_segments
from taghead.data.listing import Finding, read_rows
from taghead.data.parallel import in_processes
from taghead.data.spans import cut_spans
from taghead.errors import InputError
from taghead.files import write_text

SUFFIXES = (".mp4", ".mkv", ".webm")
NOT_MADE = "not_made.txt"


class Job(NamedTuple):
    """All the clips of one source video."""

    video: Path
    folder: Path
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Plan:
    """What there is to cut, before anything is cut.

    Attributes:
        out: Folder of the data set; the clips go to ``clips`` in it.
        jobs: One a source video that is there and that clips are wanted of.
        missing_videos: Number of clips lost by the id of each video that is not there.
        not_made: Reason by clip id (or by place in the JSON, where no clip can be told) for what cannot be cut.
        num_there: Clips that lie in the folder already.
    """

    out: Path
    jobs: tuple[Job, ...]
    missing_videos: dict[str, int]
    not_made: dict[str, str]
    num_there: int

    def text(self) -> str:
        """The work ahead in two lines."""
        segments = [segment for job in self.jobs for segment in job.segments]
        seconds = sum(segment.end - segment.start for segment in segments)
        lost = sum(self.missing_videos.values())
        return (
            f"{len(segments):,} clips ({seconds / 60:,.1f} minutes) of {len(self.jobs):,} videos to "
            f"{self.out / 'clips'}, {self.num_there:,} of them there already.\n{len(self.missing_videos):,} videos are "
            f"not there, which loses {lost:,} clips; {len(self.not_made) - lost:,} other entries cannot be cut."
        )


@dataclass(frozen=True)
class Cut:
    """What came of one video, or of all: ids of the clips made, of those that were there, and reasons by clip id."""

    made: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    not_made: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """One line."""
        made, there, lost = (f"{len(part):,}" for part in (self.made, self.there, self.not_made))
        listed = f" (reasons in {NOT_MADE})" if self.not_made else ""
        return f"{made} clips made, {there} were there, {lost} not made{listed}."


def plan_cuts(videos: Path, annotations: Path, out: Path, *, lists: Iterable[Path] = ()) -> Plan:
    """Reads the annotations and looks for the videos.

    Args:
        videos: Folder with ``<video id>.mp4``, ``.mkv`` or ``.webm``.
        annotations: FineGym's JSON file.
        out: Folder of the data set to make.
        lists: Split lists, ``<clip id> <label>`` a line: only their clips are cut. None: all of the annotations.

    Raises:
        InputError: No such folder, a list with a broken line, or a JSON file that is none or has none of the clips.
    """
    if not videos.is_dir():
        raise InputError(f"no folder of videos {videos}: give the one that holds <video id>.mp4, .mkv or .webm.")
    wanted = _wanted(lists)
    segments, not_made = read_segments(annotations, wanted=wanted)
    if not segments and wanted is None:  # with lists, each clip gets its own reason
        why = next((f"; {place}: {reason}" for place, reason in not_made.items()), ".")
        raise InputError(f"{annotations}: describes none of the clips; give FineGym's annotation file{why}")
    found = {segment.clip_id for segment in segments} | set(not_made)
    for clip_id in sorted((wanted or set()) - found):
        not_made[clip_id] = _why_absent(clip_id, not_made, annotations)
    by_video: defaultdict[str, list[Segment]] = defaultdict(list)
    for segment in segments:
        by_video[segment.video].append(segment)
    jobs, missing = [], {}
    for video, of_video in sorted(by_video.items()):
        path = next((videos / f"{video}{end}" for end in SUFFIXES if (videos / f"{video}{end}").is_file()), None)
        if path is None:
            missing[video] = len(of_video)
            not_made |= {segment.clip_id: f"video {video} is not there" for segment in of_video}
        else:
            jobs.append(Job(path, out / "clips", tuple(sorted(of_video, key=lambda segment: segment.start))))
    there = sum(clip_path(job.folder, segment).is_file() for job in jobs for segment in job.segments)
    return Plan(out, tuple(jobs), missing, not_made, there)


def cut(plan: Plan, *, workers: int | None = None, on_progress: Callable[[int, int], None] | None = None) -> Cut:
    """Cuts what is not there yet, each video by one process; writes the reasons for the rest to ``not_made.txt``.

    Args:
        plan: Of `plan_cuts`.
        workers: Processes; None takes one a CPU core.
        on_progress: Called with the number of clips dealt with so far, and of all. A video's clips count when all are.

    Raises:
        InputError: The disk is full; what was made stays.
    """
    (plan.out / "clips").mkdir(parents=True, exist_ok=True)
    total = sum(len(job.segments) for job in plan.jobs)
    outcome = Cut(not_made=dict(plan.not_made))
    done = 0
    longest_first = sorted(plan.jobs, key=lambda job: -len(job.segments))
    with closing(in_processes(cut_video, longest_first, died=_died, workers=workers)) as results:
        for job, cuts in results:
            outcome.made.extend(cuts.made)
            outcome.there.extend(cuts.there)
            outcome.not_made.update(cuts.not_made)
            done += len(job.segments)
            if on_progress:
                on_progress(done, total)
    lines = [f"{clip_id}\t{reason}\n" for clip_id, reason in sorted(outcome.not_made.items())]
    write_text(plan.out / NOT_MADE, "".join(lines))
    return outcome


def cut_video(job: Job) -> Cut:
    """Cuts the clips of one video that are not there yet.

    Raises:
        InputError: The disk is full.
    """
    outcome = Cut()
    todo = {}
    for segment in job.segments:
        if _is_finished(path := clip_path(job.folder, segment)):
            outcome.there.append(segment.clip_id)
        else:
            todo[segment] = path
    try:
        for segment, reason in cut_spans(job.video, todo):
            if reason is None:
                outcome.made.append(segment.clip_id)
            else:
                outcome.not_made[segment.clip_id] = reason
    except (av.FFmpegError, OSError) as error:
        if error.errno == errno.ENOSPC:
            raise InputError(f"{job.folder}: the disk is full; make room and start again, it goes on.") from None
        reason = f"video {job.video.name} cannot be read on ({error.strerror or type(error).__name__})"
        for segment in todo:
            if segment.clip_id not in outcome.made:
                outcome.not_made.setdefault(segment.clip_id, reason)
    return outcome


def clip_path(folder: Path, segment: Segment) -> Path:
    """Where the file of a clip belongs."""
    return folder / f"{segment.clip_id}.mp4"


def _is_finished(path: Path) -> bool:
    """Whether there is a file whose video begins to decode: files are written whole, those of others may be torn."""
    try:
        with av.open(str(path)) as container:
            return next(container.decode(video=0), None) is not None
    except (OSError, IndexError, av.FFmpegError):
        return False


def _died(job: Job) -> Cut:
    return Cut(not_made={segment.clip_id: f"the decoder crashes on {job.video.name}" for segment in job.segments})


def _wanted(lists: Iterable[Path]) -> set[str] | None:
    """The ids in all lists together; None without lists."""
    findings: list[Finding] = []
    ids = [{clip_id for _, clip_id, _ in read_rows(path, findings)} for path in lists]
    if findings:
        raise InputError(findings[0].message)
    return set().union(*ids) if ids else None


def _why_absent(clip_id: str, faults: dict[str, str], annotations: Path) -> str:
    """Why a listed clip is not among the segments: its event or video is malformed, or not in the file."""
    malformed = (reason for place, reason in faults.items() if clip_id.startswith(f"{place}_"))
    return next(malformed, f"not in {annotations.name}")
