"""Generate the protobuf modules of `ringfence.wire` from its `.proto` files."""

import sys
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
OUT = "ringfence/wire/generated"


def main() -> None:
    """Write the modules so that they import each other by their full package name."""
    status = protoc.main(
        [
            "protoc",
            f"-I{OUT}={ROOT / 'ringfence/wire'}",
            f"--python_out={ROOT}",
            f"--grpc_python_out={ROOT}",
            f"--mypy_out={ROOT}",
            f"{OUT}/agent.proto",
            f"{OUT}/cri.proto",
        ]
    )
    sys.exit(status)


if __name__ == "__main__":
    main()
