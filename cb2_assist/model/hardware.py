"""What torch finds on this machine, printed as JSON: ``python -m cb2_assist.model.hardware``."""

from __future__ import annotations

import json
import sys

import torch


def main() -> None:
    """Print version, threads and the names of CUDA devices."""
    cuda = []
    if torch.cuda.is_available():
        cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    facts = {"version": torch.__version__, "threads": torch.get_num_threads(), "cuda": cuda}
    sys.stdout.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
