"""Hidden patches of images: how many, what the loss is by hand, and that training restores them."""

import pytest
import torch
from runs import TINY, run, small_images, spec_of, write

from learning.preparation import encode_part, prepare

TASK, SIDE = "masked-images", 15


def spec(**fields):
    # No multiple of a cell, which is 2 pixels wide in resnet and 8 in vgg.
    return spec_of(TASK, "pretrain", preprocessing={"size": SIDE}, split={"validation": 0.0}, **fields)


@pytest.fixture
def table(tmp_path):
    return write(small_images(), tmp_path / "rows.arrow")


class Blank(torch.nn.Module):
    """A backbone that remembers what it was shown and sees nothing in it."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.shown = backbone, None

    def forward(self, batch):
        self.shown = batch["image_BCHW"]
        features = self.backbone(batch)
        return features._replace(features_BTD=torch.zeros_like(features.features_BTD))


@pytest.mark.parametrize("architecture", ["resnet", "vgg"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.94])
def test_the_loss_is_the_mean_error_in_the_pixels_of_hidden_patches(table, architecture, share):
    asked = spec(architecture=architecture, task_config={"mask_share": share, "augmentation": "none"})
    prepared = prepare(asked, {"train": table}, device=torch.device("cpu"))
    network, task, state = prepared.network, prepared.design.task, prepared.design.targets
    batch = next(encode_part(prepared.design, small_images(), torch.device("cpu")).everything())
    network.backbone, side = Blank(network.backbone), network.head.side
    torch.nn.init.zeros_(network.head.pixels.bias)  # so that it says the mean everywhere
    loss = float(task.loss(network, batch, state).detach())
    image_BCHW, cells = batch["image_BCHW"].float(), -(-SIDE // side)
    mean_C11, deviation_C11 = (
        255 * torch.tensor(each).view(-1, 1, 1) for each in (state.inputs.mean, state.inputs.deviation)
    )
    hidden_B1HW = (network.backbone.shown == mean_C11).all(1, keepdim=True)
    expected = max(1, min(round(share * cells**2), cells**2 - 1))
    for hidden_1HW in hidden_B1HW:
        patches = [patch for row in hidden_1HW[0].split(side) for patch in row.split(side, 1)]
        assert all(patch.all() or not patch.any() for patch in patches)
        assert sum(bool(patch.all()) for patch in patches) == expected
    seen = hidden_B1HW.clone()
    grid = SIDE // side * side if architecture == "vgg" else SIDE  # its poolings leave out what makes no whole cell
    seen[:, :, grid:], seen[:, :, :, grid:] = False, False
    error_BCHW = ((image_BCHW - mean_C11) / deviation_C11).abs()
    assert loss == pytest.approx(float(error_BCHW[seen.expand_as(error_BCHW)].mean()), rel=1e-5)


@pytest.mark.parametrize("augmentation", ["none", "crop", "crop-and-mirror"])
def test_hidden_patches_are_restored_better_than_by_the_mean(table, tmp_path, augmentation):
    losses = []
    for steps in (1, 150):
        asked = spec(
            architecture_config=TINY["resnet"],
            task_config={"mask_share": 0.3, "augmentation": augmentation},
            hyperparameters={"max_steps": steps, "batch_size": 20, "learning_rate": 3e-3},
        )
        losses.append(run(asked, {"train": table}, tmp_path).metrics["train"]["loss"])
    assert losses[1] < 0.85 * losses[0]
