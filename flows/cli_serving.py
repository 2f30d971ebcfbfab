"""Commands that stay and answer others: a channel's model to its clients, promotions to the registry."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli_options import ChannelArgument, ModelOption, answering


def serve_model(
    channel: ChannelArgument,
    model: ModelOption = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen at. It knows no keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen at.")] = 8000,
) -> None:
    """Serve what a channel stands at behind an OpenAI-like API, its signature and every byte verified first.

    The server is `transformers serve`: `/v1/chat/completions`, `/v1/completions`, `/v1/responses`, `/health`. It stays with the
    release that it began with; start it again after a promotion or a rollback.

    Example: `suture serve-model demo --port 8000`
    """
    with answering(as_json=False) as settings:
        from flows.serve_model import prepare

        serving = prepare(settings, channel, model, host, port)
    serving.replace_this_process()


def listen(
    host: Annotated[str, typer.Option("--host", help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen at.")] = 8088,
    every: Annotated[float, typer.Option("--every", min=1, help="Seconds between two looks without a webhook.")] = 300.0,
) -> None:
    """Promote what is asked for in MLflow: whoever sets the alias `promote` on a version there asks; the approvals decide.

    MLflow's webhooks tell of it at `POST /mlflow`, signed with SUTURE_WEBHOOK_SECRET. The answer is the version's tag
    `suture.promote`, and the alias goes. A version that nobody approved is not promoted. `GET /metrics` tells Prometheus where
    channels and versions stand.

    Example: `suture listen --port 8088`
    """
    with answering(as_json=False) as settings:
        from flows.listen import listen as keep_listening

        keep_listening(settings, host, port, every)
