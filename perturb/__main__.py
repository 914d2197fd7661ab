"""`python -m perturb`: the command `perturb`, as its distribution declares it.

Looked up and not imported: this package knows nothing of those that stand above it.
"""

from importlib.metadata import distribution


def main() -> None:
    """Run the command."""
    (command,) = distribution("perturb").entry_points.select(
        group="console_scripts", name="perturb"
    )
    command.load()()


if __name__ == "__main__":
    main()
