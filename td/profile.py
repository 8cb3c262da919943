"""A recording of a few training steps, for TensorBoard and Perfetto."""

import logging
from pathlib import Path
from typing import Any

import jax

LOG = logging.getLogger(__name__)

STEPS = 10
"""At least so many steps are recorded."""


class Profile:
    """Records from the end of the first call on, which compiles, until `STEPS` steps are done.

    Example:
      >>> with Profile(None) as profile:
      ...     profile.after(1, None)
    """

    def __init__(self, folder: Path | None) -> None:
        """Prepare.

        Args:
          folder: where the recording goes; None: there is none.
        """
        self._folder, self._left = folder, 0

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop(None)

    def after(self, steps: int, state: Any) -> None:
        """Tell of a call that was started.

        Args:
          steps: how many it does.
          state: its result; the recording ends when it is there.
        """
        if self._left:
            self._left = max(self._left - steps, 0)
            if not self._left:
                self._stop(state)
        elif self._folder is not None:
            jax.block_until_ready(state)
            jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
            self._left = STEPS

    def _stop(self, state: Any) -> None:
        if self._folder is None or (state is None and not self._left):
            return
        jax.block_until_ready(state)
        jax.profiler.stop_trace()
        LOG.info("recorded in %s: tensorboard --logdir, or perfetto_trace.json.gz at ui.perfetto.dev", self._folder)
        self._folder, self._left = None, 0
