"""What the machine did during a run: processor, memory, disk, network and GPU, by MLflow's own monitor, as a run of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tasks.house import House
from tasks.register import _registry, prepare

KIND = "suture.kind"


@contextmanager
def watched(house: House, what: str) -> Iterator[None]:
    """Sample the machine inside the block, as often as the house wants; not at all where it wants nothing.

    Raises:
        ServiceError: the tracking server cannot be reached, or failed.
    """
    if not house.watch_seconds:
        yield
        return
    experiment = prepare(house.mlflow_uri, house.mlflow_artifacts)
    with _registry(house.mlflow_uri) as client:
        run_id = client.create_run(experiment, tags={KIND: "machine"}, run_name=f"machine of {what}").info.run_id
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(run_id, sampling_interval=house.watch_seconds, tracking_uri=house.mlflow_uri)
    status = "FAILED"
    monitor.start()
    try:
        yield
        status = "FINISHED"
    finally:
        monitor.finish()
        with _registry(house.mlflow_uri) as client:
            client.set_terminated(run_id, status)
