import numpy as np
import pytest

from taghead.data.figure import _CAPSULES, PALETTE, Camera, Pose, draw, project

NUM = 6
PALE = dict.fromkeys(PALETTE, (255.0, 255.0, 255.0))


def camera(num_frames: int = NUM, *, elevation: float = 0.2, height: float = 40.0) -> Camera:
    return Camera(elevation=elevation, height=height, feet=np.full((num_frames, 2), (36.0, 56.0)))


def picture(pose: Pose, *, elevation: float = 0.2, colours: dict | None = None) -> np.ndarray:
    frames = np.zeros((len(pose.yaw), 64, 72, 3), np.float32)
    draw(frames, pose, camera(len(frames), elevation=elevation), colours or PALE)
    return frames


def only(part: str) -> dict:
    return dict.fromkeys(PALETTE, (0.0, 0.0, 0.0)) | {part: (255.0, 255.0, 255.0)}


def centre(frames: np.ndarray) -> np.ndarray:
    """Mean column of what is lit, in each frame."""
    weight = frames.sum(axis=(1, 3))
    return (weight * np.arange(72)).sum(axis=1) / weight.sum(axis=1)


def test_a_capsule_has_two_ends_and_a_radius_in_every_frame() -> None:
    ends, radii = project(Pose.at_rest(NUM), camera())
    assert ends.shape == (NUM, radii.shape[1], 2, 3)
    assert (radii > 0.9).all()


def test_a_figure_that_looks_at_the_camera_has_its_left_at_the_pictures_right() -> None:
    faces_us = picture(Pose.at_rest(1), colours=only("left"))
    faces_away = picture(Pose.at_rest(1).plus(yaw=np.pi), colours=only("left"))
    assert centre(faces_us)[0] > 36 + 3
    assert centre(faces_away)[0] < 36 - 3


def test_a_growing_yaw_is_a_turn_to_the_figures_left() -> None:
    pose = Pose.at_rest(2).plus(yaw=np.array([0.0, 0.7]))
    first, second = centre(picture(pose, colours=only("skin")))
    assert second > first + 0.5


def test_a_whole_turn_gives_the_same_picture() -> None:
    around = picture(Pose.at_rest(2).plus(yaw=np.array([0.4, 0.4 + 2 * np.pi]), arm_out=0.5))
    assert np.abs(around[0] - around[1]).max() < 0.5


def test_a_turn_shows_the_front_and_then_the_back() -> None:
    lit = picture(Pose.at_rest(2).plus(yaw=np.array([0.0, np.pi])), colours=only("front")).sum(axis=(1, 2, 3))
    assert lit[0] > 10 * lit[1]


@pytest.mark.parametrize("move", [{"squat": 1.0}, {"bow": 1.2}, {"knee": 1.0}, {"leg_out": 0.4}])
def test_the_lower_foot_stays_on_the_ground(move: dict) -> None:
    ends, _ = project(Pose.at_rest(1).plus(**move), camera(1, elevation=0.0))
    feet = project(Pose.at_rest(1), camera(1, elevation=0.0))[0][0, -2:, 0, 1]
    assert feet == pytest.approx(56.0)
    assert ends[0, -2:, 0, 1] == pytest.approx(56.0)


def test_a_hop_lifts_every_part_by_its_height_times_the_cosine_of_the_elevation() -> None:
    ends, _ = project(Pose.at_rest(2).plus(hop=np.array([0.0, 0.25])), camera(2, elevation=0.3))
    assert ends[0, ..., 1] - ends[1, ..., 1] == pytest.approx(0.25 * 40 * np.cos(0.3))


def test_what_comes_nearer_grows_in_proportion() -> None:
    ends, radii = project(Pose.at_rest(2).plus(approach=np.array([0.0, 0.5])), camera(2))
    assert radii[1] == pytest.approx(2 * radii[0])
    assert ends[1, ..., :2] - 2 * ends[0, ..., :2] == pytest.approx(
        -np.array([36.0, 56.0]) + np.zeros((*ends.shape[1:-1], 2))
    )


def test_pictures_agree_with_a_painter_who_knows_no_window() -> None:
    pose = Pose.at_rest(3).plus(yaw=np.array([0.3, 2.0, 4.5]), arm_out=np.array([1.0, 0.2]), squat=0.4, bow=0.3)
    colours = {name: (40.0 * i, 250.0 - 30 * i, 90.0) for i, name in enumerate(PALETTE)}
    view = camera(3)
    drawn = np.full((3, 64, 72, 3), 90, np.float32)
    draw(drawn, pose, view, colours)
    assert drawn == pytest.approx(painted(pose, view, colours, background=90.0), abs=0.1)


def painted(pose: Pose, view: Camera, colours: dict, *, background: float) -> np.ndarray:
    ends, radii = project(pose, view)
    frames = np.full((len(ends), 64, 72, 3), background)
    pixels = np.stack(np.meshgrid(np.arange(72), np.arange(64)), axis=-1)
    for frame, capsules, radius in zip(frames, ends, radii, strict=True):
        depth = capsules[:, :, 2].mean(axis=1)
        light = np.clip(1 + 0.9 * (depth - depth.mean()) / view.height, 0.55, 1.35)
        for k in np.argsort(depth):
            a, b = capsules[k, :, :2]
            along = np.clip((pixels - a) @ (b - a) / max((b - a) @ (b - a), 1e-6), 0, 1)
            distance = np.linalg.norm(pixels - a - along[..., None] * (b - a), axis=-1)
            cover = np.clip(radius[k] + 0.5 - distance, 0, 1)[..., None]
            colour = np.minimum(np.array(colours[_CAPSULES[k][-1]]) * light[k], 255)
            frame[:] = (1 - cover) * frame + cover * colour
    return frames


def test_a_figure_partly_out_of_the_picture_is_cut_at_its_edge() -> None:
    frames = np.zeros((2, 64, 72, 3), np.float32)
    view = Camera(elevation=0.2, height=40.0, feet=np.array([[0.0, 56.0], [70.0, 20.0]]))
    draw(frames, Pose.at_rest(2), view, PALE)
    assert frames[0, :, :5].max() > 200
    assert frames[0, :, 40:].max() == 0
    assert frames[1, 45:].max() == 0


def test_a_move_of_an_unknown_part_is_an_error() -> None:
    with pytest.raises(AttributeError):
        Pose.at_rest(1).plus(tail=1.0)
