"""The four real networks: against what the authors' code computed, and the cuts of Table 6."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common.adapter import Adapter, score_source, stack_batches
from common.protocols import METHODS
from scripts import verify_reference
from tests.conftest import make_batch
from weights.networks import BACKBONES

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize(
    "backbone, runs",
    [  # one run per network that uses all of its protocol; without --runs the command does all, in minutes
        ("metaiqa", []),
        ("hyperiqa", ["--runs", "rank+gc"]),
        ("tres", ["--runs", "rank+gc"]),
        ("musiq", ["--runs", "gc"]),
    ],
)
def test_released_protocol_computes_what_the_authors_code_does(backbone, runs, capsys):
    assert verify_reference.main([str(GOLDEN / f"{backbone}-7.npz"), *runs]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "ok"


def test_a_difference_of_one_millionth_fails(tmp_path, capsys):
    with np.load(GOLDEN / "metaiqa-7.npz") as file:
        arrays = dict(file)
    arrays["gc/prediction"] = arrays["gc/prediction"] * (1 + 3e-6)
    np.savez(tmp_path / "changed.npz", **arrays)
    assert verify_reference.main([str(tmp_path / "changed.npz"), "--runs", "gc"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if "FAIL" in line] == ["gc/prediction", "FAIL"]


def test_a_run_that_the_file_lacks_does_not_pass(capsys):
    assert verify_reference.main([str(GOLDEN / "metaiqa-7.npz"), "--runs", "rnak"]) == 2
    assert "no run rnak; its runs are rank, gc" in capsys.readouterr().err


def test_a_file_that_is_no_reference(tmp_path, capsys):
    (tmp_path / "x.npz").write_text("no")
    assert verify_reference.main([str(tmp_path / "x.npz")]) == 2
    assert "not a reference file" in capsys.readouterr().err


@pytest.mark.parametrize("backbone", BACKBONES)
def test_an_image_is_scored_alike_in_any_company(backbone):
    torch.manual_seed(0)
    network = BACKBONES[backbone].network().eval()
    x = torch.randn(3, 3, 224, 224)
    with torch.no_grad():
        together = network(x)
        alone = torch.cat([network(image[None]) for image in x])
    assert together.shape == (3,) and together.std() > 0
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4 * float(together.abs().max()))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_no_layer_of_a_frozen_network_runs_as_a_product_per_image(backbone):
    """As torch runs a linear layer on inputs that are not contiguous, where nothing asks for a gradient."""
    network = BACKBONES[backbone].network().eval().requires_grad_(False)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        network(torch.randn(2, 3, 224, 224))
    ran = {event.key for event in profile.key_averages()}
    assert "aten::addmm" in ran and "aten::bmm" not in ran


@pytest.mark.parametrize("backbone, adapt", [("tres", ("bn", "ln")), ("musiq", ("bn", "ln", "cls"))])
def test_transformer_inside_the_extractor(backbone, adapt):
    """Table 6: all that is asked for gets a gradient and moves, at the learning rate."""
    torch.manual_seed(0)
    protocol = replace(BACKBONES[backbone].protocols["paper"], cut="transformer")
    ynet = BACKBONES[backbone].wrap(BACKBONES[backbone].network(), protocol)
    ynet.draw_head(0)
    adapter = Adapter(ynet, protocol, replace(METHODS["gc"], adapt=adapt, niter=1))
    images = stack_batches(ynet, [make_batch(4, 0, types=(), side=224)])
    source = score_source(ynet, images, protocol, choose=False)
    *_, (state, _) = adapter.steps(images, source, adapter.groups(images, source), 1)
    kinds = {"bn": "bn", "ln": "norm", "cls": "cls_token"}
    for kind in adapt:
        moved = [
            float((value[0].detach() - ynet.state_dict()[name]).abs().max())
            for name, value in state.parameters.items()
            if kinds[kind] in name.replace("downsample.1", "bn")
        ]
        assert moved and max(moved) == pytest.approx(protocol.lr, rel=1e-2)
    assert adapter.answer(images.clean, state).isfinite().all()
