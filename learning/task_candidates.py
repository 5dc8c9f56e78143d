"""Which tasks a table's columns suggest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from learning.column_type import is_media
from learning.statistics import Column, TableStatistics, TopValue
from learning.task_names import TASK_NAMES

# An integer column with more distinct values than this is a quantity rather than a code for classes.
FEW_VALUES = 20
# Strings at least so long on average are sentences; those of scripts without spaces say more in fewer characters.
_SENTENCE, _DENSE_SENTENCE = 16, 6
_SHOWN_CLASSES = 100
_SHOWN_ONCE = 10
_MOST_TEXTS = 3
_TOKENS = {"tokens", "words"}
# A column of nothing but these says what rows are for, and is neither learned nor learned from.
_PARTS = {"train", "validation", "test"}
# What a column of transcripts is usually called, even if each is a single word.
_TRANSCRIPTS = {"text", "transcript", "transcription", "sentence"}
# What a column is usually called that says whom a file is of.
_SUBJECTS = {"subject", "person", "identity"}
_SPEAKERS = {"speaker", *_SUBJECTS}


@dataclass(frozen=True, slots=True)
class LabelBalance:
    """How often each label occurs.

    `counts` are the hundred most frequent labels; `majority_share` is the most frequent one's share of all that have a
    label, from 0 to 1; `once` counts the labels that occur only once, of which `once_first` are the first ten.
    """

    classes: int
    counts: list[TopValue]
    majority_share: float
    once: int
    once_first: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TaskCandidate:
    """A task that could be trained, its target column if it has one, and why.

    `inputs` are the columns to learn from where not simply all others are; `balance` is that of the target's labels.
    """

    task: str
    target: str | None
    reason: str
    inputs: list[str] | None = None
    balance: LabelBalance | None = None


class Facts:
    """What the suggestions look at."""

    def __init__(self, statistics: TableStatistics, columns: list[Column]) -> None:
        self.columns = columns
        self.num_rows = statistics.num_rows
        self.paired = [(columns[first], columns[second]) for first, second in sorted(statistics.paired)]
        self._statistics = {column.name: column for column in statistics.columns}
        self.media = [column for column in columns if is_media(column.type)]
        # Beside images and recordings the other columns are about them: labels, names, transcripts.
        written = [] if self.media else [column for column in columns if not _is_split(column)]
        sentences = [column for column in written if self.is_sentences(column)]
        self.sentences = sentences[:_MOST_TEXTS]
        self.is_text = len(columns) == 1 and bool(columns[0].prose)
        # What a table's row is made of: sentences hardly ever repeat, so as categories they say nothing.
        self.features = [column for column in written if column.type != "strings" and column not in sentences]
        # The last column first: that is where a target usually is.
        self.labels = [column for column in reversed(columns) if self._has_labels(column)]
        self.label_lists = [column for column in reversed(columns) if self._has_label_lists(column)]

    def present(self, column: Column) -> int:
        """Return how many rows have a value."""
        return self.num_rows - column.missing

    def balance(self, column: Column) -> LabelBalance:
        """Return how often each label or tag of a column occurs."""
        counts = self._statistics[column.name].counts
        top = [TopValue(value, count) for value, count in counts.top(_SHOWN_CLASSES)]
        once, first = counts.once(_SHOWN_ONCE)
        return LabelBalance(counts.unique, top, top[0].count / counts.total, once, first)

    def is_sentences(self, column: Column) -> bool:
        """Return whether a column holds texts of several words that hardly ever repeat."""
        if not column.prose or column.lengths is None or 2 * column.unique <= self.present(column):
            return False
        dense = sum(not str(top.value).isascii() for top in column.top) * 2 > len(column.top)
        return column.lengths.mean >= (_DENSE_SENTENCE if dense else _SENTENCE)

    def _has_labels(self, column: Column) -> bool:
        if column.type not in {"string", "boolean", "integer"} or column.unique < 2 or column.unique_estimated:
            return False
        if _is_split(column):
            return False
        few = column.unique <= FEW_VALUES if column.type == "integer" else True
        # Values that hardly ever repeat are names or sentences, not classes.
        return few and 2 * column.unique <= self.present(column)

    def _has_label_lists(self, column: Column) -> bool:
        """Return whether each row has some of a few labels, which are no tags of its words."""
        if column.type != "strings" or column.unique < 2 or column.unique_estimated:
            return False
        return 2 * column.unique <= self.present(column) and not any(column in pair for pair in self.paired)


def _is_split(column: Column) -> bool:
    return column.type == "string" and column.unique > 1 and {top.value for top in column.top} <= _PARTS


def task_candidates(facts: Facts, known: Collection[str] = TASK_NAMES) -> list[TaskCandidate]:
    """Return the candidates among the known tasks: those with a target first, the surest ones before the others."""
    return [found for suggest in _SUGGESTIONS for found in suggest(facts) if found.task in known]


def _token_classification(facts: Facts) -> Iterator[TaskCandidate]:
    for pair in facts.paired:
        # Two of equal lengths: the one that is called tokens is that, else the one with more different items.
        tags, tokens = sorted(pair, key=lambda column: (column.name.lower() in _TOKENS, column.unique))
        if tags.unique >= 2:
            reason = f'each list of "{tags.name}" is as long as that of "{tokens.name}"; {tags.unique} different tags'
            yield TaskCandidate("token-classification", tags.name, reason, [tokens.name], facts.balance(tags))


def _translation(facts: Facts) -> Iterator[TaskCandidate]:
    named = {column.name: column for column in facts.columns if column.prose}
    if {"source", "target"} <= named.keys():
        yield TaskCandidate("translation", "target", '"source" and "target" are columns of sentences', ["source"])
        return
    # Two texts in each row and nothing else; a third column would be what one of them is about.
    texts = [column for column in facts.columns if not _is_split(column)]
    if len(texts) == 2 and all(column.prose for column in texts) and any(map(facts.is_sentences, texts)):
        first, second = texts
        reason = f'"{first.name}" and "{second.name}" are the only columns, both of several words'
        yield TaskCandidate("translation", second.name, reason, [first.name])


def _text_classification(facts: Facts) -> Iterator[TaskCandidate]:
    for label in facts.labels:
        for text in facts.sentences:
            reason = f'"{text.name}" is a column of sentences, and {_what(facts, label)}'
            yield TaskCandidate("text-classification", label.name, reason, [text.name], facts.balance(label))


def _multi_label_texts(facts: Facts) -> Iterator[TaskCandidate]:
    for column in facts.label_lists:
        for text in facts.sentences:
            reason = f'"{text.name}" is a column of sentences, and {_listed(facts, column)}'
            balance = facts.balance(column)
            yield TaskCandidate("multi-label-text-classification", column.name, reason, [text.name], balance)


def _text_regression(facts: Facts) -> Iterator[TaskCandidate]:
    for column in reversed(facts.columns):
        for text in facts.sentences if _is_quantity(column) and column not in facts.labels else ():
            reason = f'"{text.name}" is a column of sentences, and {_what(facts, column)}'
            yield TaskCandidate("text-regression", column.name, reason, [text.name])


def _tabular(facts: Facts) -> Iterator[TaskCandidate]:
    if len(facts.features) < 2:
        return
    for column in reversed(facts.features):
        if column in facts.labels:
            balance = facts.balance(column)
            yield TaskCandidate("tabular-classification", column.name, _what(facts, column), balance=balance)
        elif _is_quantity(column):
            yield TaskCandidate("tabular-regression", column.name, _what(facts, column))


def _is_quantity(column: Column) -> bool:
    many = column.unique > FEW_VALUES or column.type == "number"
    return column.type in {"integer", "number"} and many and column.unique > 2


def _what(facts: Facts, column: Column) -> str:
    kind = f"{'an' if column.type == 'integer' else 'a'} {column.type} column"
    about = "about " if column.unique_estimated else ""
    return f'"{column.name}" is {kind} with {about}{column.unique} distinct values in {facts.present(column)} rows'


def _media_classification(facts: Facts) -> Iterator[TaskCandidate]:
    tasks = {"image": ("image-classification", "images"), "audio": ("audio-classification", "recordings")}
    for media in facts.media:
        for label in facts.labels if media.type in tasks else ():
            task, held = tasks[media.type]
            reason = f'"{media.name}" is a column of {held}, and {_what(facts, label)}'
            yield TaskCandidate(task, label.name, reason, [media.name], facts.balance(label))


def _multi_label_images(facts: Facts) -> Iterator[TaskCandidate]:
    for image in facts.media:
        for column in facts.label_lists if image.type == "image" else ():
            reason = f'"{image.name}" is a column of images, and {_listed(facts, column)}'
            balance = facts.balance(column)
            yield TaskCandidate("multi-label-image-classification", column.name, reason, [image.name], balance)


def _listed(facts: Facts, column: Column) -> str:
    return f'"{column.name}" one of lists, of {column.unique} different labels in {facts.present(column)} rows'


def _image_embedding(facts: Facts) -> Iterator[TaskCandidate]:
    yield from _subject_embedding(
        facts, "image", "image-embedding", _SUBJECTS, "images, {} says by its name whom they show"
    )


def _speaker_embedding(facts: Facts) -> Iterator[TaskCandidate]:
    yield from _subject_embedding(
        facts, "audio", "speaker-embedding", _SPEAKERS, "recordings, {} says by its name who speaks"
    )


def _subject_embedding(
    facts: Facts, kind: str, task: str, names: Collection[str], what: str
) -> Iterator[TaskCandidate]:
    for media in facts.media:
        for label in facts.labels if media.type == kind else ():
            if label.name.lower() in names:
                reason = f'"{media.name}" is a column of ' + what.format(f'and "{label.name}"')
                yield TaskCandidate(task, label.name, reason, [media.name], facts.balance(label))


def _transcripts(facts: Facts) -> Iterator[TaskCandidate]:
    for media in facts.media:
        for column in facts.columns if media.type == "audio" else ():
            if column.prose:
                yield _transcript(media, column, "of several words")


def _spoken_words(facts: Facts) -> Iterator[TaskCandidate]:
    for media in facts.media:
        for column in facts.columns if media.type == "audio" else ():
            if column.type == "string" and not column.prose and column.name.lower() in _TRANSCRIPTS:
                yield _transcript(media, column, "by its name of what is said")


def _transcript(media: Column, column: Column, what: str) -> TaskCandidate:
    reason = f'"{media.name}" is a column of recordings, and "{column.name}" one of texts, {what}'
    return TaskCandidate("speech-recognition", column.name, reason, [media.name])


def _image_regression(facts: Facts) -> Iterator[TaskCandidate]:
    for image in facts.media:
        for column in facts.columns if image.type == "image" else ():
            if _is_quantity(column) and column not in facts.labels:
                reason = f'"{image.name}" is a column of images, and {_what(facts, column)}'
                yield TaskCandidate("image-regression", column.name, reason, [image.name])


def _object_detection(facts: Facts) -> Iterator[TaskCandidate]:
    for column in facts.media:
        if column.type == "objects":
            reason = f'"{column.name}" has the boxes and labels of the objects in each image'
            yield TaskCandidate("object-detection", column.name, reason, ["image"])


def _media_pretraining(facts: Facts) -> Iterator[TaskCandidate]:
    recordings = ("contrastive-audio", "masked-audio"), "recordings"
    tasks = {"image": (("contrastive-images",), "images"), "audio": recordings}
    for media in facts.media:
        names, held = tasks.get(media.type, ((), ""))
        for task in names:
            reason = f'"{media.name}" is a column of {held}, which can be learned from without labels'
            yield TaskCandidate(task, None, reason, [media.name])


def _masked_features(facts: Facts) -> Iterator[TaskCandidate]:
    # A lone label beside sentences is what the sentences are about.
    is_label = len(facts.features) == 1 and bool(facts.sentences) and facts.features[0] in facts.labels
    if facts.features and not is_label and not facts.is_text:
        columns = f"{len(facts.features)} column{'s' if len(facts.features) > 1 else ''}"
        yield TaskCandidate("masked-features", None, f"the {columns} can be learned from without a target")


def _text_pretraining(facts: Facts) -> Iterator[TaskCandidate]:
    for text in facts.columns if facts.is_text else facts.sentences:
        what = "text and the only column" if facts.is_text else "a column of sentences"
        for task in ("text-generation", "masked-tokens", *(("next-token-prediction",) if facts.is_text else ())):
            yield TaskCandidate(task, None, f'"{text.name}" is {what}', [text.name])


_SUGGESTIONS: tuple[Callable[[Facts], Iterator[TaskCandidate]], ...] = (
    _token_classification,
    _translation,
    _object_detection,
    _transcripts,
    _image_embedding,
    _media_classification,
    _multi_label_images,
    _speaker_embedding,
    _spoken_words,
    _image_regression,
    _text_classification,
    _multi_label_texts,
    _text_regression,
    _tabular,
    _masked_features,
    _text_pretraining,
    _media_pretraining,
)
