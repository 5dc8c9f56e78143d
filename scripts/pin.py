"""Print constraints from pip's resolution report on standard input: exact versions, without local tags or places."""

import json
import sys


def main() -> None:
    """Write one `name==version` line for each distribution but our own."""
    resolved = [item["metadata"] for item in json.load(sys.stdin)["install"]]
    # "2.13.0+cpu" and "2.13.0+cu130" are builds of one version; which one is the installing machine's affair.
    pins = {item["name"].lower().replace("_", "-"): item["version"].partition("+")[0] for item in resolved}
    pins.pop("anneal", None)
    print("# Everything that `make test` and `make bench` install, exactly. Made by `make constraints`.")
    for name, version in sorted(pins.items()):
        print(f"{name}=={version}")


if __name__ == "__main__":
    main()
