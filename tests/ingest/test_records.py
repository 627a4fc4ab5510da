import pytest

from edge_agent.contracts.errors import InvalidConfig
from edge_agent.contracts.observation import Reading
from edge_agent.ingest.records import read_record
from edge_agent.replay import MqttReplay
from tests.edge.owner import first_root

ROWS = [
    Reading("2016-06-01T00:00:00", "mast", "wind_speed", 5.0, "m s-1"),
    Reading("2016-06-01T00:00:00", "mast", "wind_from_direction", 270.0, "degree"),
    Reading("2016-06-01T00:10:00", "wu30", "wind_speed", 1.5, "m s-1"),
]


def write_csv(path):
    path.write_text(
        "time,sensor,quantity,value,unit\n" + "".join(",".join(map(str, r)) + "\n" for r in ROWS)
    )


def write_json_lines(path):
    import msgspec

    path.write_bytes(b"\n".join(msgspec.json.encode(r._asdict()) for r in ROWS) + b"\n")


@pytest.mark.parametrize(("name", "write"), [("a.csv", write_csv), ("a.jsonl", write_json_lines)])
def test_readings_on_file_come_back_by_instant(tmp_path, name, write):
    write(tmp_path / name)
    found = list(read_record(tmp_path / name, "mast"))
    assert [item.readings for item in found] == [tuple(ROWS[:2]), tuple(ROWS[2:])]
    later = list(read_record(tmp_path / name, "mast", "2016-06-01T00:10:00Z"))
    assert [item.readings for item in later] == [tuple(ROWS[2:])]


def netcdf(path, unit="m s-1"):
    netCDF4 = pytest.importorskip("netCDF4")  # noqa: N806 - its name
    with netCDF4.Dataset(path, "w") as data:
        data.createDimension("time", 3)
        time = data.createVariable("time", "f8", ("time",))
        time.units = "minutes since 2016-06-01 00:00:00"
        time[:] = [0, 10, 20]
        speed = data.createVariable("ws", "f4", ("time",), fill_value=-999.0)
        speed.standard_name, speed.units = "wind_speed", unit
        speed[:] = [5.0, -999.0, 6.0]
        direction = data.createVariable("wd", "f4", ("time",))
        direction.standard_name, direction.units = "wind_from_direction", "degree"
        direction[:] = [270.0, 280.0, 290.0]


def test_cf_netcdf_is_known_by_its_standard_names(tmp_path):
    netcdf(tmp_path / "a.nc")
    found = list(read_record(tmp_path / "a.nc", "mast"))
    assert found[0].readings == tuple(ROWS[:2])
    assert [len(item.readings) for item in found] == [2, 1, 2]
    assert found[2].time == "2016-06-01T00:20:00"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("missing.csv", None),
        ("a.csv", "time,speed\n2016-06-01,5\n"),
        ("b.csv", "time,sensor,quantity,value,unit\nx,mast,wind_speed,five,m s-1\n"),
        ("a.jsonl", "{}\n"),
    ],
)
def test_a_bad_record_is_named(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InvalidConfig, match=name):
        list(read_record(tmp_path / name, "mast"))


def test_netcdf_in_another_unit_is_refused(tmp_path):
    netcdf(tmp_path / "a.nc", unit="mph")
    with pytest.raises(InvalidConfig, match="mph"):
        list(read_record(tmp_path / "a.nc", "mast"))


def test_a_broker_needs_a_port():
    with pytest.raises(InvalidConfig):
        MqttReplay("house", "localhost")


def test_a_replay_through_a_broker_ends_when_all_are_kept(tmp_path, brokers):
    from edge_agent.agent import EdgeAgent
    from edge_agent.config import AgentConfig
    from edge_agent.field import FieldServices
    from edge_agent.settings import MqttSettings

    broker = brokers()
    write_csv(tmp_path / "a.csv")
    config = AgentConfig(
        name="house",
        repository=tmp_path / "repository",
        root=first_root(tmp_path / "repository"),
        state=tmp_path / "state",
        mqtt=MqttSettings(port=broker.port),
    )
    with EdgeAgent(config) as agent:
        services = FieldServices(agent)
        services.start()
        player = MqttReplay("house", f"127.0.0.1:{broker.port}", rate=1000.0)
        player.run(read_record(tmp_path / "a.csv", "mast"))
        assert (player.sent, player.answered) == (3, 3)
        assert sorted(r.value for r in agent.readings()) == [1.5, 5.0, 270.0]
        services.close()
