"""The API process's settings: the store's and its own."""

from __future__ import annotations

import ipaddress
from typing import Literal

from pydantic import Field

from store.settings import StoreSettings

Role = Literal["all", "api", "predict"]


class ServiceSettings(StoreSettings):
    """Every field is an environment variable with the prefix ANNEAL_."""

    role: Role = Field(
        default="all",
        description="What this process serves: everything, all but predictions, or predictions alone.",
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on.")
    allowed_hosts: str = Field(
        default="", description="Comma-separated host names that requests may name; empty: loopback names only."
    )
    trusted_proxies: str = Field(
        default="127.0.0.1",
        description="Comma-separated addresses or networks whose X-Forwarded-Proto is believed; *: anybody's.",
    )
    max_upload_bytes: int = Field(default=10 << 30, ge=1, description="Largest upload in bytes.")
    upload_expiry_s: float = Field(
        default=86_400.0, gt=0, description="Seconds after its last part for which an upload is kept."
    )
    max_open_uploads: int = Field(default=100, ge=1, description="Uploads that a project may have open at a time.")
    max_open_upload_bytes: int = Field(
        default=100 << 30, ge=1, description="Bytes that a project's open uploads may have together."
    )
    max_body_bytes: int = Field(
        default=32 << 20, ge=1, description="Largest body of a request that is no upload, in bytes: JSON, forms, files."
    )
    max_predict_inputs: int = Field(default=10_000, ge=1, description="Most inputs of one prediction request.")
    max_waiting_inputs: int = Field(
        default=20_000, ge=1, description="Most inputs that wait for one model; further requests get 429."
    )
    predictor_memory_bytes: int = Field(default=2 << 30, ge=1, description="Memory for loaded models, in bytes.")
    max_galleries: int = Field(default=100, ge=1, description="Galleries that a project may have.")
    max_gallery_samples: int = Field(
        default=10_000, ge=1, description="Files that the subjects of one gallery may be enrolled by, together."
    )
    webhook_private_addresses: bool = Field(
        default=False, description="Let webhooks be sent to private and local addresses."
    )
    docs: bool = Field(default=True, description="Serve the interactive documentation at /docs.")
    log_level: str = Field(default="info", description="Least severe messages to log.")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def host_names(self) -> frozenset[str]:
        """Host names that a request may carry; "*" allows any."""
        given = {name.strip().lower() for name in self.allowed_hosts.split(",") if name.strip()}
        return frozenset(given or {"127.0.0.1", "localhost", "[::1]", self.host.lower()})
