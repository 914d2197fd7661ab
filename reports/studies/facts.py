"""The columns of facts, which the summaries of several studies are."""

from reports.columns import Column

FACTS = {
    "subject": Column(
        "what it is about: a source of updates, a quantity, a part of the chip, ...; empty if it"
        " stands for itself"
    ),
    "measure": Column("what was found out of it"),
    "value": Column("its value"),
    "stderr": Column(
        "its standard error; 0 for what is exact to rounding; empty where it is not known"
    ),
    "low": Column("lower end of its 95 % interval; empty where it has none of its own"),
    "high": Column("its upper end"),
    "unit": Column(
        "unit of the value; share: from 0 to 1; cosine: from -1 to 1; empty: as the meaning says"
    ),
    "meaning": Column("what it says"),
}
