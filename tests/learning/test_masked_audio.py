"""What pretraining on recordings hides, joins and foretells."""

import pytest
import torch
from torch import nn

from learning.interfaces import Backbone, PackedFeatures
from learning.tasks.masked_audio import MaskedAudio, MaskedAudioConfig, MaskedAudioState, hidden, positions

BANDS = 3


@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
def test_a_share_of_the_time_is_hidden_in_stretches_within_rows(share):
    torch.manual_seed(0)
    length_B = torch.randint(40, 300, (400,))
    hidden_S = hidden(length_B, share, 10.0)
    assert float(hidden_S.float().mean()) == pytest.approx(share, abs=0.03)
    # A stretch ends with its row: the first frame of a row is hidden only where one begins, as many as anywhere.
    firsts = hidden_S[length_B.cumsum(0) - length_B]
    assert float(firsts.float().mean()) < share / 2
    row = hidden(torch.tensor([100_000]), 0.01, 10.0).int()
    starts, ends = (row.diff() == 1).nonzero(), (row.diff() == -1).nonzero()
    alone = (ends[: len(starts)] - starts[: len(ends)]).float()
    assert 6 <= float(alone.median()) <= 14


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_frames_belong_to_the_positions_that_a_network_makes_of_them(stride):
    length_B = torch.tensor([3, 41, 16, 1])
    position_B = -(-length_B // stride)
    place_S = torch.arange(int(length_B.sum()))
    position_S, phase_S = positions(place_S, length_B, position_B)
    expected = [
        (int(position_B[:row].sum()) + frame // stride, frame % stride * 4 // stride)
        for row, length in enumerate(length_B.tolist())
        for frame in range(length)
    ]
    assert list(zip(position_S.tolist(), phase_S.tolist(), strict=True)) == expected


class Known(Backbone):
    """Positions of two frames each, whose features are all that is heard there; what was heard is kept."""

    width = 2 * BANDS

    def forward(self, batch):
        self.heard = batch
        rows = batch["frame_SF"].split(batch["length_B"].tolist())
        features = [nn.functional.pad(row, (0, 0, 0, len(row) % 2)).reshape(-1, self.width) for row in rows]
        return PackedFeatures(torch.cat(features), torch.tensor([len(row) for row in features]))


class Everything(nn.Module):
    """Foretells for every frame that it is so loud in all bands."""

    def forward(self, features_SD):
        return torch.full((len(features_SD), 4, BANDS), 2.0)


def test_the_loss_is_that_of_hidden_frames_as_they_were():
    torch.manual_seed(0)
    network = nn.Module()
    network.backbone, network.head = Known(), Everything()
    batch = {"frame_SF": torch.full((90, BANDS), 5.0), "length_B": torch.tensor([41, 49])}
    config = MaskedAudioConfig(augmentation="none", joined=1)
    state = MaskedAudioState(mels=BANDS, frame_seconds=0.01, config=config)
    assert float(MaskedAudio().loss(network, batch, state)) == pytest.approx(3.0)
    shown_S = network.backbone.heard["frame_SF"].sum(1)
    assert set(shown_S.tolist()) == {0.0, 15.0}
    assert network.backbone.heard["length_B"].tolist() == [41, 49]
