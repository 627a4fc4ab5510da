"""Edits keep an index consistent; `offered` holds its promises on whatever they make."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from apps.errors import PublishError
from apps.repository import edits
from edge_agent.contracts.release import TargetFile
from edge_agent.contracts.repository import Index, ReleaseRef, Rollout, index_path
from edge_agent.contracts.rollout import cohort, offered

DEVICES = ("north", "south", "greenhouse-3.local")
CHANNELS = ("candidate", "stable")


def ref(version: int) -> ReleaseRef:
    target = TargetFile(path=f"house/{version}/release.json", sha256=f"{version:064x}", length=1)
    return ReleaseRef(version=version, manifest=target)


versions = st.integers(1, 6)
channels = st.sampled_from(CHANNELS)
devices = st.sampled_from(DEVICES)
percents = st.floats(0, 100)
steps = st.one_of(
    st.tuples(st.just("list"), versions),
    st.tuples(st.just("promote"), versions, channels, percents | st.just(100.0)),
    st.tuples(st.just("pin"), devices, versions | st.none()),
    st.tuples(st.just("withdraw"), versions),
)


def edit(index: Index, step: tuple) -> Index:
    match step:
        case ("list", version):
            return edits.listed(index, ref(version))
        case ("promote", version, channel, percent):
            return edits.promoted(index, version, channel, percent)
        case ("pin", device, version):
            return edits.pinned(index, device, version)
        case ("withdraw", version):
            return edits.withdrawn(index, version, "bad")
    raise AssertionError(step)


@st.composite
def indexes(draw) -> Index:
    index = Index(name="house")
    for step in draw(st.lists(steps, max_size=25)):
        try:
            index = edit(index, step)
        except PublishError:
            continue
        assert edit(index, step) == index, "a repeated edit changes something"
    return index


@given(indexes(), devices, channels)
def test_what_is_offered(index, device, channel):
    got = offered(index, device=device, channel=channel)
    assert Index.model_validate_json(index.canonical_json()) == index
    if got is not None:
        assert got in index.releases
        assert got.version not in index.withdrawn
    if device in index.pins:
        assert got == index.release(index.pins[device])
        return
    shown = {*index.history.get(channel, ()), index.channels.get(channel, 0)}
    good = sorted(v for v in shown - set(index.withdrawn) if v > 0)
    rollout = index.rollouts.get(channel)
    if rollout is not None and cohort(device, rollout.version) >= rollout.percent:
        good = [v for v in good if v != rollout.version]
    assert (got.version if got else None) == (good[-1] if good else None)


@given(indexes(), percents, percents)
def test_a_growing_rollout_takes_the_version_from_nobody(index, one, two):
    small, large = sorted((one, two))
    index = edits.listed(index, ref(7))
    before = edits.promoted(index, 7, "stable", small)
    after = edits.promoted(before, 7, "stable", large)
    for device in DEVICES:
        first = offered(before, device=device, channel="stable")
        second = offered(after, device=device, channel="stable")
        assert (first.version if first else 0) <= (second.version if second else 0)
    everyone = edits.promoted(after, 7, "stable")
    assert everyone.rollouts.get("stable") is None


@given(st.text(min_size=1, max_size=40), st.integers(1, 10**6))
def test_a_cohort_is_a_share_of_the_devices(device, version):
    assert 0 <= cohort(device, version) < 100
    assert cohort(device, version) == cohort(device, version)


def test_cohorts_are_even_and_differ_between_versions():
    names = [f"device-{i}" for i in range(2000)]
    first = {n for n in names if cohort(n, 1) < 10}
    second = {n for n in names if cohort(n, 2) < 10}
    for share in (first, second):
        assert 150 < len(share) < 250
    assert len(first & second) < 50  # 20 are expected of independent draws


def test_edits_that_cannot_be_meant_are_refused():
    index = edits.listed(edits.listed(Index(name="house"), ref(1)), ref(3))
    with pytest.raises(PublishError, match="below the newest, 3"):
        edits.listed(index, ref(2))
    other = ref(4).manifest
    with pytest.raises(PublishError, match="another manifest"):
        edits.listed(index, ReleaseRef(version=3, manifest=other))
    with pytest.raises(PublishError, match="version 2 is not published; published: 1, 3"):
        edits.promoted(index, 2, "stable")
    index = edits.promoted(index, 3, "stable")
    with pytest.raises(PublishError, match="withdraw what is newer"):
        edits.promoted(index, 1, "stable")
    index = edits.withdrawn(edits.pinned(index, "north", 3), 3, "blows up")
    assert index.pins == {}
    for again in (lambda: edits.promoted(index, 3, "stable"), lambda: edits.pinned(index, "n", 3)):
        with pytest.raises(PublishError, match="withdrawn: blows up"):
            again()
    assert edits.withdrawn(index, 3, "another reason").withdrawn == {3: "blows up"}
    assert index_path(index.name) == "house/index.json"


@pytest.mark.parametrize(
    "fields",
    [
        {"releases": (ref(2), ref(1))},
        {"channels": {"stable": 1}},
        {"releases": (ref(1), ref(2)), "channels": {"stable": 1}, "history": {"stable": (2,)}},
        {"releases": (ref(1),), "rollouts": {"stable": Rollout(version=1, percent=5)}},
        {"pins": {"north": 1}},
        {"pins": {"../north": 1}, "releases": (ref(1),)},
        {"withdrawn": {1: "bad"}},
    ],
)
def test_an_index_that_contradicts_itself_is_no_index(fields):
    with pytest.raises(ValidationError):
        Index(name="house", **fields)
