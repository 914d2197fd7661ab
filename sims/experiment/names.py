"""The experiments that come with the package. Apart from what loads them: a shell that completes a
name has no time for more.
"""

from importlib.resources import files

from hardware.config import toml_names

SHIPPED = files("sims") / "experiments"


def experiment_names() -> list[str]:
    """The experiments that come with the package.

    Returns
    -------
    list of str
        Names for `load_experiment`.

    Examples
    --------
    >>> "xor" in experiment_names()
    True
    """
    return toml_names(SHIPPED)
