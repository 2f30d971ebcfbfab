"""Commands that go the rounds, by hand or on a schedule: the inbox, verifying a channel, serving the deployments."""

from __future__ import annotations

from typing import Annotated

import typer

from flows import console_rounds
from flows.cli_options import ChannelArgument, JsonOption, ModelOption, answering, print_answer


def inbox(
    place: Annotated[str, typer.Argument(metavar="FOLDER_OR_PREFIX", help="A folder, or s3://bucket/prefix.")],
    once: Annotated[bool, typer.Option("--once", help="Carry out what waits now, and end. Default: go on looking.")] = False,
    every: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between two looks.")] = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Carry out the sheets that are dropped into a folder or under a prefix, each exactly once, by any number of workers.

    A sheet moves to `done` or `refused` with its answer beside it. What a worker that died had begun is taken up again. With
    `--json`, one line a run. Exit code of `--once`: 0 when all are done, 3 when one was refused, 2 when one had to be left.

    Example: `suture inbox ./inbox --once`
    """
    with answering(as_json) as settings:
        from flows import run

        for answer in run.inbox(settings, place, None if once else every, quiet=as_json):
            print_answer(answer, console_rounds.show_inbox, as_json)
            if once and (answer["left"] or answer["refused"]):
                raise typer.Exit(2 if answer["left"] else 3)


def verify(
    channel: ChannelArgument,
    model: ModelOption = None,
    policy: Annotated[str | None, typer.Option("--policy", help="Judge by this policy. Default: the purpose's own.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Is what a channel serves still what was approved? Every byte is hashed and every measurement taken again.

    Needs to read the store, nothing else. Of a release that withdrew secrets only the bytes are looked at. Exit code 0: all is
    as it was. 6: a file is damaged, a number moved, or the gate would refuse it now.

    Example: `suture verify demo`
    """
    with answering(as_json) as settings:
        from flows import run

        answer = run.verify(settings, channel, model, policy, quiet=as_json)
        print_answer(answer, console_rounds.show_verified, as_json)
        if not answer["sound"]:
            raise typer.Exit(6)


def serve(
    inbox: Annotated[str | None, typer.Option("--inbox", help="A folder or s3://bucket/prefix to look into.")] = None,
    every: Annotated[float, typer.Option("--every", min=1, help="Seconds between two looks.")] = 60.0,
    verify: Annotated[list[str] | None, typer.Option("--verify", help="A channel to verify every night.")] = None,
) -> None:
    """Serve every flow as a Prefect deployment from this one process, for a machine that needs no work pools.

    Runs come from the schedules given here, from `prefect deployment run edit/served --param sheet=...`, and from Prefect's
    API. Without a team's Prefect server it starts one, which ends with it. Stop with Ctrl-C.

    Example: `suture serve --inbox ./inbox --verify main`
    """
    with answering(as_json=False) as settings:
        from flows.serve import serve as keep_serving

        keep_serving(settings, inbox, every, verify or [])


def team(
    inbox: Annotated[str | None, typer.Option("--inbox", help="A folder or s3://bucket/prefix to look into.")] = None,
    every: Annotated[float, typer.Option("--every", min=1, help="Seconds between two looks.")] = 60.0,
    verify: Annotated[list[str] | None, typer.Option("--verify", help="A channel to verify every night.")] = None,
) -> None:
    """Start all that a team shares on this machine, and work for it: Prefect and MLflow on PostgreSQL, S3 with TLS, a worker.

    It prints where they are, and the file that leads other commands to them. Needs PostgreSQL: `apt-get install postgresql`.
    Everything is on 127.0.0.1 only and stops with it; what they hold stays in `$SUTURE_HOME/team`. Stop with Ctrl-C.

    Example: `suture team --inbox ./inbox`
    """
    with answering(as_json=False) as settings:
        from flows.team import team as keep_working

        keep_working(settings, inbox, every, verify or [])


def approvals(as_json: JsonOption = False) -> None:
    """Answer the tags by which people decide on MLflow's pages: `suture.approve` and `suture.refuse`, each with a name.

    The policy says whether that name may. Nothing proves who set a tag. The answer stands in the tag `suture.answer`.

    Example: `suture approvals`
    """
    with answering(as_json) as settings:
        from flows.asks import answer_asks

        print_answer(answer_asks(settings), console_rounds.show_asks, as_json)
