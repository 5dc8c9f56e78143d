"""A model's folder as a zip archive to send: what the service reads of it, and nothing else."""

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anneal.errors import AnnealError

_SENT = {
    "config.json", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json",
    "model.safetensors.index.json", "vocab.txt", "vocab.json", "merges.txt",
}  # fmt: skip


@contextmanager
def archive_of(path: Path) -> Iterator[Path]:
    """Give the archive of a model, made for the while if `path` is a folder; raise AnnealError for what is neither."""
    if path.is_file():
        yield path
        return
    if not path.is_dir():
        raise AnnealError(f"There is no file or folder {path} (looked in {Path.cwd()}).")
    files = (file for file in sorted(path.iterdir()) if file.is_file())
    sent = [file for file in files if file.name in _SENT or file.suffix == ".safetensors"]
    if not any(file.suffix == ".safetensors" for file in sent):
        raise AnnealError(
            f"{path} has no weights in safetensors files. Save the model again with "
            "save_pretrained(directory, safe_serialization=True); pickles are not sent."
        )
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / f"{path.resolve().name}.zip"
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
            for file in sent:  # as they are: weights do not shrink
                archive.write(file, file.name)
        yield target
