"""Print what pyproject.toml asks for, with the extras named as arguments: the image installs it before the sources."""

import sys
import tomllib
from pathlib import Path


def main() -> None:
    """Write one requirement a line; our own extras inside extras are left out, since they are named."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    asked = list(project["dependencies"])
    for extra in sys.argv[1:]:
        asked += project["optional-dependencies"][extra]
    print("\n".join(sorted({one for one in asked if not one.startswith(f"{project['name']}[")})))


if __name__ == "__main__":
    main()
