"""The demo's chapters: what is done in each, and what is said of it."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable
from pathlib import Path

from edge_sdk.cli import fleet_text
from edge_sdk.cli.convert import spoken_progress
from edge_sdk.cli.demo import bundles
from edge_sdk.cli.demo.bundles import NAME
from edge_sdk.cli.demo.fleet import SOAK_S, STAGES, Fleet, outcome
from edge_sdk.cli.demo.processes import Children
from edge_sdk.cli.demo.result import (
    DemoAnswer,
    DemoBundle,
    DemoDevice,
    DemoResult,
    DemoRollout,
    DemoVariant,
)
from edge_sdk.cli.output import human_bytes, table
from edge_sdk.fleet.rollout.state import ENDED
from edge_sdk.fleet.views import DeviceView, RolloutView

FIRST, BROKEN, TUNED = "1.0.0", "1.1.0", "1.2.0"
SMALL = "board-512mb"
ALSO = ("x86-64", "arm64", SMALL)
"""Profiles to convert for beside this machine's own."""
QUESTIONS = {
    "gateway-1": "raise the boiler by 5",
    "gateway-2": "what does the pump read?",
    "board-1": "which alarms are there?",
}
AWAY = "board-1"
WIDTH = 88
Say = Callable[[str], None]


class Story:
    """The whole story, told while it happens.

    Args:
        folder: Of everything; new.
        own: The profile of this machine.
        say: Told each paragraph.
    """

    def __init__(self, folder: Path, own: str, say: Say) -> None:
        self._folder = folder
        self._profiles = tuple(dict.fromkeys((own, *ALSO)))
        self._devices = (
            ("gateway-1", own, "berlin"),
            ("gateway-2", own, "oslo"),
            (AWAY, SMALL, "oslo"),
        )
        self._print = say
        self._chapter = 0
        self._bundles: list[DemoBundle] = []
        self._rollouts: list[DemoRollout] = []
        self._answers: list[DemoAnswer] = []
        self._note = ""

    def tell(self) -> DemoResult:
        """Everything, from the model to the last device; no process is left.

        Raises:
            EdgeSdkError: Something did not work; the error names the log that says why.
        """
        begun = time.monotonic()
        self._convert()
        with Children(self._folder) as children:
            fleet = self._serve(children)
            first = self._first_version(fleet)
            self._broken_version(fleet)
            caught_up = self._tuned_version(fleet)
            last = [
                fleet.wait_for(d.thing, "its report", lambda view: _runs(view, TUNED))
                for d in fleet.devices
            ]
        devices = tuple(map(_device, first, last))
        self._say(_costs(devices))
        return DemoResult(
            folder=str(self._folder),
            bundles=tuple(self._bundles),
            rollouts=tuple(self._rollouts),
            answers=tuple(self._answers),
            devices=devices,
            away=AWAY,
            caught_up_s=caught_up,
            seconds=round(time.monotonic() - begun, 1),
        )

    def _convert(self) -> None:
        self._begin("One model, converted for several devices")
        self._say(
            "A small dialogue model is quantized in several ways. Each candidate is measured"
            " against the model as it came; per device the best one ships."
        )
        self._model, self._data = bundles.unpack(self._folder)
        bundle = self._converted(self._model, FIRST)
        header = ("profile", "recipe", "size", "smaller", "speed", "perplexity")
        self._say(table(header, map(_row, bundle.variants)))
        self._say(
            "Speeds marked ~ are predicted by the profile, whose CPU is not here. The bundle takes"
            f" {human_bytes(bundle.size_bytes)} and not {human_bytes(bundle.unshared_bytes)},"
            f" because variants share weights; made in {bundle.seconds:.0f} s."
        )

    def _serve(self, children: Children) -> Fleet:
        self._begin("A fleet")
        fleet = Fleet(self._folder, children, self._devices)
        broker = fleet.serving.broker_kind
        self._say(
            f"One server ({broker} as broker, SQLite, {fleet.serving.http}) and three devices, each"
            " a process with a store of its own:"
        )
        for command in (fleet.server.command, *map(fleet.start, fleet.devices)):
            self._print(f"  $ {command}")
        self._print("")
        for device in fleet.devices:
            fleet.wait_for(device.thing, "its first sign of life", lambda view: view.online)
        return fleet

    def _first_version(self, fleet: Fleet) -> list[DeviceView]:
        self._begin(f"Version {FIRST} goes out in stages")
        self._deploy(fleet, Path(self._bundles[0].path), FIRST)
        self._say("Applications on the devices ask it, by the protocol of OpenAI, on loopback:")
        self._ask_all(fleet)
        return [
            fleet.wait_for(d.thing, "its report", lambda view: _runs(view, FIRST))
            for d in fleet.devices
        ]

    def _broken_version(self, fleet: Fleet) -> None:
        self._begin(f"Version {BROKEN} is broken")
        path = self._folder / f"{NAME}-{BROKEN}.bundle"
        self._bundles.append(bundles.damaged(Path(self._bundles[0].path), path, BROKEN))
        self._say(
            "Half of one block of weights became zeros after everything had been measured, as if"
            " the builder's memory had failed. All digests are right, so that nothing is wrong"
            " with the bundle but its answers:"
        )
        question = QUESTIONS["gateway-1"]
        wrong = bundles.answer(path, self._profiles[0], question)
        self._say(f"    > {question}\n    {wrong or '(nothing)'}")
        self._say("It is deployed all the same.")
        self._deploy(fleet, path, BROKEN)
        self._say(
            "Before a version answers anybody, a device lets it compute what it computed where it"
            f" was made. This one does not, so {FIRST} went on, the other devices never heard of"
            " it, and nobody had to be called:"
        )
        self._ask_all(fleet)

    def _tuned_version(self, fleet: Fleet) -> float:
        self._begin(f"Version {TUNED} is tuned, and one device is away")
        self._say(
            "One layer was trained on, so that the model asks back after every answer. Converted"
            f" with --base {NAME}-{FIRST}.bundle, all others keep their bytes, so that devices have"
            " them already."
        )
        source = bundles.tuned(self._model, self._folder / "model-tuned")
        bundle = self._converted(source, TUNED, base=Path(self._bundles[0].path))
        away = next(device for device in fleet.devices if device.thing == AWAY)
        assert away.agent is not None
        away.agent.kill()
        fleet.wait_for(AWAY, "its absence", lambda view: not view.online)
        self._say(f"{AWAY} is killed (SIGKILL), and the server knows at once by the broker:")
        self._print("  $ edge-sdk fleet devices\n")
        self._say(fleet_text.devices(fleet.views()))
        fleet.install(Path(bundle.path))
        number = self._begin_rollout(fleet, TUNED)
        fleet.follow(number, self._progress, _all_but_one_have_it)
        self._print("")
        self._say(f"The rollout waits for {AWAY}, which is started again and knows nothing of it.")
        begun = time.monotonic()
        fleet.start(away)
        fleet.wait_for(AWAY, TUNED, lambda view: _runs(view, TUNED))
        seconds = round(time.monotonic() - begun, 1)
        self._end_rollout(fleet, number)
        self._say(f"{seconds:.1f} s after its start {AWAY} runs {TUNED} like the others:")
        self._ask_all(fleet)
        return seconds

    def _converted(self, source: Path, version: str, base: Path | None = None) -> DemoBundle:
        path = self._folder / f"{NAME}-{version}.bundle"
        with spoken_progress() as progress:
            bundle = bundles.converted(
                source, path, self._profiles, version=version, data=self._data,
                progress=progress, base=base,
            )  # fmt: skip
        self._bundles.append(bundle)
        return bundle

    def _deploy(self, fleet: Fleet, bundle: Path, version: str) -> None:
        fleet.install(bundle)
        self._end_rollout(fleet, self._begin_rollout(fleet, version))

    def _begin_rollout(self, fleet: Fleet, version: str) -> int:
        options = f"--stages {STAGES} --soak {SOAK_S}s --watch"
        self._print(f"  $ edge-sdk fleet deploy {NAME}:{version} {options}\n")
        return fleet.deploy(version)

    def _end_rollout(self, fleet: Fleet, number: int) -> None:
        view = fleet.follow(number, self._progress, lambda view: view.status in ENDED)
        self._print("")
        self._rollouts.append(outcome(view))

    def _progress(self, view: RolloutView) -> None:
        answers = ", ".join(f"{count} {answer}" for answer, count in view.answers.items())
        line = f"{view.status}, stage {view.stage}/{view.stages} ({answers})"
        if view.note not in ("", self._note):
            line += f": {view.note}"
        self._note = view.note
        self._print(textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="    "))

    def _ask_all(self, fleet: Fleet) -> None:
        answers = [fleet.ask(device, QUESTIONS[device.thing]) for device in fleet.devices]
        self._answers += answers
        self._say("\n".join(_spoken(answer) for answer in answers))

    def _begin(self, title: str) -> None:
        self._chapter += 1
        self._print(f"{self._chapter}. {title}\n")

    def _say(self, text: str) -> None:
        """A paragraph; one of several lines stays as it is."""
        self._print((text if "\n" in text else textwrap.fill(text, WIDTH)) + "\n")


def _all_but_one_have_it(view: RolloutView) -> bool:
    return view.answers.get("done") == view.devices - 1


def _runs(view: DeviceView, version: str) -> bool:
    model = view.reported.get(NAME)
    return model is not None and model.status == "running" and model.version == version


def _row(variant: DemoVariant) -> tuple[str, ...]:
    speed = "-" if variant.speedup is None else f"{variant.speedup:.2f}x"
    return (
        variant.profile,
        variant.recipe,
        human_bytes(variant.size_bytes),
        f"{variant.size_ratio:.2f}x",
        speed if variant.speedup_measured else f"~{speed}",
        f"{variant.increase:+.2%}",
    )


def _spoken(answer: DemoAnswer) -> str:
    return (
        f"  {answer.thing}, {answer.version}, {answer.ms:.0f} ms\n"
        f"    > {answer.question}\n    {answer.answer}"
    )


def _device(first: DeviceView, last: DeviceView) -> DemoDevice:
    return DemoDevice(
        thing=last.thing,
        profile=last.profile,
        labels=last.labels,
        first_bytes=first.reported[NAME].fetched or 0,
        tuned_bytes=last.reported[NAME].fetched or 0,
        version=last.reported[NAME].version,
    )


def _costs(devices: tuple[DemoDevice, ...]) -> str:
    rows = [
        (
            device.thing, device.profile, human_bytes(device.first_bytes),
            human_bytes(device.tuned_bytes), f"{device.tuned_bytes / device.first_bytes:.0%}",
        )
        for device in devices
    ]  # fmt: skip
    return "What each device fetched:\n\n" + table(
        ("device", "profile", FIRST, TUNED, "share"), rows
    )
