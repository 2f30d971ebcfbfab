"""Serve a channel's model: its release, signature and every byte verified, behind an OpenAI-like API by `transformers serve`.

The server is the library's own and runs in this process' place, so signals reach it. It stays with the release that it began
with: a moved channel is served from the next start on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from editors.errors import ConfigError
from editors.loading import chosen_device
from flows.answers import find_channel
from flows.house import open_house
from flows.settings import Settings
from tasks import channel as channels
from tasks.served_folder import served_folder


@dataclass(frozen=True)
class Serving:
    """A server about to start."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    """Where it starts; the model's folder lies in it, and its name is the model's name to clients."""

    def replace_this_process(self) -> None:
        """Become the server."""
        os.chdir(self.folder)
        os.execve(self.command[0], self.command, self.environment)  # noqa: S606 (no shell is wanted)


def prepare(settings: Settings, channel: str, model: str | None, host: str, port: int) -> Serving:
    """Bring the channel's release here, verified, and say how to serve it.

    Raises:
        ConfigError: what `transformers serve` needs is not installed, or there is no such channel.
        SignatureError: signatures are required here, and the release has none that counts.
        IntegrityError: a file is not the release's.
    """
    if find_spec("openai") is None:
        raise ConfigError("serving needs the package openai, whose types transformers' server answers in",
                          "pip install 'openai>=1.98'")
    with open_house(settings) as house:
        name = find_channel(house.store, channel, model)
        state = channels.read(house.store, name, channel)
        if state is None:
            raise ConfigError(f"channel {channel} was closed while it was looked at", f"suture history {channel}")
        folder = served_folder(state.manifest, house)
    hub = settings.cache / "hub"
    hub.mkdir(parents=True, exist_ok=True)
    device = chosen_device(settings.device)
    # half precision is far slower than float32 on processors
    dtype = "float32" if device == "cpu" else "auto"
    command = (sys.executable, "-m", "transformers.cli.transformers", "serve", folder.name, "--host", host, "--port", str(port),
               "--device", device, "--dtype", dtype)
    # offline: a request for another model must fetch nothing. The cache must exist, or listing the models fails
    return Serving(command, {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(hub)}, folder.parent)
