"""A process and what it takes."""

import subprocess
import sys

# A process in between starts it: a started process counts the memory of the one that it comes from as its own.
BETWEEN = ("import resource, subprocess, sys, time; start = time.perf_counter(); subprocess.run(sys.argv[1:], check=True); "
           "print('\\n', time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")


def measured(*command, environment=None):
    """What a command prints, its seconds, and the most memory that it had at once, in MB."""
    command = [sys.executable, "-c", BETWEEN, *map(str, command)]
    printed = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    printed, _, numbers = printed.rstrip().rpartition("\n")
    seconds, kilobytes = numbers.split()
    return printed.rstrip(), float(seconds), int(kilobytes) * 1024 / 1e6
