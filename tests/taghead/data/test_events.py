import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taghead.data.events import MOST_SECONDS, Segment, read_segments
from taghead.errors import InputError

VIDEO, EVENT, SEGMENT = "a-_E_bc0123", "E_000043_000049", "A_0000_0001"
CLIP = f"{VIDEO}_{EVENT}_{SEGMENT}"


def write(folder: Path, data: Any) -> Path:
    (folder / "a.json").write_text(json.dumps(data))
    return folder / "a.json"


def one(*, times: Any = ((0.5, 1.25),), start: Any = ((43.5, 49),), video: str = VIDEO, **ids: str) -> dict[str, Any]:
    segments = {ids.get("segment", SEGMENT): {"stages": 1, "timestamps": times}}
    return {video: {ids.get("event", EVENT): {"event": 2, "timestamps": start, "segments": segments}}}


def test_a_segment_counts_from_its_events_start(tmp_path):
    assert read_segments(write(tmp_path, one())) == ([Segment(CLIP, VIDEO, 44.0, 44.75)], {})


def test_stages_run_from_the_first_start_to_the_last_end(tmp_path):
    ((segment,), _) = read_segments(write(tmp_path, one(times=[[0, 0.5], [0.5, 0.9], [1, 2]])))
    assert (segment.start, segment.end) == (43.5, 45.5)


def test_a_segment_of_length_zero_is_kept_and_an_event_without_segments_gives_none(tmp_path):
    data = one(times=[[1, 1]])
    data[VIDEO]["E_000001_000002"] = {"event": 1, "timestamps": [[1, 2]], "segments": None}
    assert read_segments(write(tmp_path, data)) == ([Segment(CLIP, VIDEO, 44.5, 44.5)], {})


def test_only_wanted_clips_are_read_and_faults_of_others_do_not_matter(tmp_path):
    data = one()
    data[VIDEO][EVENT]["segments"] |= {"A_0001_0002": {"timestamps": "none"}, "A_0002_0003": {"timestamps": [[2, 3]]}}
    segments, faults = read_segments(write(tmp_path, data), wanted={CLIP})
    assert [segment.clip_id for segment in segments] == [CLIP] and faults == {}


@pytest.mark.parametrize(
    ("data", "place", "reason"),
    [
        (one(times=[[1, 0.5]]), CLIP, "start <= end must hold, but got 1.0 and 0.5"),
        (one(times=[[-1, 0.5]]), CLIP, rf"0 <= time <= {MOST_SECONDS} .* but got -1"),
        (one(times=[[0, 1e300]]), CLIP, "but got 1e"),
        (one(times=[[0, 10**400]]), CLIP, "but got 1000"),
        (one(times=[[0, float("nan")]]), CLIP, "but got nan"),
        (one(times=[[0, True]]), CLIP, "but got True"),
        (one(times=[["0", 1]]), CLIP, "but got 0"),
        (one(times=[]), CLIP, "expected timestamps as .*, got list"),
        (one(times=None), CLIP, "expected timestamps as .*, got NoneType"),
        (one(times=[[1]]), CLIP, "expected timestamps as"),
        (one(times={"a": 1}), CLIP, "expected timestamps as"),
        (one(start=[[None, 1]]), f"{VIDEO}_{EVENT}", "but got None"),
        (one(video="../x"), "../x", "expected a video id of the form .*, got '../x'"),
        (one(event="../E"), f"{VIDEO}_../E", "expected an event id of the form"),
        (one(segment="A_1_2/../.."), f"{VIDEO}_{EVENT}_A_1_2/../..", "expected a segment id of the form"),
        ({VIDEO: []}, VIDEO, "expected an object, got list"),
        ({VIDEO: {EVENT: 3}}, f"{VIDEO}_{EVENT}", "expected an object, got int"),
        (
            {VIDEO: {EVENT: {"timestamps": [[1, 2]], "segments": "all"}}},
            f"{VIDEO}_{EVENT}",
            "expected an object, got str",
        ),
    ],
)
def test_a_malformed_entry_is_told_in_one_line_and_loses_no_other(tmp_path, data, place, reason):
    good = one(video="ggggggggggg")
    segments, faults = read_segments(write(tmp_path, data | good))
    assert [segment.video for segment in segments] == ["ggggggggggg"]
    assert list(faults) == [place] and "\n" not in faults[place]
    with pytest.raises(InputError, match=reason):
        raise InputError(faults[place])


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "3", '{"a": 1e', "9" * 5000])
def test_a_file_that_is_no_json_object_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"a.json: (no JSON|expected an object of videos)") as caught:
        read_segments(tmp_path / "a.json")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([VIDEO, EVENT, SEGMENT, "timestamps", "segments", "x"]), inner, max_size=3)
    ),
)


@given(data=JSON)
def test_whatever_json_it_is_there_are_sound_segments_or_a_reason(tmp_path_factory, data):
    path = write(tmp_path_factory.mktemp("json"), {VIDEO: data})
    segments, _ = read_segments(path)
    assert all(0 <= segment.start <= segment.end <= 2 * MOST_SECONDS for segment in segments)
