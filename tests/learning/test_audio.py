"""Recordings as inputs, spectrograms beside a reference, networks on strips, and how sounds are changed in training."""

import base64
import io
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch
from media_files import tone, wav
from runs import small_sounds
from transformers import audio_utils

from learning import audio
from learning.architectures import ARCHITECTURES
from learning.architectures.speaker_net import AttentiveStatistics
from learning.config import Columns
from learning.errors import InvalidConfig, InvalidData, InvalidInput
from learning.interfaces import PackedFeatures
from learning.media_types import MEDIA_TYPES, UnreadableMedia
from learning.modalities.audio import Audio, AudioConfig, AudioRow
from learning.spectrogram_augmentation import MASKS, SPEECH, SoundView, audible, augment
from learning.spectrograms import LogMel, mel_filters

AUDIO = Audio()


def table_of(*contents: bytes) -> pa.Table:
    cells = [None if one is None else {"bytes": one, **audio.inspect(one)._asdict()} for one in contents]
    return pa.table({"audio": pa.array(cells, MEDIA_TYPES["audio"])})


def state_of(*contents: bytes, **config):
    return AUDIO.fit(table_of(*(contents or (tone(),))), Columns(), AudioConfig(**config))


def written(samples, rate: int, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("rate", "window", "hop", "mels"), [(8000, 200, 80, 40), (16_000, 512, 160, 64)])
def test_log_mel_is_what_transformers_computes(rate, window, hop, mels):
    generator = np.random.default_rng(0)
    samples = (generator.normal(0, 0.1, rate // 2) * np.linspace(0, 1, rate // 2)).astype(np.float32)
    ours = LogMel(rate, window, hop, mels, "none")
    filters = audio_utils.mel_filter_bank(ours.transform // 2 + 1, mels, 0, rate / 2, rate, mel_scale="htk")
    assert np.abs(ours.filters_KF.numpy() - filters).max() < 1e-5
    theirs = audio_utils.spectrogram(
        samples.astype(np.float64),
        audio_utils.window_function(window, "hann"),
        window,
        hop,
        ours.transform,
        power=2.0,
        pad_mode="constant",
        mel_filters=filters,
        mel_floor=1e-10,
    )
    floor = theirs.max() * 1e-8
    assert np.abs(ours.frames(samples).numpy() - np.log(np.maximum(theirs, floor)).T).max() < 1e-4


def test_a_tone_is_heard_in_its_band():
    log_mel = LogMel(8000, 200, 80, 40, "none")
    corners = mel_filters(8000, 256, 40)
    for pitch in (300, 1000, 3000):
        recording = audio.decode(tone(0.3, pitch=pitch), 8000, 30)
        heard = int(log_mel.frames(recording.samples_N)[10].argmax())
        assert corners[round(pitch / (4000 / 128)), heard] > 0.4


def test_normalisation_is_by_recording_or_by_band():
    samples = np.random.default_rng(1).normal(0, 0.1, 4000).astype(np.float32)
    whole, bands = (LogMel(8000, 200, 80, 40, kind).frames(samples) for kind in ("recording", "bands"))
    assert abs(float(whole.mean())) < 1e-5
    assert float(whole.std(correction=0)) == pytest.approx(1, abs=1e-4)
    assert whole.mean(0).abs().max() > 0.1
    assert bands.mean(0).abs().max() < 1e-4
    louder = LogMel(8000, 200, 80, 40).frames(samples * 8)
    assert torch.allclose(louder, whole, atol=1e-4)


@pytest.mark.parametrize("kind", [("WAV", "PCM_U8"), ("WAV", "PCM_24"), ("FLAC", None), ("OGG", None), ("MP3", None)])
def test_every_format_gives_the_same_spectrogram(kind):
    format, subtype = kind
    samples = audio.decode(tone(0.5), 8000, 30).samples_N
    options = {"subtype": subtype} if subtype else {}
    (frames, *_), _ = AUDIO.parse(written(samples, 8000, format, **options), 0, state_of())
    (expected, *_), _ = AUDIO.parse(tone(0.5), 0, state_of())
    # What a lossy format adds is far quieter than the tone, which is all that is compared.
    assert int(frames[20].argmax()) == int(expected[20].argmax())
    assert abs(len(frames) - len(expected)) <= 20


def test_resampling_keeps_what_is_heard():
    state = state_of(tone())
    (original, none), (resampled, warnings) = (AUDIO.parse(tone(0.4, rate, 700), 0, state) for rate in (8000, 96_000))
    assert none == []
    assert [warning.code for warning in warnings] == ["resampled"]
    assert "from 96000 to 8000 samples a second" in warnings[0].message
    assert AUDIO.positions(resampled) == AUDIO.positions(original)
    assert int(resampled.frame_TF[20].argmax()) == int(original.frame_TF[20].argmax())
    high = audio.decode(tone(0.4, 96_000, 20_000), 8000, 30).samples_N  # above what the lower rate can hold
    assert np.abs(high[200:-200]).max() < 1e-3


def test_channels_are_mixed_and_it_is_said():
    first, second = (np.random.default_rng(seed).integers(-9000, 9000, 1600) for seed in (0, 1))
    both = audio.decode(wav(np.stack([first, second], 1)), 8000, 30)
    assert np.allclose(both.samples_N, (first + second) / 2 / 32768, atol=1e-6)
    _, warnings = AUDIO.parse(tone(0.2, channels=8), 0, state_of())
    assert [(warning.code, warning.index) for warning in warnings] == [("mixed_channels", 0)]
    assert "the mean of the 8 channels is read" in warnings[0].message


def test_what_is_silent_or_too_long_is_said():
    silence = wav(np.zeros((2400, 1)))
    state = state_of(max_seconds=0.2)
    (row, *_), warnings = AUDIO.parse(silence, 3, state)
    assert [warning.code for warning in warnings] == ["truncated", "silent"]
    assert "only the first 0.2 of 0.3 s are read" in warnings[0].message
    assert len(row) == 21
    assert (row == 0).all()
    remarks = AUDIO.remarks(
        table_of(tone(), silence, tone(0.1, 16_000), tone(0.1, channels=2)).append_column("mood", [["a"] * 4]),
        Columns(),
        state,
    )
    assert remarks == [
        "1 training recording has more than one channel; their mean is read.",
        "1 training recording has another rate than 8000 samples a second, to which all are resampled.",
        "1 training recording has more than 0.2 s; the rest of them is not read.",
        "1 training recording is silent (training row 2).",
        "Only recordings are read; these columns are not used: mood.",
    ]
    assert AUDIO.remarks(table_of(tone()), Columns(), state) == []


def test_a_long_recording_is_silent_when_all_of_it_is():
    state, silence, noise = state_of(), np.zeros((4 * 8000, 1)), np.full((8000, 1), 9000)
    for late in (silence, noise):
        row, warnings = AUDIO.parse_long(wav(np.concatenate([silence, late])), 2, state, 3)
        assert row.whole is not None
        assert [(one.index, one.code) for one in warnings] == ([(2, "silent")] if late is silence else [])
    # What two channels cancel out is nothing to hear, as where all of it is read at once.
    both = np.concatenate([noise, -noise], 1).repeat(4, 0)
    assert [one.code for one in AUDIO.parse_long(wav(both), 0, state, 3)[1]] == ["mixed_channels", "silent"]


def test_how_loud_an_hour_is_takes_no_more_memory_than_a_block():
    content = written(np.zeros(3600 * 2000, np.float32), 2000, "FLAC")
    tracemalloc.start()
    found = audio.loudest(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == 0
    assert peak < 6 << 20


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"", "the file is empty. Write or copy the recording again."),
        (tone()[:-100], "cut off: 1544 of 1644 bytes"),
        (tone()[:44], "cut off"),
        (wav(np.zeros((0, 1))), "is a recording without a sample"),
        (b"fLaC" + bytes(60), "is a FLAC recording that cannot be decoded"),
        (base64.b64encode(b"\x89PNG\r\n\x1a\n").decode(), "is a PNG image"),
        ("no sound", '"no sound" is no base64'),
        ("https://example.org/a.wav", "an address is not fetched"),
        ({"sound": "x"}, "is missing"),
        (7, "7 is no recording"),
        (written(np.full(800, np.nan, np.float32), 8000, "WAV", subtype="FLOAT"), "samples that are no numbers"),
    ],
)
def test_what_is_no_recording_is_said(value, said):
    with pytest.raises(InvalidInput, match="Input 4") as caught:
        AUDIO.parse(value, 4, state_of())
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (written(np.full(800, np.nan, np.float32), 8000, "WAV", subtype="FLOAT"), "samples that are no numbers"),
        (written(np.full(800, 1e30, np.float32), 8000, "WAV", subtype="FLOAT"), "or far beyond -1 to 1"),
    ],
)
def test_an_upload_is_refused_what_could_not_be_learned_from(content, said):
    with pytest.raises(UnreadableMedia) as caught:
        audio.inspect(content)
    assert said in caught.value.what


def test_the_rate_is_the_usual_one_of_the_rows_and_bands_must_hear():
    assert state_of(tone(), tone(), tone(0.1, 44_100)).rate == 8000
    assert state_of(tone(0.1, 44_100)).rate == 16_000
    assert state_of(tone(), rate=22_050).window == 551
    with pytest.raises(InvalidConfig, match=r"of 200 mel bands would be empty.*200 samples at 8000"):
        state_of(tone(), mels=200)


def test_a_cell_that_no_longer_decodes_is_named():
    table = table_of(tone(), tone())
    cells = table.column("audio").to_pylist()
    cells[1]["bytes"] = cells[1]["bytes"][:50]
    with pytest.raises(InvalidData, match='Row 2, column "audio": the file is a WAV recording cut off'):
        AUDIO.encode(pa.table({"audio": pa.array(cells, MEDIA_TYPES["audio"])}), state_of())


@pytest.mark.parametrize("name", [name for name, found in ARCHITECTURES.items() if found.modality == "audio"])
def test_nothing_of_a_row_depends_on_its_neighbours(name):
    architecture = ARCHITECTURES[name]
    torch.manual_seed(0)
    backbone = architecture.build(architecture.Config(), state_of()).eval()
    for module in backbone.modules():  # normalisation that does something, as after training
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
    rows = [AudioRow(torch.randn(length, 40)) for length in (1, 9, 4, 37, 2, 9, 16)]
    with torch.inference_mode():
        together = backbone(AUDIO.assemble(rows, state_of()))
        alone = [backbone(AUDIO.assemble([row], state_of())).features_SD for row in rows]
    assert together.length_B.tolist() == [len(features) for features in alone]
    assert torch.allclose(together.features_SD, torch.cat(alone), atol=1e-5)


def test_attentive_statistics_are_those_of_each_row_by_itself():
    torch.manual_seed(0)
    pool, length_B = AttentiveStatistics(8), torch.tensor([1, 9, 4])
    frame_SC = 20 * torch.randn(14, 8)
    row_S = torch.repeat_interleave(torch.arange(3), length_B)
    found_BE = pool(PackedFeatures(frame_SC, length_B), row_S)
    for row_TC, found_E in zip(frame_SC.split(length_B.tolist()), found_BE, strict=True):
        mean_C, deviation_C = row_TC.mean(0), row_TC.std(0, correction=0).clamp_min(0.01)
        around_TG = torch.cat([row_TC, mean_C.expand_as(row_TC), deviation_C.expand_as(row_TC)], 1)
        weight_TC = pool.outer(pool.inner(around_TG).tanh()).softmax(0)
        mean_C = (weight_TC * row_TC).sum(0)
        deviation_C = (weight_TC * (row_TC - mean_C).square()).sum(0).clamp_min(1e-4).sqrt()
        assert torch.allclose(found_E, torch.cat([mean_C, deviation_C]), rtol=1e-3, atol=2e-2)


def test_views_follow_from_the_seed_and_keep_rows_apart():
    batch = AUDIO.encode(small_sounds(30), state_of())
    for view in (MASKS, SPEECH):
        torch.manual_seed(1)
        first = augment(batch, view)
        assert not torch.equal(first["frame_SF"], augment(batch, view)["frame_SF"])
        torch.manual_seed(1)
        assert torch.equal(first["frame_SF"], augment(batch, view)["frame_SF"])
        assert int(first["length_B"].sum()) == len(first["frame_SF"])
    assert torch.equal(augment(batch, SoundView())["frame_SF"], batch["frame_SF"])
    # A row's number in every value: a view of it has none of another row's.
    length_B = batch["length_B"]
    number_S1 = torch.repeat_interleave(torch.arange(30.0), length_B).unsqueeze(1)
    moved = augment({"frame_SF": number_S1.repeat(1, 40), "length_B": length_B}, SoundView(speed=0.3, pitch=0.2))
    new_S1 = torch.repeat_interleave(torch.arange(30.0), moved["length_B"]).unsqueeze(1)
    assert torch.allclose(moved["frame_SF"], new_S1.expand(-1, 40), atol=1e-5)
    share = moved["length_B"] / length_B
    assert 0.7 < share.min() < 0.9
    assert 1.1 < share.max() < 1.5


def test_hidden_parts_are_stretches_of_time_and_of_bands():
    length_B = torch.tensor([50] * 40)
    batch = {"frame_SF": torch.ones(2000, 40), "length_B": length_B}
    time = augment(batch, SoundView(time_masks=1, time_share=0.4))["frame_SF"].view(40, 50, 40)
    assert ((time == 0).all(2) | (time == 1).all(2)).all()
    bands = augment(batch, SoundView(band_masks=1, band_share=0.4))["frame_SF"].view(40, 50, 40)
    assert ((bands == 0).all(1) | (bands == 1).all(1)).all()
    for hidden_BN in ((time == 0).all(2), (bands == 0).all(1)):
        assert 0.1 < hidden_BN.float().mean() < 0.3
        assert hidden_BN.int().diff(dim=1).abs().sum(1).max() <= 2  # in one piece


def test_no_word_of_what_is_to_be_written_down_is_hidden_whole():
    length_B = torch.tensor([400] * 60 + [20] * 60)
    frame_SF = torch.ones(int(length_B.sum()), 40)
    view = audible(MASKS, 0.01).model_copy(update={"noise": 0.0, "band_masks": 0})
    for row_TF in augment({"frame_SF": frame_SF, "length_B": length_B}, view)["frame_SF"].split(length_B.tolist()):
        hidden_T = (row_TF == 0).all(1)
        # Two stretches at most, of a tenth of a second or of 15 % of what is shorter than that.
        assert hidden_T.sum() <= (22 if len(hidden_T) == 400 else 8)
    assert audible(MASKS, 0.005).time_frames == 20
