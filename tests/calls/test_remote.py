"""What the registered functions do on the device, without Globus Compute."""

import socket
import subprocess
import sys
import threading

import psutil
import pytest

from edge_agent import remote
from edge_agent.calls.contract import VERSION, new_request_id
from edge_agent.client import RemoteAgent
from edge_agent.contracts.errors import AgentUnreachable, InvalidInput, PayloadTooLarge
from edge_agent.ensure import ensure
from tests.edge.conftest import listening
from tests.edge.releases import NAME, make_release

WEST = [[4.0, 270.0]]


def request(**more):
    return {"format": VERSION, "id": new_request_id(1.7e9), **more}


@pytest.fixture
def device(tmp_path, monkeypatch):
    """A device with a configuration and no agent."""
    make_release(tmp_path / "repository", 1)
    config = tmp_path / "edge.toml"
    config.write_text(
        f'name = "{NAME}"\nrepository = "repository"\nroot = "repository/metadata/1.root.json"\n'
        'state = "state"\npoll_seconds = 0.05\n'
    )
    monkeypatch.setenv("RBF_EDGE_CONFIG", str(config))
    yield config
    with RemoteAgent(f"unix:{tmp_path / 'state' / 'agent.sock'}") as agent:
        try:
            pid = int(agent.status()["pid"])
        except AgentUnreachable:
            return
    process = psutil.Process(pid)
    process.terminate()
    process.wait(20)


@pytest.fixture
def told(config, monkeypatch, tmp_path):
    """The functions are told where the agent of this process is."""
    file = tmp_path / "served.toml"
    file.write_text(
        f'name = "{NAME}"\nrepository = "r"\nroot = "r/1.root.json"\nstate = "{config.state}"\n'
    )
    monkeypatch.setenv("RBF_EDGE_CONFIG", str(file))


@pytest.mark.usefixtures("told")
def test_functions_answer_with_values(agent, config, monkeypatch):
    make_release(config.repository, 1)
    agent.pull().result(10)
    with listening(agent):
        predicted = request(arguments={"inputs": WEST})
        found = remote.predict(predicted)
        assert found["result"]["version"] == 1
        assert remote.predict(predicted) == found
        assert remote.result({"format": VERSION, "id": predicted["id"]}) == found
        assert remote.status(request())["result"]["active"] == 1
        assert remote.releases(request())["result"]["releases"][0]["version"] == 1
        assert remote.pull(request())["result"] == {"active": 1}
        assert remote.rollback(request())["failure"]["kind"] == "NoSuchRelease"
        assert remote.promote(request())["failure"]["kind"] == "InvalidInput"
        assert remote.result(request())["failure"]["kind"] == "NoSuchRequest"
        monkeypatch.setattr(remote, "RESULT_BYTES", 100)
        large = remote.predict(predicted)["failure"]
        assert large["kind"] == PayloadTooLarge.__name__
        assert large["data"]["size"] > large["data"]["limit"] == 100


@pytest.mark.parametrize("bad", [{}, {"format": 99}, [], None, "x", {"format": VERSION}])
@pytest.mark.usefixtures("told")
def test_other_requests_are_refused(bad, agent):
    with listening(agent):
        assert remote.pull(bad)["failure"]["kind"] == InvalidInput.__name__


def test_a_wrong_configuration_is_an_answer(monkeypatch, tmp_path):
    monkeypatch.setenv("RBF_EDGE_CONFIG", str(tmp_path / "nothing.toml"))
    assert remote.status(request())["failure"]["kind"] == "InvalidConfig"


def test_the_agent_is_started_for_a_call(device, tmp_path):
    found = remote.status(request())["result"]
    assert found["site"] == NAME
    with RemoteAgent(f"unix:{tmp_path / 'state' / 'agent.sock'}") as agent:
        agent.wait_serving(1, 20)
    process = psutil.Process(found["pid"])
    assert process.pid not in [p.pid for p in psutil.Process().children(recursive=True)]
    process.kill()
    again = remote.predict(request(arguments={"inputs": WEST}))
    assert again["result"]["version"] == 1
    assert ensure(device) == "running"


def test_many_who_ask_start_one_agent(device, tmp_path):
    said = []

    def ask():
        command = [sys.executable, "-m", "edge_agent", "ensure", "--config", str(device)]
        said.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said) == ["the agent runs\n"] * 3 + ["the agent was started\n"]
    assert (tmp_path / "state" / "agent.log").read_text().count('"listening"') == 1


def test_an_agent_that_does_not_start_is_said(device, tmp_path):
    taken = socket.create_server(("127.0.0.1", 0))
    device.write_text(device.read_text() + f"port = {taken.getsockname()[1]}\n")
    with pytest.raises(AgentUnreachable, match=r"does not start.*agent.log ends with") as caught:
        ensure(device)
    assert caught.value.log == str(tmp_path / "state" / "agent.log")
    found = remote.status(request())["failure"]
    assert found["kind"] == "AgentUnreachable"
    with pytest.raises(AgentUnreachable, match="does not answer"):
        ensure(device, start=False, timeout=0.1)
    taken.close()


def test_sources_import_the_package_and_nothing_else():
    for name, function in remote.FUNCTIONS.items():
        scope = {}
        exec(remote.source(name), scope)  # noqa: S102 - as the endpoint does
        assert scope[remote.registered_name(name)]({})["failure"]["kind"] == "InvalidInput"
        assert function({})["failure"]["kind"] == "InvalidInput"


def test_nothing_of_globus_is_imported_without_need():
    code = (
        "import sys, edge_agent.client, edge_agent.remote, edge_agent.agent, edge_agent.__main__\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "sys.exit(bool(loaded & {'globus_compute_sdk', 'globus_sdk', 'parsl', 'dill', 'yaml'}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
