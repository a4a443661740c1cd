"""`python -m experiments` lists the experiments; `python -m experiments NAME --flags` runs one."""

import sys

from experiments import runner

if __name__ == "__main__":
    runner.command_line(sys.argv[1:])
