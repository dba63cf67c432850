"""What a user of the command line sees when something goes wrong: one line and an exit status, never a traceback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from deblur_train.config import ConfigError
from deblur_train.data.index import DataError
from deblur_train.distributed import DeviceError
from deblur_train.inference.signature import ExportError, UnsupportedExport
from deblur_train.media.pictures import ImageError
from deblur_train.models.checkpoint import CheckpointError


class Failed(click.ClickException):
    """Something failed: one line on stderr, exit status 1."""

    exit_code = 1


def errors_in_one_line(work: Callable[[], Any]) -> Any:
    """Run ``work``; a user's mistake or a bad file ends in one line, never in a traceback."""
    from deblur_train.training.run_folder import TrainError

    try:
        return work()
    except (ConfigError, UnsupportedExport) as e:
        raise click.UsageError(str(e)) from None
    except (DataError, CheckpointError, ImageError, ExportError, DeviceError, TrainError, ImportError) as e:
        raise Failed(str(e)) from None
    except OSError as e:
        raise Failed(f"{e.filename or 'file'}: {e.strerror or e}") from None
    except RuntimeError as e:
        # torch has a class of its own for a full GPU, and a bare RuntimeError for full memory on a CPU.
        if "out of memory" in str(e).lower() or "can't allocate memory" in str(e):
            raise Failed(
                "out of memory: lower --batch-size or --crop (fit), or give a smaller --tile (predict)"
            ) from None
        if "DataLoader worker" in str(e):  # torch raises it wherever the main process happens to be
            raise Failed(
                "a decoding process was killed (out of memory?); go on with --resume, with fewer --workers"
            ) from None
        raise
    except KeyboardInterrupt:
        raise Failed("interrupted") from None
