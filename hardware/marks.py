"""Types of the parameters of a chip, and marks that say what a parameter is."""

from typing import Annotated, Any

from pydantic import Field

Nanoseconds = Annotated[int, Field(ge=0, le=10**12)]
Share = Annotated[float, Field(ge=0, le=1)]
# a standard deviation relative to 1: 0.05 is 5 %, so 5 cannot be meant
Mismatch = Annotated[float, Field(ge=0, le=1)]
ZERO_IS_OFF = "zero is off"  # a mark of a key of counts: at 0 what it is of is not there
Bits = Annotated[int, Field(ge=0, le=24), ZERO_IS_OFF]

# Marks of a parameter, in the json_schema_extra of its Field; `marked` lists the keys that have
# one. engine: what knows of it besides the chip's parts: the batch kernels of estimates and of
# learning ("kernels"), those of learning with weights in devices that do not decay
# ("stores"), or nothing ("parts")
PARTS: dict[str, Any] = {"engine": "parts"}
# imperfection: makes a chip less than ideal, where it is not as in an ideal one
IMPERFECTION = PARTS | {"imperfection": True}
IN_KERNELS = IMPERFECTION | {"engine": "kernels"}
IN_STORES = IMPERFECTION | {"engine": "stores"}
# unseen: the batch kernels do not know of it when they measure a learning rate by trials
UNSEEN: dict[str, Any] = {"unseen": True}
# worse: which way from the ideal value 0 it gets worse, where that is not "more"
LESS_IS_WORSE: dict[str, Any] = {"worse": "less"}  # 0 is none, or never: small values are the worst
# better: how many times as large a designer can make it, see `perturb budget`
HALVED: dict[str, Any] = {"better": 0.5}
DOUBLED: dict[str, Any] = {"better": 2.0}
