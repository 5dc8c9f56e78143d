"""Transcripts: decoding against every path there is, times, error rates against jiwer, and what does not fit."""

import math
import tracemalloc
from itertools import groupby, product

import jiwer
import numpy as np
import pyarrow as pa
import pytest
import torch
from media_files import tone, wav
from runs import EXACT, SPEECH, run, saved, small_sounds, spec_of, write
from torch import nn
from torch.nn.utils.rnn import pack_sequence, unpack_sequence

from learning import audio, character_model, ctc
from learning.architectures.conv_transformer import ConvTransformer
from learning.architectures.deepspeech import RecurrentLayer
from learning.architectures.packed_recurrence import Turns
from learning.character_model import EDGE, CharacterCounts, CharacterModel
from learning.errors import InvalidConfig, InvalidData
from learning.media_types import MEDIA_TYPES
from learning.modalities.audio import AudioConfig
from learning.model import configure
from learning.packing import plan_batches
from learning.prediction import Predictor
from learning.preparation import prepare
from learning.tasks.transcription import Heard, Transcript, TranscriptOptions
from learning.transcript_room import FRAME_SECONDS, FRAMES_A_POSITION, MOST_SECONDS, TooLong, too_long
from learning.transcripts import ErrorTally, compared, confusions, differences, normalized, words_with_places

TRANSCRIPTS = {"target": "text"}
WHOLE = {"validation": 0.0}


def drawn(generator, positions, tokens, sharp=1.0):
    """Logarithms of probabilities, the likeliest first, and which tokens they are of."""
    log_TV = torch.tensor(sharp * generator.normal(size=(positions, tokens))).log_softmax(1)
    log_TK, token_TK = log_TV.sort(1, descending=True)
    return log_TV.numpy(), token_TK.numpy(), log_TK.numpy()


def collapsed(path):
    return [token for token, _ in groupby(path) if token != ctc.BLANK]


def every_path(log_TV):
    """Each path with its logarithm."""
    positions, tokens = log_TV.shape
    for path in product(range(tokens), repeat=positions):
        yield path, float(log_TV[np.arange(positions), list(path)].sum())


@pytest.mark.parametrize("seed", range(12))
def test_decoding_finds_what_all_paths_together_say(seed):
    generator = np.random.default_rng(seed)
    log_TV, token_TK, log_TK = drawn(generator, int(generator.integers(1, 7)), int(generator.integers(2, 5)))
    paths = list(every_path(log_TV))
    totals: dict[tuple[int, ...], float] = {}
    for path, log in paths:
        text = tuple(collapsed(path))
        totals[text] = float(np.logaddexp(totals.get(text, -math.inf), log))
    assert tuple(ctc.likeliest(token_TK, log_TK, 10_000)) == max(totals, key=totals.__getitem__)
    likeliest_path = max(paths, key=lambda pair: pair[1])[0]
    assert ctc.best_path(token_TK[:, 0]) == collapsed(likeliest_path)


def counted(*sentences, order):
    return CharacterModel(CharacterCounts.of(sentences, order))


@pytest.mark.parametrize("seed", range(8))
def test_decoding_with_a_language_finds_what_is_best_by_both(seed):
    generator = np.random.default_rng(seed)
    log_TV, token_TK, log_TK = drawn(generator, int(generator.integers(2, 6)), 4)
    model, weight, bonus = counted("abba", "cab", order=3), generator.uniform(0.2, 2), generator.uniform(-1, 1)
    totals: dict[tuple[int, ...], float] = {}
    for path, log in every_path(log_TV):
        text = tuple(collapsed(path))
        totals[text] = float(np.logaddexp(totals.get(text, -math.inf), log))
    letters = {0: "", 1: "a", 2: "b", 3: "c"}

    def worth(tokens):
        said = "".join(letters[token] for token in tokens)
        by_language = sum(model.log(said[:place], one) for place, one in enumerate([*said, EDGE]))
        return totals[tokens] + weight * by_language + bonus * len(tokens)

    options = TranscriptOptions(beam_width=100, language_weight=weight, character_bonus=bonus)
    transcript = Transcript(lambda tokens: "".join(letters[token] for token in tokens), options, model)
    transcript.add(Heard(token_TK, log_TK), is_last=True)
    best = max(totals, key=worth)
    assert transcript.text == "".join(letters[token] for token in best)


def test_probabilities_of_characters_are_witten_and_bells_and_add_up():
    model = counted("ab", "ab", "ac", order=2)
    # Behind nothing: a three times, b twice, c once and three ends, of four kinds; behind a: b twice, c once.
    alone = {"a": (3 + 4 / 5) / 13, "b": (2 + 4 / 5) / 13, "c": (1 + 4 / 5) / 13, EDGE: (3 + 4 / 5) / 13}
    assert math.exp(model.log("a", "b")) == pytest.approx((2 + 2 * alone["b"]) / 5)
    assert math.exp(model.log("xa", "a")) == pytest.approx(2 * alone["a"] / 5)
    assert math.exp(model.log("x", "b")) == pytest.approx(alone["b"])
    for before in ("", "a", "ab", "x"):
        assert sum(math.exp(model.log(before, one)) for one in [*"abcx", EDGE]) == pytest.approx(1)
    assert math.exp(counted(order=3).log("a", "b")) == pytest.approx(1 / 2)


def test_counts_of_many_sentences_are_kept_within_bounds():
    generator = np.random.default_rng(0)
    sentences = ["".join(generator.choice([*"abcdefghijklmnopqrst"], 200)) for _ in range(200)]
    counts = CharacterCounts.of(sentences, 6)
    assert 1 < counts.order < 6
    assert sum(map(len, counts.counts.values())) <= 50_000
    assert max(map(len, counts.counts)) == counts.order - 1


def test_a_language_is_weighed_by_a_beam_only():
    with pytest.raises(InvalidConfig, match="set a beam_width of 2 or more"):
        configure(TranscriptOptions, {"language_weight": 1.0}, "parameters")


def test_a_long_text_is_decoded_some_positions_at_a_time_and_nothing_piles_up(monkeypatch):
    _, token_TK, log_TK = drawn(np.random.default_rng(0), 150, 6)
    monkeypatch.setattr(character_model, "_MOST_FOUND", 50)
    model = counted("abba", "cab", "dae", order=3)
    asked: list[str] = []

    def log(before, character):
        asked.append(before)
        return CharacterModel.log(model, before, character)

    options = TranscriptOptions(beam_width=8, language_weight=0.5, character_bonus=0.5)
    transcript = Transcript(prefixed, options, model)
    with monkeypatch.context() as patched:
        patched.setattr(model, "log", log)
        assert 15 <= sum(1 for _ in transcript.adding(Heard(token_TK, log_TK), is_last=True)) <= 150  # positions
    assert max(map(len, asked)) <= 2  # of which the model knows something
    assert len(model._found) <= 50

    search = ctc.Search(
        8, lambda prefix, token: 0.5 * model.log(prefixed(prefix), EDGE if token is None else " abcde"[token])
        + 0.5 * (token is not None)
    )  # fmt: skip
    search.hear(token_TK, log_TK)
    assert transcript.text == prefixed(search.best())
    assert len(transcript.text) > 20
    assert len(search._said) <= 8


def prefixed(tokens):
    return "".join(" abcde"[one] for one in tokens)


def test_a_beam_may_find_what_the_likeliest_path_is_not():
    log_T2 = np.log([[0.6, 0.4], [0.6, 0.4]])  # blank twice is 0.36; the token by any of three paths 0.64
    token_T2 = np.array([[0, 1], [0, 1]])
    assert ctc.best_path(token_T2[:, 0]) == []
    assert ctc.likeliest(token_T2, log_T2, 2) == [1]


@pytest.mark.parametrize("seed", range(12))
def test_alignment_is_the_likeliest_path_of_its_text(seed):
    generator = np.random.default_rng(seed)
    log_TV, token_TK, log_TK = drawn(generator, 6, 3)
    tokens = [[], [1], [2, 2], [1, 2], [1, 1, 2], [2, 1, 2, 1]][seed % 6]
    path = ctc.align(tokens, token_TK, log_TK)
    known = {one: log for one, log in every_path(log_TV) if collapsed(one) == tokens}
    best = max(known, key=known.__getitem__)
    assert path.log_T.sum() == pytest.approx(known[best])
    assert [best[first] for first in path.first_L] == [best[last] for last in path.last_L] == tokens
    assert all(first == 0 or best[first - 1] != best[first] for first in path.first_L)
    enough = (
        length for length in range(7) if any(map(tokens.__eq__, map(collapsed, product(range(3), repeat=length))))
    )
    assert ctc.positions_needed(tokens) == next(enough)


@pytest.mark.parametrize("width", [2, 7, 30])
def test_a_search_leaves_out_only_what_it_would_not_keep_and_lets_others_have_their_turn(width):
    generator = np.random.default_rng(width)
    log_TV = generator.normal(size=(20, 40)) * 2
    log_TV -= np.logaddexp.reduce(log_TV, 1, keepdims=True)
    token_TK = np.argsort(-log_TV, 1)
    log_TK = np.take_along_axis(log_TV, token_TK, 1)
    search, whole = ctc.Search(width), ctc.Search(width, lambda prefix, token: 0.0)
    turns = sum(1 for _ in search.hearing(token_TK, log_TK))
    turns_of_whole = sum(1 for _ in whole.hearing(token_TK, log_TK))
    assert search.best() == whole.best()
    # Where nothing is left out, each of `width` beginnings is gone on with by 40 tokens, at each of 20 positions.
    assert turns_of_whole >= 20 * width * 40 // 600
    assert turns < turns_of_whole


def test_error_rates_are_jiwer_s():
    generator = np.random.default_rng(0)
    vocabulary = ["one", "two", "three", "oh", "o", "twenty-one", "don't"]
    said = [" ".join(generator.choice(vocabulary, generator.integers(1, 8))) for _ in range(60)]
    heard = [" ".join(generator.choice(vocabulary, generator.integers(0, 8))) for _ in range(50)] + said[50:]
    tally = ErrorTally()
    for one, other in zip(said, heard, strict=True):
        tally.add(one, other)
    found, expected = tally.metrics(), jiwer.process_words(said, heard)
    assert found["wer"] == pytest.approx(expected.wer, abs=1e-12)
    assert found["cer"] == pytest.approx(jiwer.cer(said, heard), abs=1e-12)
    total = expected.substitutions + expected.deletions + expected.insertions
    assert found["substitutions"] + found["deletions"] + found["insertions"] == total
    assert found["insertions"] - found["deletions"] == expected.insertions - expected.deletions
    assert found["word_accuracy"] == pytest.approx(1 - expected.wer)
    assert found["exact"] >= 10 / 60
    for one, other in zip(said, heard, strict=True):
        aligned, alone = compared(one, other), jiwer.process_words(one, other)
        errors = aligned["substitutions"] + aligned["deletions"] + aligned["insertions"]
        assert errors == alone.substitutions + alone.deletions + alone.insertions
        assert [pair["said"] for pair in aligned["words"] if pair["said"] is not None] == one.split()
        assert [pair["heard"] for pair in aligned["words"] if pair["heard"] is not None] == other.split()
        assert errors == sum(pair["said"] != pair["heard"] for pair in aligned["words"])


def test_what_is_confused_is_named_and_chinese_has_words_of_one_character():
    assert differences(["a", "b", "c"], ["a", "x", "c", "d"]) == [("b", "x"), (None, "d")]
    assert differences(["a", "b"], []) == [("a", None), ("b", None)]
    assert words_with_places("ni 你好 ok") == [("ni", 0, 2), ("你", 3, 4), ("好", 4, 5), ("ok", 6, 8)]
    tally = ErrorTally()
    tally.add("你好吗", "你好")
    assert tally.metrics()["wer"] == tally.metrics()["cer"] == pytest.approx(1 / 3)
    assert tally.metrics()["errors"] == [{"said": "吗", "heard": None, "count": 1}]
    assert normalized("  Cafe\u0301\t Z\u00dcRICH ", lower_case=True) == "caf\u00e9 z\u00fcrich"
    assert normalized("Ab", lower_case=False) == "Ab"


def test_characters_are_counted_by_what_they_are_heard_as():
    labels, counts_CC = confusions([("ab a", "aba"), ("ba", "bac")])
    assert labels == ["space", "a", "b", "c", "nothing"]
    found = {(labels[row], labels[column]): int(counts_CC[row, column]) for row, column in np.argwhere(counts_CC)}
    assert found == {("a", "a"): 3, ("b", "b"): 2, ("space", "nothing"): 1, ("nothing", "c"): 1}
    assert confusions([])[0] == ["nothing"]


def read(layer, rows):
    """What a recurrent layer finds in rows of unequal lengths."""
    length_B = torch.tensor([len(row) for row in rows])
    return layer(torch.cat(rows), Turns.of(length_B, torch.device("cpu"))).split(length_B.tolist())


def test_a_recurrent_layer_reads_each_row_in_both_directions_as_a_packed_network_does():
    torch.manual_seed(0)
    layer, both = RecurrentLayer(6, 5), nn.GRU(6, 5, bidirectional=True)
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
        getattr(both, name).data.copy_(getattr(layer.forth, name))
        getattr(both, name + "_reverse").data.copy_(getattr(layer.back, name))
    lengths = [7, 1, 30, 29, 8, 30, 3, 100, 90]  # several stretches, most of them with padding
    rows = [torch.randn(length, 6, requires_grad=True) for length in lengths]
    packed = unpack_sequence(both(pack_sequence(rows, enforce_sorted=False))[0])
    expected = [layer.norm(row[:, :5] + row[:, 5:]) for row in packed]
    found = read(layer, rows)
    assert len(Turns.of(torch.tensor(lengths), torch.device("cpu")).ahead.read_TG) > 2
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    weight = [torch.randn_like(one) for one in found]
    gradients = [
        torch.autograd.grad(sum((one * by).sum() for one, by in zip(said, weight, strict=True)), rows)
        for said in (found, expected)
    ]
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_transcripts_are_too_long_at_the_upload_where_the_usual_network_has_no_room():
    texts = ["a" * 4, "ab" * 4, "ab" * 13, "ab" * 13 + "a", None, "  AB  " * 5]
    cells = [
        {"bytes": None, **dict.fromkeys(("format", "seconds", "rate", "channels")), "seconds": one}
        for one in (0.2, 0.3, 1, 1, 1, 0.3)
    ]
    table = pa.table({"audio": pa.array(cells, MEDIA_TYPES["audio"]), "text": texts})
    assert too_long(table, "audio", "text") == TooLong(3, [1, 4, 6])
    assert (AudioConfig().hop_ms, ConvTransformer.stride) == (FRAME_SECONDS * 1000, FRAMES_A_POSITION)
    assert AudioConfig().max_seconds == MOST_SECONDS


@pytest.mark.parametrize("speeds", [(1.0, 1.0), (0.85, 1.15)])
def test_a_tenth_at_most_is_computed_beside_the_rows(speeds):
    generator = torch.Generator().manual_seed(0)
    length_N = torch.randint(10, 400, (2000,), generator=generator)
    for rows in plan_batches(torch.randperm(2000, generator=generator).numpy(), length_N.numpy(), 32)[:20]:
        at = torch.empty(len(rows)).uniform_(*speeds, generator=generator)
        length_B = (length_N[torch.from_numpy(rows)] / at).round().long()
        read = sum(read_TG.numel() for read_TG in Turns.of(length_B, torch.device("cpu")).ahead.read_TG)
        assert read <= 1.1 * int(length_B.sum())


def test_padding_changes_no_answer():
    torch.manual_seed(0)
    layer = RecurrentLayer(5, 5)
    rows = [torch.randn(length, 5) for length in (20, 17)]
    alone = [read(layer, [row])[0] for row in rows]
    for one, other in zip(read(layer, rows), alone, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize(("own", "rate"), [(8000, 8000), (8000, 5513), (4000, 16000)])
def test_windows_are_stretches_of_the_whole_recording(own, rate):
    noise_N = np.random.default_rng(0).normal(0, 3000, 11 * own)
    content = wav(noise_N[:, None], own)
    whole_N = audio.decode(content, rate, 3600).samples_N
    size, step = 4 * rate, 3 * rate
    found = list(audio.windows(content, rate, size, step))
    assert len(found) == 4  # the last is of two seconds, of which one is new
    for number, samples_N in enumerate(found):
        assert np.allclose(samples_N, whole_N[number * step :][:size], atol=1e-6)
    assert len(found[-1]) == len(whole_N) - 3 * step
    (alone,) = audio.windows(content, rate, len(whole_N), step)
    assert len(alone) == len(whole_N)


def test_windows_of_an_hour_take_no_more_memory_than_those_of_a_minute():
    content = wav(np.zeros((3600 * 2000, 1)), 2000)
    tracemalloc.start()
    count = sum(1 for _ in audio.windows(content, 2000, 20_000, 15_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 480
    assert peak < 6 << 20


def spoken(transcripts, seconds=0.2):
    cells = [{"bytes": content, **audio.inspect(content)._asdict()} for content in [tone(seconds)] * len(transcripts)]
    return pa.table({"audio": pa.array(cells, MEDIA_TYPES["audio"]), "text": transcripts})


@pytest.mark.parametrize(("architecture", "room"), [("deepspeech", 11), ("conv-transformer", 6)])
def test_a_transcript_longer_than_its_recording_is_named(architecture, room, tmp_path):
    table = spoken(["ab", "ba", "abababababab", "ab"])  # 21 frames
    spec = spec_of(
        SPEECH,
        columns={"target": "text"},
        architecture=architecture,
        hyperparameters={"epochs": 1},
        split=WHOLE,
    )
    with pytest.raises(
        InvalidData,
        match=f'Row 3, column "text": the transcript has 12 characters and needs 12 positions, but .* has {room}',
    ):
        run(spec, {"train": write(table, tmp_path / "t.arrow")}, tmp_path)
    # A letter said twice needs something between: 11 positions for 6 letters.
    double = write(spoken(["aaaaaa", "ba", "ab"]), tmp_path / "d.arrow")
    if architecture == "deepspeech":
        assert run(spec, {"train": double}, tmp_path).outcome.finished
    else:
        with pytest.raises(InvalidData, match=r"Row 1, .* needs 11 positions"):
            run(spec, {"train": double}, tmp_path)


def test_columns_without_transcripts_are_refused_and_unknown_characters_count_as_wrong(tmp_path):
    spec = spec_of(
        SPEECH,
        columns={"target": "text"},
        task_config=EXACT[SPEECH],
        hyperparameters={"epochs": 2},
        split=WHOLE,
    )
    numbers = small_sounds(8).drop_columns("text").rename_columns({"amount": "text"})
    with pytest.raises(InvalidData, match="holds double values, which are no transcripts"):
        run(spec, {"train": write(numbers, tmp_path / "n.arrow")}, tmp_path)
    with pytest.raises(InvalidData, match="has no character among the training rows"):
        run(spec, {"train": write(spoken([" ", ""]), tmp_path / "e.arrow")}, tmp_path)
    files = {"train": spoken(["ab", "ba", "ab"]), "test": spoken(["xyz", "ab"])}
    result = run(spec, {name: write(table, tmp_path / name) for name, table in files.items()}, tmp_path)
    assert result.metrics["test"]["words"] == 2
    assert result.metrics["test"]["exact"] <= 0.5
    assert math.isfinite(result.metrics["test"]["loss"])


def test_a_language_of_which_nothing_is_kept_is_not_weighed(tmp_path):
    table = spoken(["ab", "ba", "ab", "bb"])
    fields = {"columns": TRANSCRIPTS, "hyperparameters": {"epochs": 1}, "split": WHOLE}
    tables = {"train": write(table, tmp_path / "t.arrow")}
    result = run(spec_of(SPEECH, task_config={"language_order": 0}, **fields), tables, tmp_path)
    predictor = Predictor(saved(result, tmp_path / "model"))
    assert predictor.options({"beam_width": 4, "character_bonus": 1}) is not None
    with pytest.raises(InvalidConfig, match=r"language_weight: 0\.5 was .* a task_config\.language_order of 0"):
        predictor.options({"beam_width": 4, "language_weight": 0.5})


def test_transcripts_are_counted_before_other_sentences(tmp_path, monkeypatch):
    monkeypatch.setattr(character_model, "_MOST_READ", 100)
    spec = spec_of(SPEECH, columns=TRANSCRIPTS, task_config={"sentences": ["cd" * 80, "e"]}, split=WHOLE)
    tables = {"train": write(spoken(["ab", "ba"]), tmp_path / "t.arrow")}
    counts = prepare(spec, tables, device=torch.device("cpu")).design.targets.counts
    assert counts.counts[""].keys() == {*"abcd", EDGE}  # and no e


def test_silence_is_written_as_nothing(tmp_path):
    cells = [{"bytes": content, **audio.inspect(content)._asdict()} for content in [wav(np.zeros((1600, 1)))] * 4]
    table = pa.table({"audio": pa.array(cells, MEDIA_TYPES["audio"]), "text": ["a", "", "", ""]})
    spec = spec_of(SPEECH, columns=TRANSCRIPTS, hyperparameters={"epochs": 1}, split=WHOLE)
    assert run(spec, {"train": write(table, tmp_path / "t.arrow")}, tmp_path).outcome.finished
