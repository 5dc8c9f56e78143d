"""The files of a foreign model, from a zip archive or a folder, laid out under the names that are read.

Nothing else of an archive is unpacked and nothing else of a folder is looked at; a pickle is never opened.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from learning.errors import InvalidDataset, InvalidModel
from learning.formats.archive import Archive
from learning.media_types import UnreadableMedia
from learning.modalities.image import PREPROCESSOR_FILE
from learning.model import CONFIG_FILE, WEIGHTS_FILE

INDEX_FILE = f"{WEIGHTS_FILE}.index.json"
TOKENIZER_FILE = "tokenizer.json"
WORDS_FILE, PIECES_FILE, MERGES_FILE, TOKENIZER_CONFIG_FILE = (
    "vocab.txt", "vocab.json", "merges.txt", "tokenizer_config.json",
)  # fmt: skip
# Looked for, so that a refusal can name them; none is opened.
SENTENCEPIECE_FILES = ("source.spm", "target.spm", "spiece.model", "sentencepiece.bpe.model")
_READ = {
    CONFIG_FILE, WEIGHTS_FILE, INDEX_FILE, TOKENIZER_FILE, PREPROCESSOR_FILE, WORDS_FILE, PIECES_FILE, MERGES_FILE,
    TOKENIZER_CONFIG_FILE, *SENTENCEPIECE_FILES,
}  # fmt: skip
_SHARD = re.compile(r"[A-Za-z0-9._-]{1,200}\.safetensors")
_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"}
_ANY_NAME = ("\x80\x02", "\x80\x03", "\x80\x04", "\x80\x05", "PK\x03\x04")  # a pickle begins so, torch's since 1.6 last
_MOST_BYTES, _MOST_TEXT_BYTES = 64 << 30, 64 << 20
_SAVE_AGAIN = "Save the model again with save_pretrained(directory, safe_serialization=True), and send that directory."


def is_shard(name: str) -> bool:
    """Return whether a name may be that of a file with some of a model's tensors."""
    return _SHARD.fullmatch(name) is not None


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; InvalidModel names the file when there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"{path.name} is no JSON: {error}", hint=_SAVE_AGAIN) from None
    if not isinstance(found, dict):
        raise InvalidModel(f"{path.name} is no JSON object.", hint=_SAVE_AGAIN)
    return found


def gather(source: Path, filename: str, target: Path, root: Path | None = None) -> list[str]:
    """Lay the files of a model out in `target`, and return what to warn about; InvalidModel says what is wrong.

    `source` is a zip archive, which its caller calls `filename`, or a folder; no file outside of `root` is read then.
    """
    target.mkdir(parents=True, exist_ok=True)
    warnings = _from_folder(source, target, root or source) if source.is_dir() else _unpack(source, filename, target)
    if not (target / CONFIG_FILE).exists():
        raise InvalidModel(f"There is no {CONFIG_FILE}.", hint=_SAVE_AGAIN)
    for path in target.iterdir():
        _check_content(path)
    return warnings


def _unpack(source: Path, filename: str, target: Path) -> list[str]:
    try:
        with Archive(source, filename) as archive:
            _refuse_pickles(archive.names)
            total = sum(archive.size(name) for name in archive.names)
            if total > _MOST_BYTES:
                raise InvalidModel(f"The archive would unpack to {total} bytes; at most {_MOST_BYTES} are read.")
            for name in _of_model(archive.names):
                _extract(archive, name, target / PurePosixPath(name).name)
    except InvalidDataset as error:
        raise InvalidModel(error.message, hint=error.hint) from None
    return []


def _extract(archive: Archive, name: str, target: Path) -> None:
    try:
        archive.extract(name, target)
    except UnreadableMedia as error:
        raise InvalidModel(f'"{name[:80]}" of the archive {error.what}.', hint=error.remedy) from None


def _of_model(names: list[str]) -> Iterator[str]:
    """Yield the members to read: those beside the config.json that lies least deep."""
    configs = [PurePosixPath(name) for name in names if PurePosixPath(name).name == CONFIG_FILE]
    if not configs:
        raise InvalidModel(f"The archive has no {CONFIG_FILE}.", hint="Zip the directory that save_pretrained wrote.")
    depth = min(len(path.parts) for path in configs)
    highest = [path for path in configs if len(path.parts) == depth]
    if len(highest) > 1:
        raise InvalidModel(
            f"The archive has several models: {', '.join(str(path.parent) for path in highest[:5])}.",
            hint="Zip one model's directory.",
        )
    for name in names:
        path = PurePosixPath(name)
        if path.parent == highest[0].parent and (path.name in _READ or is_shard(path.name)):
            yield name


def _refuse_pickles(names: list[str]) -> None:
    found = [name for name in names if PurePosixPath(name).suffix.lower() in _PICKLES]
    if found:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise InvalidModel(
            f'"{found[0][:80]}"{more} may be a pickle, which can run any program when it is opened.',
            hint=f"Leave it out if {WEIGHTS_FILE} is there too. Else: {_SAVE_AGAIN}",
        )


def _from_folder(source: Path, target: Path, root: Path) -> list[str]:
    inside = root.resolve()
    names = sorted(path.name for path in source.iterdir())
    for name in names:
        if name not in _READ and not is_shard(name):
            continue
        path = (source / name).resolve()  # a cache of models has links to files beside
        if not path.is_relative_to(inside):
            raise InvalidModel(f'"{name}" leads out of the folder of models.', hint="Put the file itself there.")
        if path.is_file():
            (target / name).symlink_to(path)
    pickles = [name for name in names if PurePosixPath(name).suffix.lower() in _PICKLES]
    if pickles and not any(is_shard(name) for name in names):
        _refuse_pickles(pickles)
    return [f"{', '.join(pickles[:5])} may be pickles and were not opened."] if pickles else []


def _check_content(path: Path) -> None:
    with path.open("rb") as file:
        first = file.read(9).decode("latin-1")
    # A safetensors file begins with its header's length in eight bytes, and those of 640 are a pickle's first ones.
    if first.startswith(_ANY_NAME) and not (is_shard(path.name) and first[8:] == "{"):
        raise InvalidModel(
            f'"{path.name}" is a pickle by its first bytes, whatever its name says.',
            hint=_SAVE_AGAIN,
        )
    if not is_shard(path.name) and path.stat().st_size > _MOST_TEXT_BYTES:
        raise InvalidModel(f'"{path.name}" has {path.stat().st_size} bytes; at most {_MOST_TEXT_BYTES} are read.')
