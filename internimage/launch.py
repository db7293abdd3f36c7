"""How the processes of a command are started and work together: by torchrun and the like, or by `run_processes`."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from types import TracebackType

import torch
import torch.distributed as dist

from internimage import parallel
from internimage.processors import usable_processors

logger = logging.getLogger(__name__)
# How torch tells that another process has gone, besides by the class of the error.
_LOST = ("Connection closed by peer", "Connection reset by peer", "Timed out waiting", "Socket Timeout")


def launched_processes() -> int:
    """Return how many processes were started together (torchrun, accelerate launch, `--processes`)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_index() -> int:
    """Return the index of this process among them; the first one writes files and results."""
    return int(os.environ.get("RANK", "0")) if launched_processes() > 1 else 0


def local_index() -> int:
    """Return the index of this process among those of its machine, which is that of its accelerator."""
    return int(os.environ.get("LOCAL_RANK", "0")) if launched_processes() > 1 else 0


@contextlib.contextmanager
def told_of_losses(advice: str, *, setting: str) -> Iterator[None]:
    """Say within the block which process fails, and that others lost it.

    Args:
        advice: what is kept, a sentence.
        setting: what limits how long a process waits.

    Raises:
        ConnectionError: another process has ended, or did not answer in time.
    """
    with contextlib.ExitStack() as at_end:
        if launched_processes() > 1:
            at_end.push(_name_process)
        try:
            yield
        except RuntimeError as error:
            if not (isinstance(error, dist.DistError) or any(text in str(error) for text in _LOST)):
                raise
            raise ConnectionError(
                f"another process has ended or did not answer in time ({setting}); its own message says why. {advice} "
                f"({str(error).splitlines()[0]})"
            ) from error


def _name_process(kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
    """Say which process an error ends; it goes on."""
    if error is not None:
        logger.error("process %d of %d: %s: %s", process_index(), launched_processes(), type(error).__name__, error)
    return False


@contextlib.contextmanager
def sharing(timeout: datetime.timedelta) -> Iterator[None]:
    """Share within the block the work of the processes that were started together, see `internimage.parallel`.

    All of them enter it. A process on its own, and processes that share their work already, go on as they are.

    Args:
        timeout: how long one process waits for the others before it fails.

    Raises:
        ConnectionError: another process has ended, or did not answer in time.
    """
    if launched_processes() == 1 or parallel.world() > 1:
        yield
        return
    is_new = not dist.is_initialized()
    with told_of_losses("What was written before stays.", setting=f"{timeout.total_seconds() / 60:g} minutes"):
        if is_new:
            dist.init_process_group("gloo", timeout=timeout)
        try:
            parallel.join(timeout)
            yield
        finally:
            parallel.leave()
            if is_new:
                dist.destroy_process_group()


def run_processes(arguments: Sequence[str], processes: int, *, on_cpu: bool) -> int:
    """Run a command of `internimage` in several processes of this machine that work together, and wait for them.

    Where one of them fails, the others are asked to end, and made to after 30 seconds; so it goes with SIGTERM and
    Ctrl-C, at which they save what they do.

    Args:
        arguments: of the command line of each process.
        processes: how many; one for each accelerator, if there are any.
        on_cpu: whether they leave accelerators alone.

    Returns:
        Exit code of the first one that failed, else 0.

    Raises:
        ValueError: there are fewer accelerators than processes.
    """
    devices = 0 if on_cpu else torch.cuda.device_count()
    if devices and processes > devices:
        raise ValueError(
            f"{processes} processes need as many accelerators, and this machine has {devices}; give at most that many, "
            "or --device cpu"
        )
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_processors() // processes)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.2,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "internimage", *arguments)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    except SignalException as error:
        return 128 + error.sigval
    return 0
