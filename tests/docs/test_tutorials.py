"""Every command and every piece of Python in the documentation works as it stands there."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edge_sdk
from benchmarks.llm import model as llm_model
from converters import convert
from converters.metrics import find_metric
from device_profiles.loader import profile_path
from edge_sdk.serving.router import Router
from edge_sdk.serving.served import Served
from edge_sdk.serving.server import serve
from tests.cli.models import write
from tests.docs.runner import ROOT, blocks, commands, run_command, run_page
from tests.generation import tiny
from tests.passes.models import graph, normal
from tests.runtime import test_audio, test_image, test_tasks
from tests.runtime.test_text import embedder, text_classifier

EXAMPLES = ROOT / "examples"


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_converting(here):
    for name in ("digits", "recurrent"):
        shutil.copytree(EXAMPLES / name, here / name)
    run_page("docs/tutorial-convert.md", without="skopeo")


@pytest.mark.slow  # the demo converts the same model in the default run
def test_dialogue(here):
    shutil.copytree(EXAMPLES / "assistant", here / "assistant")
    run_page("docs/tutorial-dialogue.md")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> Path:
    """The examples as bundles; a forced recipe converts in seconds."""
    folder = tmp_path_factory.mktemp("bundles")
    recipe = folder / "small.toml"
    recipe.write_text('name = "int8-stored"\n', encoding="utf-8")
    for name in ("digits", "recurrent"):
        convert(
            EXAMPLES / name / f"{name}.onnx",
            ["x86-64"],
            folder / f"{name}.bundle",
            data=EXAMPLES / name / "calibration.npz",
            recipe=recipe,
        )
    return folder


@pytest.fixture
def images() -> np.ndarray:
    with np.load(EXAMPLES / "digits/heldout.npz") as arrays:
        return arrays["image"]


def test_running(here, bundles, images):
    shutil.copytree(bundles, here, dirs_exist_ok=True)
    embedder(here / "minilm.bundle")
    text_classifier(here / "intents.bundle")
    tiny.bundle(here / "assistant.bundle")
    test_image.judge(here / "birds.bundle")
    Image.new("RGB", (8, 8), "red").save("bird.jpg")
    np.save("logo.npy", np.zeros((64, 64, 4), np.uint8))
    test_audio.alarm(here / "alarms.bundle")
    test_audio.speller(here / "speech.bundle", vocabulary=test_audio.JSON)
    samples = test_audio.spoken("_a_b ")
    test_audio.riff(here / "order.wav", 3, 32, 1_000, 1, samples.astype("<f4").tobytes())
    test_tasks.tagger(here / "names.bundle")
    test_tasks.reader(here / "reader.bundle")
    test_tasks.filler(here / "gaps.bundle")
    np.savez("x.npz", image=images)
    np.savez("doubles.npz", image=images[:1].astype(float))
    with np.load(EXAMPLES / "recurrent/heldout.npz") as arrays:
        recording = arrays["x"][0][:, None]
    names = {
        "image": images[:1],
        "recording": recording,
        "samples": samples,
        "question": "what is red?",
        "context": "a red blue sky of green",
    }
    run_page("docs/running.md", names)


def test_generation(here):
    personas = {"pirate": tiny.adapter(0), "terse": tiny.adapter(1)}
    tiny.bundle(here / "assistant.bundle", adapters=personas)
    run_page("docs/generation.md")


@pytest.mark.needs("curl", "curl")
def test_local_api(here, bundles, images, monkeypatch):
    shutil.copytree(bundles / "digits.bundle", "digits.bundle")
    router = Router()
    running = serve(router)
    try:
        for bundle in ("digits.bundle", tiny.bundle(here / "assistant.bundle")):
            model = edge_sdk.load(bundle)
            router.swap(Path(bundle).stem, Served(model, "sha256:" + "0" * 64))
        monkeypatch.setenv("API", f"http://{running.host}:{running.port}")
        run_page("docs/local-api.md", {"image": images[:1]})
    finally:
        running.stop()
        router.close()


def test_readme(here, images):
    shutil.copy(EXAMPLES / "digits/digits.onnx", "model.onnx")
    shutil.copy(EXAMPLES / "digits/calibration.npz", "samples.npz")
    np.savez("x.npz", image=images)
    run_page("README.md", {"image": images[:1]})


def test_measuring(here, bundles):
    shutil.copytree(bundles / "digits.bundle", "model.bundle")
    shutil.copy(EXAMPLES / "digits/digits.onnx", "model.onnx")
    shutil.copy(EXAMPLES / "digits/heldout.npz", "samples.npz")
    tokens = "float[batch, sequence_length, 16]"
    dense = graph(f"({tokens} x) => ({tokens} y)", "y = MatMul (x, w)", w=normal(16, 16))
    write(dense, here / "encoder.onnx")
    llm_model.write(here / "SmolLM2-360M-Instruct", llm_model.TINY)
    run_page("docs/measuring.md")


def test_device_profiles(here):
    profile = profile_path("board-512mb").read_text(encoding="utf-8")
    wrong = profile.replace('"arm64"', '"x86_64"').replace("total_mib", "total_mb")
    Path("typos.toml").write_text(wrong, encoding="utf-8")
    run_page("docs/device-profiles.md")


def test_data_and_metrics(here, images, monkeypatch):
    run_page(
        "docs/data-and-metrics.md", {"np": np, "images": images, "classes": images[:, 0, 0, 0]}
    )
    monkeypatch.syspath_prepend(here)
    metric = find_metric("my_metrics:mean_error")
    assert metric.function([np.ones(2)], [np.zeros(2)]) == 1
    assert metric.drop(0.5, 0.75) == 0.25


@pytest.mark.needs("skopeo", "skopeo")
def test_every_skopeo_command(here, bundles):
    shutil.copytree(bundles / "digits.bundle", "digits.bundle")
    found = [
        command
        for page in ("docs/tutorial-convert.md", "docs/bundle-format.md")
        for block in blocks(page)
        for command in commands(block)
        if command.program == "skopeo"
    ]
    assert len(found) == 3
    for command in found:
        run_command(replace(command, shown=""))
