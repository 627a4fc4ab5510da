"""The plain python-tuf client reads our repository; ours finds what is wrong with one."""

import subprocess
import sys
from pathlib import Path

import pytest

from apps.repository import edits
from apps.repository.store import FolderStore
from apps.repository.verify import verify
from edge_agent.contracts.repository import Index, target_file

from .conftest import NAME
from .static import served

#: What docs/security.md shows: nothing of ours in it.
SCRIPT = """
import sys
from pathlib import Path
from tuf.ngclient import Updater
url, state, root, target = sys.argv[1:]
Path(state).mkdir()
updater = Updater(state, f"{url}/metadata/", state, f"{url}/targets/",
                  bootstrap=Path(root).read_bytes())
updater.refresh()
info = updater.get_targetinfo(target)
print(updater.download_target(info) if info else "no such target")
"""


@pytest.fixture
def fresh(make_owner):
    """The script's clock is the real one, so the owner's must be."""
    from apps.repository.signing import utc_now

    owner = make_owner(clock=utc_now)
    owner.publish(1)
    owner.publish(2)
    return owner


def test_the_plain_client_reads_it_over_a_static_server(fresh, tmp_path):
    folder = tmp_path / "repository"
    root = fresh.online / "root.json"
    with served(folder) as url:
        arguments = [sys.executable, "-c", SCRIPT, url, str(tmp_path / "state"), str(root)]
        done = subprocess.run([*arguments, f"{NAME}/index.json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    index = Index.model_validate_json(Path(done.stdout.strip()).read_bytes())
    assert index == fresh.index()
    assert [r.version for r in index.releases] == [1, 2]
    assert index.channels == {"stable": 2}


def test_verify_reads_everything(owner):
    owner.publish(1)
    owner.edit(lambda index: edits.withdrawn(index, 1, "bad"))
    report = verify(owner.store, (owner.online / "root.json").read_bytes(), now=owner.clock())
    # The files of this release are no release; everything else must be right.
    assert [p for p in report.problems if "release.json" not in p and "house: " not in p] == []
    assert report.files == 3
    assert set(report.expires) == {"root", "targets", "snapshot", "timestamp"}


@pytest.mark.parametrize("damage", ["altered", "missing", "timestamp", "expired", "other-root"])
def test_verify_says_what_is_wrong(owner, tmp_path, damage):
    ref = owner.publish(1)
    folder = tmp_path / "repository"
    manifest = target_file(folder, ref.manifest)
    anchor, now = None, owner.clock()
    match damage:
        case "altered":
            manifest.write_bytes(manifest.read_bytes()[:-1] + b"!")
        case "missing":
            manifest.unlink()
        case "timestamp":
            path = folder / "metadata" / "timestamp.json"
            path.write_bytes(path.read_bytes().replace(b'"version":2', b'"version":3'))
        case "expired":
            owner.clock.go(days=3)
            now = owner.clock()
        case "other-root":
            from .conftest import Owner

            other = Owner(tmp_path / "other", FolderStore(tmp_path / "other-repository"))
            anchor = (other.online / "root.json").read_bytes()
    problems = verify(owner.store, anchor, now=now).problems
    assert problems
    expected = {
        "altered": "release.json",
        "missing": "release.json",
        "timestamp": "timestamp",
        "expired": "expired",
        "other-root": "trusted",
    }[damage]
    assert expected in " ".join(problems)
