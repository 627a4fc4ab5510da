"""The campaign file: what a person writes to say what to simulate, train and replay."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from apps.errors import TrainingError
from apps.simulators.base import Fidelity, Resources, SimulatorName
from apps.space import Space, space_of
from apps.surrogates.base import AUTO, FAMILIES, family_settings
from apps.transport import DeltaSettings
from edge_agent.contracts.errors import InvalidConfig
from edge_agent.contracts.model import Contract
from edge_agent.contracts.release import ReadingErrors
from edge_agent.contracts.site import Site
from workflows.change import ChangeTest

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]

ROOT = Path(__file__).resolve().parent.parent
SITES = ROOT / "configs" / "sites"
CAMPAIGNS = ROOT / "configs" / "campaigns"


class ScenarioRange(Contract):
    """The winds that scenarios are drawn from."""

    wind_speed: tuple[Positive, Positive] = (0.5, 14.0)
    """Lowest and highest wind speed at the site's reference height, m/s."""
    screen_loss_factor: tuple[Positive, Positive] | None = None
    """Lowest and highest factor on the screens' loss, dimensionless. With it surrogates take the
    factor as an input, and releases follow the estimated one; none: screens as in the site file."""
    torn: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of scenarios with one torn panel. Above nought surrogates take a tear as an input, and
    releases know of those in the maintenance log."""
    tear_width: tuple[Positive, Positive] = (8.0, 40.0)
    """Narrowest and widest tear, m."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name in ("wind_speed", "screen_loss_factor", "tear_width"):
            limits = getattr(self, name)
            if limits is not None and limits[0] >= limits[1]:
                msg = f"{name}: the lowest must be below the highest"
                raise ValueError(msg)
        return self

    def space(self, site: Site) -> Space:
        """Return what surrogates take of the state of the house."""
        return space_of(site, loss=self.screen_loss_factor is not None, tears=self.torn > 0)


class Reference(Contract):
    """Runs of a second, dearer simulator that correct the first one's."""

    fidelity: Fidelity = Fidelity(simulator="openfoam", cells=(30, 24, 10))
    """Solver and grid."""
    resources: Resources = Resources(threads=1, batch=1)
    """Threads and cases of one of its tasks."""
    pairs: Annotated[int, Field(ge=0)] = 4
    """Scenarios run with both simulators before anything is trained, to learn the correction
    from."""
    most: Count | None = None
    """Most pairs: steering adds to `pairs` while one is worth more than the cheap runs that it
    costs (`workflows.fidelity_choice`). None: `pairs` is all there are."""
    held_out: Annotated[int, Field(ge=0)] = 4
    """Scenarios run with both that the correction is judged by."""
    frozen: bool = False
    """Whether the frozen sets are run with this simulator, and not corrected: then all versions are
    held to one truth, however many pairs there are by then."""

    @model_validator(mode="after")
    def _one_truth(self) -> Self:
        if self.most is None:
            if self.pairs == 0:
                msg = "pairs: without any there is no correction; give some, or most"
                raise ValueError(msg)
            return self
        if self.most < self.pairs:
            msg = f"most: {self.most} is less than pairs = {self.pairs}"
            raise ValueError(msg)
        if not self.frozen:
            msg = "most: pairs that are added change what frozen sets are corrected to; set frozen"
            raise ValueError(msg)
        return self


class FrozenSizes(Contract):
    """Sizes of the three frozen sets, simulated first and never trained on."""

    selection: Annotated[int, Field(ge=4)] = 16
    """Simulations that the gate decides by."""
    calibration: Annotated[int, Field(ge=4)] = 16
    """Simulations that set the intervals."""
    evaluation: Annotated[int, Field(ge=16)] = 16
    """Simulations that are only reported."""


#: As tuned on the mast record by ``benchmarks/change_detection.py``.
MAST_CHANGE_TEST = ChangeTest(deviation=(0.468, 0.961, 1.123), threshold=15.6, run_length_days=7.0)


class Steering(Contract):
    """Which scenarios are simulated next."""

    explore: Fraction = 0.5
    """Share from the low-discrepancy cover; the rest follows recent weather."""
    recent_hours: Positive = 336.0
    """Age in data time of the oldest reading that counts as recent, hours."""
    persistence_hours: Positive = 12.0
    """A past wind says exp(-age / this) of the next hours' weather, hours."""
    method: Literal["disagreement", "cover"] = "disagreement"
    """Once there is a surrogate: where its members disagree and the weather goes, or streams of
    cover and recent weather as before it."""
    tears: Fraction = 0.0
    """Runs with a torn screen, as a share of the training runs; for the tear detector's
    signatures (``python -m apps.signatures --store RUN/simulations``)."""
    change: ChangeTest | None = MAST_CHANGE_TEST
    """Test for a change of the weather; only winds since the last one count as recent. None: the
    last ``recent_hours``."""


class Following(Contract):
    """How releases follow the state of the house (`workflows.following`).

    Used where ``scenarios.screen_loss_factor`` is given and interior sensors report.
    """

    every_hours: Positive = 12.0
    """Data time between two estimates, hours."""
    new_days: Annotated[float, Field(ge=0)] = 0.0
    """Days from the first reading on in which the screens are as in the site file: what the
    interior sensors are off by is learnt then. Nought: they are taken as they are."""
    step: Annotated[float, Field(gt=0)] = 0.05
    """Change of the logarithm of the loss factor that makes a new release."""
    log: str | None = None
    """Maintenance log, a TOML file in which people write down washes, tears and repairs
    (`workflows.maintenance`); relative to the project's folder."""


class Training(Contract):
    """When and what to train."""

    family: str | tuple[str, ...] = "pod_regression"
    """Surrogate family (`apps.surrogates`); of a list, or of ``"auto"``, the best is taken by error
    on the selection set and time of an answer."""
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Settings that differ from the defaults, by family."""
    latency_limit_ms: Positive = 5.0
    """Longest time of one answer on one thread of a family chosen from a list, ms."""
    warm_start: bool = True
    """Whether networks start from the weights of the release before."""
    readings: ReadingErrors | None = None
    """With this table surrogates take interior sensors as inputs too: the errors that they assume
    of readings and of the state that they are told."""
    first: Count = 12
    """Training simulations needed for the first surrogate."""
    growth: Annotated[float, Field(gt=1)] = 1.4
    """Train again when the training simulations have grown by this factor."""
    min_improvement: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """Share by which a candidate's selection RMSE must be below the serving release's."""
    interval_level: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Nominal coverage of the intervals."""

    @field_validator("family")
    @classmethod
    def _known(cls, family: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if family == "auto":
            return AUTO
        names = (family,) if isinstance(family, str) else family
        unknown = [n for n in names if n not in FAMILIES]
        if unknown or not names or len(set(names)) != len(names):
            msg = f"family: one of {', '.join(FAMILIES)}, a list of different ones, or auto"
            raise ValueError(msg)
        return family

    @model_validator(mode="after")
    def _settings_are_used(self) -> Self:
        names = (self.family,) if isinstance(self.family, str) else self.family
        if unused := sorted(set(self.settings) - set(names)):
            msg = f"settings of {', '.join(unused)}, which is not among the families"
            raise ValueError(msg)
        for name, values in self.settings.items():
            try:
                family_settings(name, values)
            except TrainingError as error:
                raise ValueError(str(error)) from error
        return self


class Replay(Contract):
    """The weather record that is fed to the edge agent."""

    record: str = "data/weather/mast_10min.csv"
    """CSV file; relative to the project's folder."""
    rate: Annotated[float, Field(gt=0, le=2000)] = 30.0
    """Instants of the record per wall second, 1/s."""
    minimum_answers: Annotated[int, Field(ge=0)] = 1000
    """Answers that the campaign waits for at its end, so that its percentiles mean something."""


class Budget(Contract):
    """When the campaign ends; whichever comes first."""

    simulations: Count = 200
    """Training simulations."""
    wall_seconds: Positive = 240.0
    """Wall time after which no simulation is started, s; what runs is finished and trained on. The
    frozen sets and the first training's simulations are made all the same. A house that changes is
    followed until then, when all simulations are made, too."""


class Campaign(Contract):
    """A campaign file."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    """Short name; part of the run folder's."""
    site: str = "lindcove"
    """Name of a file in ``configs/sites``, or a path to a site file."""
    machine: str = "local"
    """Module in ``configs`` that makes the Parsl configuration."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of every random choice."""
    simulators: Annotated[tuple[SimulatorName, ...], Field(min_length=1, max_length=2)] = (
        "embedded",
    )
    """The simulator of every scenario, and, if wanted, the dearer one that corrects it."""
    fidelity: Fidelity = Fidelity()
    """The first simulator's grid and tolerance."""
    resources: Resources = Resources()
    """Threads and cases of one simulation task."""
    reference: Reference = Reference()
    """The second simulator's runs; without one, not used."""
    scenarios: ScenarioRange = ScenarioRange()
    """Winds to cover."""
    frozen: FrozenSizes = FrozenSizes()
    """Frozen sets."""
    steering: Steering = Steering()
    """Which scenarios next."""
    training: Training = Training()
    """When to train."""
    following: Following = Following()
    """How releases follow the state of the house."""
    delta: DeltaSettings = DeltaSettings()
    """When a release travels as a difference to the one before."""
    replay: Replay = Replay()
    """Weather fed to the agent."""
    budget: Budget = Budget()
    """When to end."""

    @model_validator(mode="after")
    def _simulators_agree(self) -> Self:
        for place, fidelity in zip(
            self.simulators, (self.fidelity, self.reference.fidelity), strict=False
        ):
            if fidelity.simulator != place:
                msg = f"simulators: {place} stands where a table says {fidelity.simulator}"
                raise ValueError(msg)
        if self.corrected and self.fidelity == self.reference.fidelity:
            msg = "simulators: the second must be another than the first, or on another grid"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _families_take_the_state(self) -> Self:
        scenarios = self.scenarios
        if scenarios.screen_loss_factor is None and scenarios.torn == 0:
            return self
        names = self.training.family
        for name in (names,) if isinstance(names, str) else names:
            if not FAMILIES[name].takes_state:
                able = ", ".join(n for n, kind in FAMILIES.items() if kind.takes_state)
                msg = f"training.family: {name} takes wind alone; of varied houses learn {able}"
                raise ValueError(msg)
        return self

    @property
    def corrected(self) -> bool:
        """Whether a second simulator corrects the first."""
        return len(self.simulators) > 1

    def load_site(self, campaign_file: Path) -> Site:
        """Read the site that the campaign names.

        Raises
        ------
        InvalidConfig
            Naming the field ``site`` of `campaign_file` if there is no such file, or the site
            file's own field if that is wrong.
        """
        path = SITES / f"{self.site}.toml"
        if not path.exists():
            path = Path(self.site)
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in SITES.glob("*.toml")))
            msg = f"{campaign_file}: site: no site {self.site!r} (a path, or one of: {known})"
            raise InvalidConfig(msg, file=str(campaign_file), field="site")
        return Site.from_toml(path)

    def record_path(self, campaign_file: Path) -> Path:
        """Return the weather record's path; InvalidConfig names ``replay.record`` if missing."""
        path = ROOT / self.replay.record
        if not path.is_file():
            msg = f"{campaign_file}: replay.record: no file {path}"
            raise InvalidConfig(msg, file=str(campaign_file), field="replay.record")
        return path


def to_toml_value(value: str) -> str:
    """Return a string as a TOML basic string."""
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    text = f'"{quoted}"'
    tomllib.loads(f"v = {text}")
    return text
