"""Lays a rollout out over the devices that are known: who is asked, and when."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import msgspec

from edge_sdk.bundle.versions import is_older
from edge_sdk.errors import AdmissionError, ConfigError
from edge_sdk.fleet.rollout.device import Device
from edge_sdk.fleet.rollout.selector import Selector
from edge_sdk.fleet.rollout.stages import Stages
from edge_sdk.fleet.rollout.state import Member, Plan, named


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Who is asked, those of the first stage first, and what somebody should know before."""

    members: tuple[Member, ...]
    notes: tuple[str, ...] = ()


def lay_out(plan: Plan, devices: Mapping[str, Device], profiles: Iterable[str] = ()) -> Layout:
    """Chooses the devices and puts them in order.

    Devices that are online come first, so that early stages have somebody to learn from; the
    order is otherwise that of a hash with the version, so that it is not always the same
    devices that try what is new.

    Args:
        plan: What was asked for.
        devices: All that are known, by thing.
        profiles: Device profiles that the bundle has a variant for.

    Raises:
        ConfigError: An option is wrong, or no device is meant.
        AdmissionError: Devices have a newer version, and ``allow_older`` was not said.
    """
    selector, stages = Selector.parse(plan.selector), Stages.parse(plan.stages)
    _check(plan, stages)
    chosen = [device for device in devices.values() if selector.matches(device)]
    if not chosen:
        raise ConfigError(
            f"{plan.selector!r} matches no device; {len(devices)} are known",
            remedy="list them with edge-sdk fleet devices; one is known once its agent has run",
        )
    newer = [device for device in chosen if has_newer(device, plan)]
    if newer and not plan.allow_older:
        raise AdmissionError(
            f"{plan.version} is older than what these have: {_names(newer)}",
            where=plan.ref,
            remedy="say --allow-older if that is meant",
        )
    chosen.sort(key=lambda device: (not device.online, _shuffled(plan, device)))
    sizes = stages.sizes(len(chosen)) if stages.rate is None else (len(chosen),)
    members = tuple(
        Member(thing=device.thing, stage=sum(size <= number for size in sizes))
        for number, device in enumerate(chosen)
    )
    return Layout(members=members, notes=tuple(_notes(chosen, set(profiles))))


def _check(plan: Plan, stages: Stages) -> None:
    if plan.canary is not None and not 1 <= plan.canary <= 99:
        raise ConfigError(f"{plan.canary} percent is not from 1 to 99", where="canary")
    if plan.canary is not None and stages.rate is not None:
        raise ConfigError(
            "a canary is promoted stage by stage, not at a rate",
            where="stages",
            remedy="write percents, such as 5,25,100",
        )
    if plan.approve and len(stages.percents) == 1 and plan.canary is None:
        raise ConfigError(
            "there is only one step, so nothing to approve",
            where="approve",
            remedy="write several stages, such as 5,25,100, or a canary",
        )


def has_newer(device: Device, plan: Plan) -> bool:
    """Whether a device runs, or is meant to run, a newer version than the planned one."""
    report, desired = device.models.get(plan.model), device.desired.get(plan.model)
    versions = [report.version if report else "", desired.version if desired else ""]
    return any(version and is_older(plan.version, version) for version in versions)


def _notes(chosen: list[Device], profiles: set[str]) -> Iterable[str]:
    offline = [device for device in chosen if not device.online]
    if offline:
        yield f"offline now: {_names(offline)}"
    without = [device for device in chosen if device.profile and device.profile not in profiles]
    if profiles and without:
        yield f"the bundle has no variant for the profile of: {_names(without)}"


def _shuffled(plan: Plan, device: Device) -> bytes:
    return hashlib.sha256(f"{plan.digest} {device.thing}".encode()).digest()


def _names(devices: Iterable[Device]) -> str:
    return named(device.thing for device in devices)
