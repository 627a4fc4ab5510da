from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.candidates import MODEL, STATE, Contender, read_candidate
from apps.choice import ALIKE, choose
from apps.errors import TrainingError
from apps.train import TrainTask, train
from apps.validate import ValidateTask, validate

QUICK = {"pod_network": {"steps": 20, "members": 2}}


def contender(family, rmse=0.1, latency_ms=0.1, reason=""):
    return Contender(
        family=family, candidate="0" * 64, rmse=rmse, latency_ms=latency_ms, reason=reason
    )


positive = st.floats(1e-4, 10)


@given(st.lists(st.tuples(st.none() | positive, positive), min_size=1, max_size=6), positive)
def test_the_chosen_one_is_quick_enough_and_nearly_the_best(pairs, limit):
    tried = [contender(f"f{i}", r, t) for i, (r, t) in enumerate(pairs)]
    usable = [c for c in tried if c.rmse is not None]
    if not usable:
        with pytest.raises(TrainingError, match="no family can be used: f0"):
            choose(tried, limit)
        return
    judged = choose(tried, limit)
    assert [c.family for c in judged] == [c.family for c in tried]
    (best,) = [c for c in judged if not c.reason]
    quick = [c for c in usable if c.latency_ms <= limit]
    if quick:
        assert best.latency_ms <= limit
        assert best.rmse <= (1 + ALIKE) * min(c.rmse for c in quick)
    else:
        assert best.latency_ms == min(c.latency_ms for c in usable)


def test_each_has_its_reason():
    tried = [
        contender("broken", None, None, "3 training runs; at least 8 are needed"),
        contender("wild", None, 0.1),
        contender("slow", 0.01, 9.0),
        contender("poor", 0.5, 0.1),
        contender("alike", 0.1, 0.3),
        contender("best", 0.101, 0.2),
    ]
    reasons = {c.family: c.reason for c in choose(tried, 5.0)}
    assert reasons["best"] == ""
    assert "at least 8" in reasons["broken"]
    assert "not finite" in reasons["wild"]
    assert "above the limit of 5 ms" in reasons["slow"]
    assert "best has 0.101" in reasons["poor"]
    assert "best takes 0.20 ms" in reasons["alike"]


@pytest.fixture
def task(run, tmp_path):
    first = read_candidate(Path(run.tasks[1].candidate))
    second = read_candidate(Path(run.tasks[2].candidate))
    others = sorted(set(second.simulations) - set(first.simulations))
    return TrainTask(
        site=run.site,
        family=("pod_regression", "pod_network"),
        settings=QUICK,
        digests=first.simulations,
        store=str(run.root / "simulations"),
        candidates=str(tmp_path / "candidates"),
        selection=tuple(others[:8]),
    )


def test_of_several_families_the_best_is_the_candidate_and_all_are_on_record(run, task):
    result = train(task)
    folder = Path(result.folder)
    candidate = read_candidate(folder)
    assert candidate.digest == task.digest() == folder.name
    assert candidate.family == "pod_regression", "twenty steps do not beat it"
    assert [c.family for c in candidate.contenders] == list(task.family)
    assert {c.family: bool(c.reason) for c in candidate.contenders} == {
        "pod_regression": False,
        "pod_network": True,
    }
    for one in candidate.contenders:
        own = folder.with_name(one.candidate)
        assert read_candidate(own).family == one.family
        assert (own / STATE).is_file()
    chosen = folder.with_name(candidate.contenders[0].candidate)
    assert (folder / MODEL).read_bytes() == (chosen / MODEL).read_bytes()
    checked = validate(
        ValidateTask(
            site=run.site,
            candidate=str(folder),
            store=task.store,
            frozen_sets={
                "selection": task.selection[:4],
                "calibration": task.selection[4:6],
                "evaluation": task.selection[6:],
            },
            fidelity="synthetic",
        )
    )
    assert checked.model_sha256 == candidate.model_sha256
    # The loser of the last choice starts from its own weights, too.
    more = task.model_copy(
        update={"digests": (*task.digests, *_rest(run, task)), "previous": candidate.digest}
    )
    network = read_candidate(Path(train(more).folder)).contenders[1].candidate
    assert read_candidate(folder.with_name(network)).chosen["warm_start"]


def _rest(run, task):
    second = read_candidate(Path(run.tasks[2].candidate))
    return sorted(set(second.simulations) - set(task.digests) - set(task.selection))


def test_a_family_that_cannot_be_trained_is_left_out_with_its_reason(task):
    demanding = task.model_copy(update={"settings": {"pod_network": {"minimum_runs": 40}}})
    candidate = read_candidate(Path(train(demanding).folder))
    assert candidate.contenders[1].candidate is None
    assert "at least 40 are needed" in candidate.contenders[1].reason


def test_what_a_choice_needs_is_said(task):
    with pytest.raises(TrainingError, match="selection set is needed"):
        train(task.model_copy(update={"selection": ()}))
    with pytest.raises(TrainingError, match="oracle, which is not among"):
        task.model_copy(update={"settings": {"oracle": {}}}).digest()
    with pytest.raises(TrainingError, match="known: pod_regression"):
        task.model_copy(update={"family": ("oracle",), "settings": {}}).digest()


def test_the_digest_depends_on_what_the_choice_does(task):
    def digest(**update):
        return task.model_copy(update=update).digest()

    others = [
        digest(selection=task.selection[1:]),
        digest(latency_limit_ms=1.0),
        digest(family=task.family[:1], settings={}),
        digest(settings={}),
        digest(previous="0" * 64),
        digest(previous="0" * 64, keep_basis=True),
    ]
    assert len({task.digest(), *others}) == 7
    assert digest(selection=task.selection[::-1]) == task.digest()
