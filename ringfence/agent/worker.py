"""The one thread in which an agent touches the kernel, so that it does one thing at a time."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class KernelThread:
    """Runs what may block, in the order in which it is asked."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kernel")

    async def run(self, function: Callable[[], T]) -> T:
        """The function's result, once its turn has come."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    def stop(self) -> None:
        """Wait for what was asked, and take no more."""
        self._pool.shutdown()
