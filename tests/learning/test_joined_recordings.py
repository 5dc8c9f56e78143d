"""Recordings of a batch put one after another: how many, with what between them, and that training hears it."""

import pytest
import torch
from runs import SPEECH, Recorder, run, small_sounds, spec_of, write
from torch import nn

from learning import checkpoint
from learning.interfaces import PackedFeatures
from learning.joined_recordings import neighbours, put_together, summed
from learning.tasks.speech_recognition import SpeechRecognition, SpeechRecognitionState

BANDS = 3


def test_neighbours_are_joined_up_to_a_number_and_a_length():
    torch.manual_seed(0)
    length_B = torch.full((1000,), 10)
    count_J = neighbours(length_B, 4, 35)
    assert set(count_J.tolist()) == {1, 2, 3}
    assert summed(length_B, count_J).tolist() == (10 * count_J).tolist()
    assert int(count_J.sum()) == 1000
    assert set(neighbours(length_B, 4, 1e9).tolist()) == {1, 2, 3, 4}
    assert neighbours(length_B, 1, 1e9).tolist() == [1] * 1000


@pytest.mark.parametrize("normalization", ["recording", "bands", "none"])
def test_joined_recordings_keep_their_order_and_have_silence_between(normalization):
    torch.manual_seed(0)
    frame_SF, length_B = torch.randn(24, BANDS), torch.tensor([5, 7, 3, 9])
    whole_SF, length_J = put_together(frame_SF, length_B, torch.tensor([1, 3]), (2, 4), normalization)
    assert whole_SF[:5].equal(frame_SF[:5])  # alone: as it was
    joined_TF = whole_SF[5:]
    assert length_J.tolist() == [5, len(joined_TF)]
    assert 19 + 2 * 2 <= len(joined_TF) <= 19 + 2 * 4
    silent_T = (joined_TF.diff(dim=0).abs().sum(1) < 1e-6).nonzero().squeeze(1) + 1
    assert set(silent_T.tolist()) & {0, len(joined_TF) - 1} == set()
    if normalization == "none":
        kept_T = ~(joined_TF == frame_SF[5:].min()).all(1)
        assert joined_TF[kept_T].equal(frame_SF[5:])
        return
    over = (0,) if normalization == "bands" else (0, 1)
    assert joined_TF.mean(over).abs().max() < 1e-5
    assert (joined_TF.std(over, correction=0) - 1).abs().max() < 1e-5
    # But for scale and shift, what was there: the first recording's frames come first, the last one's last.
    for ours_TF, theirs_TF in ((joined_TF[:7], frame_SF[5:12]), (joined_TF[-9:], frame_SF[-9:])):
        for band in range(BANDS):
            assert torch.corrcoef(torch.stack([ours_TF[:, band], theirs_TF[:, band]]))[0, 1] > 0.9999


class Heard(nn.Module):
    """Says nothing in particular, and remembers what it heard."""

    def forward(self, batch):
        self.length_B = batch["length_B"]
        log_SV = torch.zeros(int(self.length_B.sum()), 4).log_softmax(1)
        return PackedFeatures(log_SV, self.length_B)


@pytest.mark.parametrize(("characters", "between"), [((" ", "a", "b"), [1]), (("a", "b", "c"), [])])
def test_what_joined_recordings_say_is_what_they_say_one_after_another(characters, between, monkeypatch):
    """Transcripts are joined as their recordings are, by a space where transcripts have spaces, in training only."""
    said = []
    monkeypatch.setattr(
        "torch.nn.functional.ctc_loss",
        lambda log, tokens, positions, count, **_: said.append((tokens.tolist(), count.tolist())) or log.sum(),
    )
    state = SpeechRecognitionState(
        target="text", characters=characters, lower_case=True, frame_seconds=0.01, view=None, joined=2
    )
    target_BL = torch.tensor([[2, 3, -1], [3, -1, -1], [0, 2, 2]], dtype=torch.int32)
    batch = {"frame_SF": torch.randn(60, BANDS), "length_B": torch.tensor([20, 15, 25]), "target_BL": target_BL}
    network = Heard()
    SpeechRecognition().loss(network.eval(), batch, state)
    assert said.pop() == ([2, 3, 3, 2, 2], [2, 1, 2])
    assert network.length_B.tolist() == [20, 15, 25]
    parts, lengths = [[2, 3], [3], [2, 2]], [20, 15, 25]
    met = set()
    for seed in range(20):
        torch.manual_seed(seed)
        SpeechRecognition().loss(network.train(), batch, state)
        tokens, counts = said.pop()
        first = next(number for number in (1, 2) if counts[0] == len(_said(parts[:number], between)))
        groups = [parts[:first], *([parts[first:]] if len(counts) == 2 else [[part] for part in parts[first:]])]
        assert tokens == [token for group in groups for token in _said(group, between)]
        if first == 2:
            assert 35 + 5 <= int(network.length_B[0]) <= 35 + 30
        else:
            assert int(network.length_B[0]) == lengths[0]
        met.add(len(counts))
    assert met == {2, 3}


def _said(parts, between):
    found = [token for part in parts for token in (*between, *part)]
    return found[len(between) :]


def test_joining_is_drawn_by_the_seed_and_known_after_a_stop(tmp_path):
    table = write(small_sounds(24), tmp_path / "t.arrow")

    def weights(name, joined=4, **more):
        given = {"epochs": 2, "batch_size": 8}
        spec = spec_of(SPEECH, task_config={"joined": joined}, hyperparameters=given, split={"validation": 0.0})
        outcome = run(spec, {"train": table}, tmp_path / name, **more).outcome
        return outcome, [tensor.flatten().float() for tensor in outcome.weights.values()]

    whole = torch.cat(weights("whole")[1])
    assert not whole.equal(torch.cat(weights("alone", joined=1)[1]))
    stopped, _ = weights("stopped", recorder=Recorder(stop_after=4))
    assert not stopped.finished
    assert whole.equal(torch.cat(weights("rest", resume=checkpoint.read(stopped.checkpoint))[1]))
