"""Snakemake that asks Slurm for its jobs every two seconds.

The plugin waits ten seconds longer after every round in which no job has ended: sensible for a
cluster, most of the time of a test.
"""
import asyncio

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

PAUSE_S = 2


async def sleep(executor):
    "Between two rounds."
    await asyncio.sleep(PAUSE_S)


RemoteExecutor.sleep = sleep
if __name__ == "__main__": main()
