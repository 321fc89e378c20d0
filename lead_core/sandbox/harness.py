"""Runs the program inside the sandbox and proves that its last line was reached.

``harness.py NONCE_FD PROOF_FD PROGRAM``, started by `launcher`: a nonce to read, and where to say it
when the program has run. Leaving early leaves it unsaid, whatever the exit code. Standard library only.
"""

import sys
from os import close, read, write  # bound here, before the program can replace them
from types import ModuleType


def main() -> None:
    """Run the program as a module of its own: ``if __name__ == "__main__"`` is not taken."""
    nonce_fd, proof_fd, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    nonce = read(nonce_fd, 64)
    close(nonce_fd)
    write(proof_fd, b"started\n")
    with open(path, "rb") as file:  # noqa: PTH123  nothing imported in vain
        source = file.read()
    sys.argv = [path]
    module = sys.modules["program"] = ModuleType("program")
    try:
        code = compile(source, path, "exec")
        exec(code, module.__dict__)  # noqa: S102
    except MemoryError:
        write(proof_fd, b"memory\n")
        raise
    write(proof_fd, nonce)


main()
