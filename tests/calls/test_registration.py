import pytest
import yaml

from edge_agent.contracts.errors import InvalidConfig
from edge_agent.registration import FILE, read_config, read_functions, register
from edge_agent.remote import FUNCTIONS, registered_name

OTHERS = "aaaaaaaa-0000-4000-8000-000000000001"


class NotThere(Exception):
    http_status = 404


class Service:
    def __init__(self):
        self.functions = {}

    def register_source_code(self, source, function_name, description):
        assert function_name in source
        assert description
        identifier = f"00000000-0000-4000-8000-{len(self.functions):012d}"
        self.functions[identifier] = function_name
        return identifier

    def get_function(self, function_id):
        if function_id not in self.functions:
            raise NotThere
        return {"function_name": self.functions[function_id]}


@pytest.fixture
def endpoint(tmp_path):
    (tmp_path / "config.yaml").write_text("display_name: x\nheartbeat_period: 5\n")
    return tmp_path


def test_the_first_time_registers_all(endpoint):
    service = Service()
    done = register(endpoint, list(FUNCTIONS), service)
    assert sorted(done.registered) == sorted(registered_name(n) for n in FUNCTIONS)
    assert done.changed
    config = read_config(endpoint)
    assert config["allowed_functions"] == done.allowed == list(service.functions)
    assert (config["display_name"], config["heartbeat_period"]) == ("x", 5)
    assert (endpoint / "config.yaml").stat().st_mode & 0o777 == 0o600


def test_the_second_time_keeps_all(endpoint):
    service = Service()
    register(endpoint, list(FUNCTIONS), service)
    before = (endpoint / "config.yaml").read_bytes()
    done = register(endpoint, list(FUNCTIONS), service)
    assert done.registered == {}
    assert len(done.kept) == len(service.functions) == len(FUNCTIONS)
    assert not done.changed
    assert (endpoint / "config.yaml").read_bytes() == before


def test_what_has_changed_or_gone_is_registered_anew(endpoint, monkeypatch):
    service = Service()
    register(endpoint, ["predict", "status", "pull"], service)
    first = {name: known.id for name, known in read_functions(endpoint).items()}
    del service.functions[first[registered_name("status")]]
    service.functions["gone"] = "keeps the next identifier apart"
    from edge_agent import registration

    made = registration.source
    monkeypatch.setattr(
        registration, "source", lambda n: made(n) + ("# 2\n" if n == "pull" else "")
    )
    done = register(endpoint, ["predict", "status", "pull"], service)
    assert set(done.registered) == {registered_name("status"), registered_name("pull")}
    assert set(done.kept) == {registered_name("predict")}
    # The old ones of ours are off the list.
    assert not {first[registered_name(n)] for n in ("status", "pull")} & set(done.allowed)
    assert len(done.allowed) == 3


def test_the_list_may_be_shorter_and_keep_others(endpoint):
    service = Service()
    config = read_config(endpoint) | {"allowed_functions": [OTHERS]}
    (endpoint / "config.yaml").write_text(yaml.safe_dump(config))
    assert register(endpoint, list(FUNCTIONS), service).others == 1
    done = register(endpoint, ["predict"], service)
    assert done.registered == {}
    assert len(done.allowed) == 2
    assert OTHERS in done.allowed


def test_what_cannot_be_used_is_said(endpoint, tmp_path):
    with pytest.raises(InvalidConfig, match="no function 'rm'"):
        register(endpoint, ["rm"], Service())
    with pytest.raises(InvalidConfig, match="globus-compute-endpoint configure"):
        register(tmp_path / "nothing", ["predict"], Service())
    (endpoint / "config.yaml").write_text("- a list\n")
    with pytest.raises(InvalidConfig, match="holds no settings"):
        register(endpoint, ["predict"], Service())
    (endpoint / "config.yaml").write_text("{")
    with pytest.raises(InvalidConfig, match="cannot be read"):
        register(endpoint, ["predict"], Service())
    (endpoint / "config.yaml").write_text("a: 1\n")
    (endpoint / FILE).write_text("[]")
    with pytest.raises(InvalidConfig, match="remove it"):
        register(endpoint, ["predict"], Service())


def test_a_service_that_fails_changes_nothing(endpoint):
    class Broken(Service):
        def register_source_code(self, *_):
            raise ConnectionError

    before = (endpoint / "config.yaml").read_bytes()
    with pytest.raises(ConnectionError):
        register(endpoint, ["predict"], Broken())
    assert (endpoint / "config.yaml").read_bytes() == before
    assert not (endpoint / FILE).exists()
