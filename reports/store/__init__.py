"""The formats in which results are stored, written and read here alone: directories of runs,
databases of sweeps.

`SCHEMA_VERSION` counts the changes of their columns and files: it stands in every provenance.json
and is the `user_version` of every sweep database. (Databases alone were counted before, up to 2.)
"""

SCHEMA_VERSION = 4
