"""Batch normalisation folded into convolutions: the outputs are the same, and none of it is left."""

import copy

import pyarrow as pa
import pytest
import torch
from media_files import png
from torch import nn

from learning import images
from learning.architectures import ARCHITECTURES
from learning.architectures.packed_convolution import StripConvolution
from learning.config import Columns
from learning.folding import fold
from learning.media_types import MEDIA_TYPES
from learning.modalities.image import Image, ImageConfig


def shaken(network: nn.Module) -> nn.Module:
    """Return a network in evaluation that has seen other values than a standard normal's."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return network.eval()


@pytest.mark.parametrize(("name", "options"), [("resnet", {"size": "18"}), ("resnet", {"size": "50"}), ("vgg", {})])
def test_networks_of_images_compute_the_same(name, options):
    torch.manual_seed(0)
    content = png(1)
    cells = pa.array([{"bytes": content, **images.inspect(content)._asdict()}], MEDIA_TYPES["image"])
    state = Image().fit(pa.table({"image": cells}), Columns(), ImageConfig(size=32))
    architecture = ARCHITECTURES[name]
    network = shaken(architecture.build(architecture.Config.model_validate(options), state))
    folded = copy.deepcopy(network)
    fold(folded)
    batch = {"image_BCHW": torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)}
    with torch.inference_mode():
        expected, found = network(batch).features_BTD, folded(batch).features_BTD
    assert not [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)]
    assert float(expected.abs().max()) > 0.1
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_strips_compute_the_same():
    torch.manual_seed(0)
    network = shaken(StripConvolution(2, 4, (2, 1)))
    folded = copy.deepcopy(network)
    fold(folded)
    with torch.inference_mode():
        values = torch.randn(1, 2, 40, 16)
        assert torch.allclose(folded(values), network(values), atol=1e-5)
    assert isinstance(folded.normalization, nn.Identity)


def test_what_does_not_follow_a_convolution_stays():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.BatchNorm2d(2)).eval()
    fold(network)
    assert [type(module) for module in network] == [nn.Conv2d, nn.ReLU, nn.BatchNorm2d]
