"""A stored run as tidy pandas frames."""

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from perturb.errors import InputError

# column: meaning and unit. These are the columns of a run directory's files.
SUMMARY = {
    "quantity": "gradient (dE/dw) or hv (z = Hv)",
    "method": "method of weight perturbation",
    "code": "perturbation code",
    "n_weights": "weights of the network, biases included",
    "trials": "draws of the perturbation",
    "evaluations": "measurements of E",
    "cosine": "cosine of the estimate with exact R{backprop}",
    "relative_error": "|estimate - exact| / |exact|",
    "rms_stderr": "rms over weights of the standard error, units of the quantity; empty where it cannot be known",
    "z_rms": "rms over weights of (estimate - exact)/stderr; about 1 without bias",
    "limit_relative_error": "|estimate - limit| / |limit|, the limit being what theory says the method tends to",
    "chip_time_s": "time on the chip, s",
    "energy_j": "energy on the chip, J",
    "wall_time_s": "time of this simulation, s",
    "events": "events simulated in time",
    "limit_z_rms": "rms over weights of (estimate - limit)/stderr; about 1 if theory is right",
    "label": "as published, or an extension",
    "sigma": "rms of a perturbation, units of w",
    "r": "displacement along v; empty for methods without",
    "broadcasts": "what every synapse must be told",
    "predicted_cosine": "cosine that theory predicts",
    "limit_cosine": "cosine of the method's limit with the exact answer: the best that any number of trials reaches",
    "evaluations_to_0_9": "predicted evaluations to a cosine of 0.9; inf = never",
    "verdict": "the same in words",
    "primary": "whether this is the experiment's own method (the others were set beside it)",
    "status": "complete, or partial if the run was interrupted",
    "warnings": "what to mind about the method, its code and the number of trials; empty if nothing",
}
WEIGHTS = {
    "method": "method",
    "code": "code",
    "index": "number of the weight in the flat vector w",
    "unit_from": "unit it comes from, inputs first; -1 = bias",
    "unit_to": "unit it goes to",
    "w": "weight",
    "v": "direction",
    "g_exact": "exact dE/dw",
    "g_hat": "estimated dE/dw",
    "g_stderr": "its standard error",
    "hv_exact": "exact (Hv)_i",
    "hv_hat": "estimated (Hv)_i; empty for a method of the gradient alone",
    "hv_stderr": "its standard error",
    "hv_limit": "what the method tends to, by theory",
}
CONVERGENCE = {
    "method": "method",
    "code": "code",
    "quantity": "gradient or hv",
    "trials": "trials so far",
    "evaluations": "measurements of E so far",
    "cosine": "cosine with the exact answer",
    "relative_error": "|estimate - exact| / |exact|",
    "predicted_cosine": "predicted cosine",
    "predicted_relative_error": "predicted relative error",
}
TIMELINE = {
    "method": "method",
    "code": "code",
    "trial": "trial",
    "phase": "evaluation within the trial, -1 = none",
    "start_ns": "start, ns of chip time",
    "end_ns": "end, ns of chip time",
    "unit": "part of the chip",
    "action": "what it did",
}
CATEGORIES = ("method", "code", "quantity")


@dataclass(frozen=True)
class Frames:
    """One run: frames with the columns above, the resolved experiment and its provenance as dictionaries."""

    directory: Path
    summary: pd.DataFrame
    weights: pd.DataFrame
    convergence: pd.DataFrame
    timeline: pd.DataFrame
    experiment: dict[str, Any]
    provenance: dict[str, Any]

    @property
    def partial(self) -> bool:
        return self.provenance["status"] == "partial"

    @property
    def primary(self) -> tuple[str, str]:
        """(method, code) of the experiment's own method, or of the last one run if it was not reached."""
        rows = self.summary[self.summary["primary"]]
        row = (rows if len(rows) else self.summary).iloc[-1]
        return row["method"], row["code"]

    def methods(self, quantity: str | None = None) -> list[tuple[str, str]]:
        """(method, code) in the order of the summary; of one quantity only those that estimate it."""
        rows = self.summary if quantity is None else self.summary[self.summary["quantity"] == quantity]
        return list(dict.fromkeys(zip(rows["method"], rows["code"], strict=True)))


def load(directory: str | Path) -> Frames:
    """The frames of a run directory. InputError, naming the file, if one is missing, cut short or not of this kind."""
    directory = Path(directory)
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory: give the directory of a run (perturb run ... --out DIR)")
    if not (directory / "provenance.json").exists():
        raise InputError(f"{directory}: not the directory of a run (no provenance.json): make one with perturb run ... --out DIR")

    def parquet(name: str, columns: dict[str, str]) -> pd.DataFrame:
        frame = read(directory / name, lambda path: pd.read_parquet(path))
        missing = [column for column in columns if column not in frame.columns]
        if missing:
            raise InputError(
                f"{directory / name}: has no column {missing[0]}: written by another version? Run the experiment again"
            )
        return frame.astype({column: "category" for column in CATEGORIES if column in columns})

    frames = Frames(
        directory,
        parquet("summary.parquet", SUMMARY),
        parquet("weights.parquet", WEIGHTS),
        parquet("convergence.parquet", CONVERGENCE),
        parquet("timeline.parquet", TIMELINE),
        read(directory / "experiment.toml", lambda path: tomllib.loads(path.read_text())),
        read(directory / "provenance.json", lambda path: json.loads(path.read_text())),
    )
    if not isinstance(frames.provenance, dict) or not {"status", "description", "command", "seed"} <= set(frames.provenance):
        raise InputError(f"{directory / 'provenance.json'}: not of a run: run the experiment again")
    if frames.summary.empty:
        raise InputError(f"{directory / 'summary.parquet'}: holds no result: run the experiment again")
    return frames


def read(path: Path, reader: Any) -> Any:
    """reader(path), or InputError naming the file."""
    try:
        return reader(path)
    except FileNotFoundError:
        raise InputError(f"{path}: missing: run the experiment again") from None
    except (OSError, ValueError) as error:  # pyarrow's own errors are subclasses of both
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise InputError(f"{path}: cannot be read ({reason}): run the experiment again") from None
