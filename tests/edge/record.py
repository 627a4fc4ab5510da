"""The record that a device keeps, as another program reads it."""

import itertools
import json
from contextlib import suppress


def events(state):
    """What lies in a state folder's journal, oldest first."""
    old = (state / f"journal.{i}.jsonl" for i in itertools.count(1))
    paths = [*itertools.takewhile(lambda path: path.exists(), old)][::-1]
    found = []
    for path in (*paths, state / "journal.jsonl"):
        with suppress(FileNotFoundError):
            for line in path.read_bytes().splitlines():
                # A line may be cut off: one that is being written, or was when the power went.
                with suppress(ValueError):
                    found.append(json.loads(line))
    return found


def took_place(journal):
    """The transitions that took place, in order: those reverted, and given anew, are left out."""
    found = []
    for event in journal:
        if event["event"] in ("transition", "reverted"):
            while found and found[-1]["sequence"] >= event["sequence"]:
                found.pop()
        if event["event"] == "transition":
            found.append(event)
    return found
