"""The columns of facts, which the summaries of several studies are."""

FACTS = {
    "subject": (
        "what it is about: a source of updates, a quantity, a part of the chip, ...; empty if it"
        " stands for itself"
    ),
    "measure": "what was found out of it",
    "value": "its value",
    "stderr": "its standard error; 0 for what is exact to rounding; empty where it is not known",
    "low": "lower end of its 95 % interval; empty where it has none of its own",
    "high": "its upper end",
    "unit": (
        "unit of the value; share: from 0 to 1; cosine: from -1 to 1; empty: as the meaning says"
    ),
    "meaning": "what it says",
}
