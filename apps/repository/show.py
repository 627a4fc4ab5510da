"""What a repository holds, as text and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from apps.repository import chain, reading
from apps.repository.chain import State
from apps.repository.store import Store
from edge_agent.contracts.repository import Index


def describe(store: Store, state: State, index: Index | None) -> dict[str, Any]:
    """Return keys, dates, channels and releases of a repository."""
    root = state.root.signed
    roles = {
        role: {
            "keys": list(root.roles[role].keyids),
            "threshold": root.roles[role].threshold,
            "version": metadata.signed.version if metadata else None,
            "expires": metadata.signed.expires.isoformat() if metadata else None,
        }
        for role, metadata in (
            ("root", state.root),
            ("targets", state.targets),
            ("snapshot", state.snapshot),
            ("timestamp", state.timestamp),
        )
    }
    models = reading.names(state.targets)
    listed = index.model_dump(mode="json") if index else None
    return {"repository": store.name, "roles": roles, "models": models, "index": listed}


def describe_release(store: Store, index: Index, version: int) -> dict[str, Any]:
    """Return a release and its lineage; raises as `reading.read_release`."""
    release = reading.read_release(store, index, version)
    made = release.model_dump(mode="json", exclude={"grid", "sensors", "inputs", "outputs"})
    lineage = None
    if release.provenance is not None:
        from apps.lineage import Lineage

        data = chain.read_target(store, release.provenance.lineage)
        lineage = Lineage.model_validate_json(data).model_dump(mode="json")
    return {
        "release": made,
        "manifest": index.release(version).model_dump(mode="json"),  # type: ignore[union-attr]
        "channels": [c for c, v in index.channels.items() if v == version],
        "rollouts": {c: r.percent for c, r in index.rollouts.items() if r.version == version},
        "pins": [d for d, v in index.pins.items() if v == version],
        "withdrawn": index.withdrawn.get(version),
        "lineage": lineage,
    }


def repository_text(found: dict[str, Any]) -> str:
    """Return `describe`'s result for people."""
    lines = [found["repository"]]
    for role, is_ in found["roles"].items():
        keys = ", ".join(k[:8] for k in is_["keys"])
        need = f"{is_['threshold']} of {len(is_['keys'])}"
        lines.append(
            f"  {role:9}  version {is_['version'] or '-':>4}  until {is_['expires'] or '-'}"
            f"  signed by {need}: {keys}"
        )
    index = found["index"]
    if index is None:
        lines.append(f"models: {', '.join(found['models']) or 'none'}")
        return "\n".join(lines)
    lines.append(f"model {index['name']}")
    for channel, version in sorted(index["channels"].items()):
        rollout = index["rollouts"].get(channel)
        share = f", {rollout['percent']:g} % of the devices" if rollout else ""
        before = index["history"].get(channel)
        earlier = f"; before: {', '.join(map(str, before))}" if before else ""
        lines.append(f"  {channel:9}  version {version}{share}{earlier}")
    lines += [f"  pinned     {device}: {v}" for device, v in sorted(index["pins"].items())]
    for ref in index["releases"]:
        version = ref["version"]
        reason = index["withdrawn"].get(str(version), index["withdrawn"].get(version))
        end = f"  WITHDRAWN: {reason}" if reason is not None else ""
        lines.append(f"  release {version:>4}  manifest {ref['manifest']['sha256'][:12]}{end}")
    return "\n".join(lines)


def release_text(found: dict[str, Any]) -> str:
    """Return `describe_release`'s result for people."""
    return "\n".join(_release_lines(found))


def _release_lines(found: dict[str, Any]) -> Iterator[str]:
    release, lineage = found["release"], found["lineage"]
    provenance = release["provenance"]
    yield f"{release['name']} version {release['version']}, {release['created']}"
    if found["withdrawn"] is not None:
        yield f"WITHDRAWN: {found['withdrawn']}"
    yield f"channels     {', '.join(found['channels']) or 'none'}"
    for channel, percent in found["rollouts"].items():
        yield f"rollout      {channel}: {percent:g} % of the devices"
    if found["pins"]:
        yield f"pinned       {', '.join(found['pins'])}"
    yield f"family       {release['family']}"
    yield f"model        sha256 {release['model']['sha256']}, {release['model']['length']} bytes"
    if release["delta"]:
        delta = release["delta"]
        yield f"delta        to version {delta['base_version']}, {delta['file']['length']} bytes"
    yield f"manifest     sha256 {found['manifest']['manifest']['sha256']}"
    if provenance:
        yield f"signed by    {', '.join(provenance['signed_by'])}"
        yield f"code         {provenance['code']}"
    versions = ", ".join(f"{k} {v}" for k, v in sorted(release["environment"].items()))
    yield f"environment  {versions}"
    for which, scores in release["scores"].items():
        beside = ", ".join(f"{k} {v:.4g}" for k, v in scores["baselines"].items())
        yield f"{which:11}  RMSE {scores['rmse']:.4g} m/s beside {beside or 'no baseline'}"
    training = release["training"]
    yield f"training     {training['digest']} ({training['size']} simulations)"
    for use, members in release["frozen_sets"].items():
        what = f"{members['size']} simulations, {members['fidelity']}"
        yield f"{use:11}  {members['digest']} ({what})"
    if lineage is None:
        yield "lineage      not recorded"
        return
    for use, digests in lineage["sets"].items():
        yield f"{use}: {_kinds(digests, lineage['simulations'])}"
        yield from (f"  {_simulation(d, lineage['simulations'].get(d))}" for d in digests)


def _kinds(digests: list[str], records: dict[str, Any]) -> str:
    kinds = Counter(
        f"{records[d]['solver']} {records[d]['solver_version']}" if d in records else "not recorded"
        for d in digests
    )
    return ", ".join(f"{n} by {kind}" for kind, n in sorted(kinds.items()))


def _simulation(digest: str, record: dict[str, Any] | None) -> str:
    if record is None:
        return digest
    scenario = record["scenario"]
    wind = f"{scenario['wind_speed']:.2f} m/s from {scenario['wind_from_direction']:.0f}°"
    factor = scenario["screen_loss_factor"]
    screens = "" if factor == 1 else f", screens × {factor:g}"
    torn = f", {len(scenario['tears'])} tears" if scenario["tears"] else ""
    return f"{digest}  {wind}{screens}{torn}"
