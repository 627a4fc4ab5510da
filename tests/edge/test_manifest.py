"""A manifest whose parts do not fit each other is refused before anything of it is downloaded."""

from edge_agent.contracts.release import FIELD_DIMS, ROW_DIMS
from edge_agent.updates.manifest import problem_of

from .releases import INSIDE, STATE, make_release
from .test_signature import LIMITS


def refused(release, **changes):
    return problem_of(release.model_copy(update=changes))


def test_a_manifest_whose_parts_do_not_fit_is_refused_with_the_reason(tmp_path):
    release = make_release(
        tmp_path, 1, state=STATE, inside=INSIDE, limits=LIMITS, publish=False
    ).release
    assert problem_of(release) is None
    wind_speed, direction, *others = release.inputs
    loss, middle = others[0], others[2]
    bare = loss.model_copy(update={"default": None})
    vast = loss.model_copy(update={"default": 1e39})
    loud = middle.model_copy(update={"default": 0.0})
    wind_, _, distance, _ = release.outputs
    reasons = {
        "same name": {"inputs": (*release.inputs, loss)},
        "stands before": {"inputs": (wind_speed, loss, direction, *others[1:])},
        "is none of its inputs": {"inputs": release.inputs[:-1]},
        "neither from readings": {"inputs": (wind_speed, direction, bare, *others[1:])},
        "single-precision": {"inputs": (wind_speed, direction, vast, *others[1:])},
        "first inputs must be": {"inputs": (direction, wind_speed, *others)},
        "must be -1: silence": {"inputs": (*release.inputs[:4], loud, release.inputs[5])},
        "must be the same": {"outputs": release.outputs[:3]},
        "wind, wind_std among": {"outputs": release.outputs[2:]},
        "distance has axes": {
            "outputs": (*release.outputs[:2], distance.model_copy(update={"dims": FIELD_DIMS}),
                        release.outputs[3])
        },
        "wind has axes": {
            "outputs": (wind_.model_copy(update={"dims": ROW_DIMS}), *release.outputs[1:])
        },
        "limit for 'wind'": {
            "uncertainty": release.uncertainty.model_copy(update={"limits": {"wind": 1.0}})
        },
    }  # fmt: skip
    for reason, changes in reasons.items():
        assert reason in (refused(release, **changes) or ""), reason


def test_such_a_release_is_refused_before_it_is_downloaded(agent, config):
    make_release(config.repository, 1, limits={"innovation": 1.0})
    assert agent.pull().result(20) == 1
    make_release(config.repository, 2, limits={"pressure": 1.0})
    assert agent.pull().result(20) == 1
    assert "limit for 'pressure'" in agent.refused[0]["reason"]
