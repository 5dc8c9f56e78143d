"""Where things outlive a process: read once at the edge, handed down, never global."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class StoreSettings(BaseSettings):
    """Database, broker and artifacts; every field is an environment variable with the prefix ANNEAL_."""

    model_config = SettingsConfigDict(env_prefix="ANNEAL_", extra="ignore", env_ignore_empty=True)

    data_dir: Path = Field(
        default=Path(".anneal"), description="Directory of the embedded database, broker, artifacts and logs."
    )
    database_url: str = Field(
        default="",
        description="SQLAlchemy URL (postgresql+psycopg://...); empty: SQLite in the data directory.",
    )
    broker_url: str = Field(
        default="", description="Redis URL (redis://...); empty: the embedded broker in the data directory."
    )
    lease_s: float = Field(
        default=30.0,
        gt=0,
        description="Seconds without a heartbeat after which a job is taken from its worker.",
    )
    heartbeat_s: float = Field(
        default=1.0, gt=0, description="Seconds between two heartbeats, which carry progress and fetch commands."
    )
    stop_grace_s: float = Field(
        default=20.0, gt=0, description="Seconds a child process has to reach a checkpoint before it is killed."
    )
    nudge_repeat_s: float = Field(
        default=15.0,
        gt=0,
        description="Seconds after which an unclaimed job is announced to the broker again.",
    )
    artifact_grace_s: float = Field(
        default=60.0, gt=0, description="Seconds for which a stored file is kept that nothing points at."
    )
    back_off_s: float = Field(
        default=1.0, gt=0, description="Seconds before a crashed job runs again; then 5, 30 and 120 times that."
    )
    import_dir: Path | None = Field(
        default=None, description="Folder whose models may be imported by naming their path; empty: none may."
    )
    max_failures: int = Field(default=3, ge=1, description="Crashes or lost leases after which a job fails for good.")

    @field_validator("data_dir", "import_dir")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return value and value.expanduser().absolute()

    @property
    def resolved_database_url(self) -> str:
        """The SQLAlchemy URL in force."""
        return self.database_url or f"sqlite:///{self.data_dir / 'anneal.db'}"

    @property
    def artifacts_dir(self) -> Path:
        """Directory of files addressed by their digest."""
        return self.data_dir / "artifacts"

    @property
    def uploads_dir(self) -> Path:
        """Directory of the parts of open uploads."""
        return self.data_dir / "uploads"

    @property
    def work_dir(self) -> Path:
        """Directory under which every attempt has its own scratch directory."""
        return self.data_dir / "work"

    @property
    def job_logs_dir(self) -> Path:
        """Directory of what each attempt's child process wrote on its standard error."""
        return self.data_dir / "logs" / "jobs"

    @property
    def broker_dir(self) -> Path:
        """Directory of the embedded broker's messages."""
        return self.data_dir / "broker"

    @property
    def key_file(self) -> Path:
        """File that holds the first generated API key, mode 0600."""
        return self.data_dir / "api_key"

    def make_directories(self) -> None:
        """Create the data directory and its parts, readable by their owner alone."""
        for directory in (self.data_dir, self.artifacts_dir, self.work_dir, self.broker_dir, self.job_logs_dir):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
