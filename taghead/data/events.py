"""FineGym's published JSON: which seconds of which source video each clip is.

Videos hold events ``E_xxxxxx_yyyyyy: {"timestamps": [[S, E]], "segments": ...}``, and these hold segments
``A_zzzz_wwww: {"timestamps": [[s, e], ...]}``: the clip ``<video>_E_xxxxxx_yyyyyy_A_zzzz_wwww``.
A segment's seconds count from its event's start S; a segment of several stages runs from the first one's start to the
last one's end. An event without segments (``null``) gives no clip.
"""

import json
import re
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from taghead.data.listing import read_text
from taghead.errors import InputError

MOST_SECONDS = 7 * 24 * 3600  # no video is longer; a time beyond is a mistake
_VIDEO = re.compile("[A-Za-z0-9_-]{1,64}")
_EVENT = re.compile("E_[0-9]{1,12}_[0-9]{1,12}")
_SEGMENT = re.compile("A_[0-9]{1,12}_[0-9]{1,12}")


class Segment(NamedTuple):
    """One clip: a time span of a source video, in seconds from the video's start; start and end may be equal."""

    clip_id: str
    video: str
    start: float
    end: float


def read_segments(path: Path, *, wanted: Container[str] | None = None) -> tuple[list[Segment], dict[str, str]]:
    """The clips that the annotations describe.

    Args:
        path: The JSON file.
        wanted: Clip ids; None takes all there are.

    Returns:
        The clips in the order of the file; and the reason, by its place in the file, for each entry that is malformed.

    Raises:
        InputError: The file is no JSON object.
    """
    text = read_text(path)
    try:
        videos = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: no JSON ({reason}); download the file again.") from None
    if not isinstance(videos, dict):
        raise InputError(f"{path}: expected an object of videos, got {_kind(videos)}; give FineGym's annotation file.")
    segments: list[Segment] = []
    faults: dict[str, str] = {}
    for video, events in videos.items():
        with _kept(faults, video):
            _check_id(video, _VIDEO, "a video id")
            for event_id, event in _object(events).items():
                with _kept(faults, f"{video}_{event_id}"):
                    segments += _of_event(video, event_id, event, wanted=wanted, faults=faults)
    return segments, faults


def _of_event(
    video: str, event_id: str, event: Any, *, wanted: Container[str] | None, faults: dict[str, str]
) -> Iterator[Segment]:
    """The clips of one event; what is malformed goes into ``faults``."""
    _check_id(event_id, _EVENT, "an event id")
    segments = _object(event).get("segments")
    if segments is None:
        return
    offset, _ = _span(event)
    for segment_id, segment in _object(segments).items():
        clip_id = f"{video}_{event_id}_{segment_id}"
        if wanted is None or clip_id in wanted:
            with _kept(faults, clip_id):
                _check_id(segment_id, _SEGMENT, "a segment id")
                start, end = _span(segment)
                yield Segment(clip_id, video, offset + start, offset + end)


@contextmanager
def _kept(faults: dict[str, str], place: str) -> Iterator[None]:
    """One malformed entry loses neither its neighbours nor its reason."""
    try:
        yield
    except InputError as error:
        faults[place] = str(error)


def _span(entry: Any) -> tuple[float, float]:
    """Start of the first and end of the last of the ``timestamps`` of an entry, in seconds."""
    times = _object(entry).get("timestamps")
    pairs = times if isinstance(times, list) else []
    if not pairs or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise InputError(f"expected timestamps as [[start, end], ...], got {_kind(times)}.")
    for time in (time for pair in pairs for time in pair):
        if isinstance(time, bool) or not isinstance(time, int | float) or not 0 <= time <= MOST_SECONDS:
            raise InputError(f"0 <= time <= {MOST_SECONDS} (seconds) must hold, but got {str(time)[:40]}.")
    start, end = float(pairs[0][0]), float(pairs[-1][1])
    if end < start:
        raise InputError(f"start <= end must hold, but got {start} and {end} (seconds).")
    return start, end


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"expected an object, got {_kind(value)}.")
    return value


def _check_id(name: str, form: re.Pattern[str], what: str) -> None:
    if not form.fullmatch(name):
        raise InputError(f"expected {what} of the form {form.pattern}, got {name[:80]!r}.")


def _kind(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:40]!r}"
