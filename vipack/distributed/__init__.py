"""The processes of a run: what they tell each other, and work that is shared out among them."""

from vipack.distributed.options import DataParallel, data_parallel_of
from vipack.distributed.processes import Processes, alone_or_together, started_processes
from vipack.distributed.sharing import check_alike, own_stretch, shared_out
from vipack.distributed.sums import SumByGloo, SumInSharedMemory

__all__ = [
    "DataParallel",
    "Processes",
    "SumByGloo",
    "SumInSharedMemory",
    "alone_or_together",
    "check_alike",
    "data_parallel_of",
    "own_stretch",
    "shared_out",
    "started_processes",
]
