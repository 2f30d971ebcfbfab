"""Workers beside this process, by Prefect's task runners: a Dask cluster, or Ray. They start when there is something to share.

Every task run is known to the Prefect server, so a worker that is lost is seen there; its parts fail, and with them the run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from editors.crew import Alone, Crew, carry_out_elsewhere
from editors.errors import ConfigError
from flows.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from editors.loading import LoadedModel

Part = TypeVar("Part")
Result = TypeVar("Result")


@contextmanager
def crew_of(settings: Settings) -> Iterator[Crew]:
    """Who carries out parts by these settings; workers that were started are stopped after the block."""
    if settings.workers == "here":
        yield Alone()
        return
    with ExitStack() as stack:
        yield SharedCrew(settings, stack)


class SharedCrew:
    """Workers that share the parts of a work, each a run of parts that follow each other."""

    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        self.settings, self.stack = settings, stack
        self.runner: Any = None

    def carry_out(self, work: Callable[[LoadedModel, Part], Result], model: LoadedModel,
                  parts: Sequence[Part]) -> Iterator[Result]:
        """The result of each part, in order; here, where there is nothing to share or no folder to read the model from."""
        count = min(self.settings.worker_count, len(parts))
        if count < 2 or model.folder is None:
            yield from Alone().carry_out(work, model, parts)
            return
        from prefect import task
        from prefect.cache_policies import NO_CACHE

        share = task(name="share", cache_policy=NO_CACHE, persist_result=False)(carry_out_share)
        runner, given = self._started(), (work, model.folder, model.digest, self.settings.device)
        bounds = [len(parts) * number // count for number in range(count + 1)]
        # in one tuple, which Prefect does not look into: parts are no futures, and it would visit each
        futures = [_outside_the_stage(partial(runner.submit, share, {"given": (*given, list(parts[begin:end]))}))
                   for begin, end in pairwise(bounds)]
        for future in futures:
            yield from future.result()

    def _started(self) -> Any:
        if self.runner is None:
            self.runner = self.stack.enter_context(_runner(self.settings))
        return self.runner


def _outside_the_stage(submit: Callable[[], Result]) -> Result:
    """Submit as a part of the flow alone: Prefect sends a worker the arguments of the task that it is submitted from, and a
    stage's are the house with its keys, and the order with its texts.
    """
    from prefect.context import TaskRunContext

    def alone() -> Result:
        TaskRunContext.__var__.set(None)  # type: ignore[arg-type]
        return submit()

    return copy_context().run(alone)


def carry_out_share(given: tuple[Any, Path, str, str, list[Any]]) -> list[Any]:
    """One worker's share."""
    return carry_out_elsewhere(*given)


def _runner(settings: Settings) -> Any:
    address, count = settings.workers_address, settings.worker_count
    try:
        if settings.workers == "dask":
            from prefect_dask import DaskTaskRunner

            # Prefect's threads keep a worker from ending in time; that it is then killed, with nothing to do, is no news
            logging.getLogger("distributed.nanny").setLevel(logging.ERROR)
            return DaskTaskRunner(address=address) if address else DaskTaskRunner(
                cluster_class="distributed.LocalCluster", cluster_kwargs=_local_cluster(count))
        from prefect_ray import RayTaskRunner

        return RayTaskRunner(address=address) if address else RayTaskRunner(init_kwargs=_local_ray(count))
    except ImportError as error:
        raise ConfigError(f"SUTURE_WORKERS={settings.workers} needs a package: {error}",
                          f"pip install 'suture[{settings.workers}]', or unset SUTURE_WORKERS") from error


def _local_ray(count: int) -> dict[str, Any]:
    """A cluster for one run, without a dashboard: a Ray that is started here asks whoever comes for this user's token."""
    return {"num_cpus": count, "include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}


def _local_cluster(count: int) -> dict[str, Any]:
    """A cluster for one run. Whoever reaches its scheduler runs code as this user: only holders of its own certificate do."""
    return {"n_workers": count, "threads_per_worker": 1, "processes": True, "security": True, "silence_logs": logging.ERROR,
            "scheduler_kwargs": {"dashboard": False, "dashboard_address": "127.0.0.1:0"}}
