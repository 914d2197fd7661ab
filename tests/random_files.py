"""Random experiment, chip and device files, drawn from the real schema: allowed values, borders,
and every kind of mistake.
"""

import copy
import math
from pathlib import Path

import tomli_w
from hypothesis import strategies as st

from hardware.device_params import DeviceParams, device_names
from hardware.params import ChipParams, chip_names
from perturb.networks.activations import ACTIVATIONS
from perturb.networks.losses import ERRORS
from perturb.networks.recurrent import SOLVERS
from perturb.training.plan import RATES, RULES
from perturb.trial.codes import CODES
from perturb.trial.methods import METHODS
from sims.data.datasets import DATASETS
from sims.experiment.experiment import Experiment
from sims.experiment.network import KINDS

# what texts are names of, by the last part of their key
NAMES = {
    "method": METHODS,
    "methods": METHODS,
    "code": CODES,
    "codes": CODES,
    "rule": RULES,
    "rate": RATES,
    "output": ACTIVATIONS,
    "activation": ACTIVATIONS,
    "activations": ACTIVATIONS,
    "error": ERRORS,
    "solver": SOLVERS,
    "preset": chip_names(),
}
# the most of what costs time, so that an example takes a fraction of a second
FEW = {
    "network.layers": 3,
    "network.units": 5,
    "network.inputs": 4,
    "network.outputs": 4,
    "network.edges": 5,
    "network.bias": 5,
    "network.tied": 4,
    "network.visible": 4,
    "network.hidden": 3,
    "network.max_steps": 1000,
    "data.samples": 6,
    "data.test": 3,
    "data.bits": 3,
    "data.side": 2,
    "weights.warmup_updates": 4,
    "estimation.trials": 24,
    "estimators.repeats": 2,
    "dies.count": 2,
    "spectrum.k": 4,
    "spectrum.probes": 3,
    "spectrum.steps": 5,
    "finite_difference.points": 5,
    "uses.test_samples": 10,
    "uses.budget": 20,
    "training.runs": 2,
    "training.updates": 6,
    "training.control_updates": 6,
    "training.trials_per_update": 3,
    "training.tune_trials": 6,
    "training.cg_steps": 3,
    "training.calibrate": 3,
    "training.records": 4,
    "sweep.samples": 4,
    "sweep.repeats": 2,
}
NETWORKS = [
    ({"layers": [2, 2, 1], "output": "logistic"}, {"name": "xor"}),
    ({"layers": [2, 2]}, {"name": "teacher", "samples": 4}),
    ({"layers": [2, 2, 1]}, {"name": "spirals", "samples": 5, "test": 3}),
    ({"layers": [3, 1], "error": "binary_cross_entropy"}, {"name": "parity", "bits": 3}),
    (
        {
            "kind": "dag",
            "units": 5,
            "edges": [[0, 3], [1, 3], [2, 3], [0, 4], [1, 4], [2, 4], [3, 4]],
            "inputs": [0, 1],
            "bias": 2,
            "outputs": [4],
            "activations": {"4": "linear"},
        },
        {"name": "xor"},
    ),
    (
        {"kind": "recurrent", "units": 3, "inputs": [0, 1], "outputs": [2]},
        {"name": "patterns", "samples": 2},
    ),
    (
        {"kind": "recurrent", "units": 3, "inputs": [0, 1], "outputs": [2], "solver": "relax"},
        {"name": "xor"},
    ),
    (
        {
            "kind": "layers",
            "input": [1, 2],
            "layers": ["conv1d 2 2 padding=1", "tanh", "flatten", "linear 1"],
        },
        {"name": "xor"},
    ),
    ({"kind": "onnx", "file": str(Path(__file__).parent / "small.onnx")}, {"name": "xor"}),
    ({"kind": "boltzmann", "visible": 3, "hidden": 1}, {"name": "xor"}),
    (
        {"kind": "boltzmann", "visible": 4, "hidden": 0, "values": [-1, 1], "sign": -1},
        {"name": "bars", "side": 2},
    ),
]
NUMBERS = [
    0,
    1e-300,
    1e-12,
    1e-6,
    1e-3,
    0.01,
    0.1,
    0.3,
    0.5,
    0.9,
    1,
    2,
    3,
    7,
    10,
    50,
    1e3,
    1e6,
    1e12,
    1e18,
    1e100,
    1e300,
]
ODD = st.sampled_from(
    [
        math.nan,
        math.inf,
        -math.inf,
        -1,
        0,
        -1e-9,
        1e308,
        2**63,
        2**64,
        10**400,
        True,
        "",
        "1",
        "x" * 5000,
        "\n",
        "\0",
        "\u2028",
    ]
    + [
        [],
        [[]],
        [1, "a"],
        {},
        {"a": {}},
        [{}],
        {"": 1},
        [math.nan, 1.0],
        [True, False],
        "idael",
        "nan",
        "[1]",
        "../",
        "C:\\x",
    ]
)


def leaves(model, under=""):
    """{dotted key: JSON schema} of all keys of a model that are no tables."""
    schema = model.model_json_schema()

    def walk(node, key):
        node = resolved(node)
        if "properties" not in node:
            yield key, node
        for name, inner in node.get("properties", {}).items():
            yield from walk(inner, f"{key}.{name}" if key else name)

    def resolved(node):
        kinds = [kind for kind in node.get("anyOf", [node]) if kind != {"type": "null"}]
        node = {**node, **kinds[-1]}
        if "$ref" in node:
            return schema["$defs"][node["$ref"].rpartition("/")[2]]
        if "$ref" in node.get("items", {}):
            node["items"] = schema["$defs"][node["items"]["$ref"].rpartition("/")[2]]
        return node

    return dict(walk(schema, under))


EXPERIMENT = {**leaves(Experiment), "chip.preset": {"type": "string"}}
CHIP, DEVICE = leaves(ChipParams), leaves(DeviceParams)
TABLES = sorted({key.rpartition(".")[0] for key in EXPERIMENT} - {""})


def allowed(key, schema):
    """Values that a key takes, or nearly so: inside its limits and at them."""
    name, most = key.rpartition(".")[2], FEW.get(key.removeprefix("contender."))
    kind = schema.get("type")
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if key == "data.name":
        return st.sampled_from(sorted(DATASETS))
    if name in NAMES and kind == "string":
        return st.sampled_from(sorted(NAMES[name]))
    if name == "claim":
        return st.just("lfsr")
    if kind in ("integer", "number"):
        low = schema.get("minimum", math.nextafter(schema.get("exclusiveMinimum", -1e300), 1))
        high = min(
            schema.get("maximum", math.nextafter(schema.get("exclusiveMaximum", 1e300), 0)),
            most or math.inf,
        )
        limits = [x for x in (low, high) if abs(x) < 1e300]
        notable = [x for size in NUMBERS for x in (size, -size) if low <= x <= high] + limits
        if kind == "integer":
            return st.sampled_from(
                [int(x) for x in notable if x == int(x)] or [int(low)]
            ) | st.integers(int(low), int(high))
        near = st.sampled_from([float(x) for x in notable if abs(x) <= 1e3] or notable)
        return (
            near | near | near | st.sampled_from([float(x) for x in notable]) | st.floats(low, high)
        )
    if kind == "boolean":
        return st.booleans()
    if kind == "array":
        if "prefixItems" in schema:
            return st.tuples(*(allowed(key, item) for item in schema["prefixItems"])).map(list)
        return st.lists(
            allowed(key, schema["items"]),
            min_size=schema.get("minItems", 0),
            max_size=schema.get("minItems", 0) + 2,
        )
    if "properties" in schema:
        parts = {
            name: allowed(f"contender.training.{name}", inner)
            for name, inner in _plain(schema).items()
        }
        needed = {name: parts.pop(name) for name in schema.get("required", [])}
        return st.fixed_dictionaries(needed, optional=parts)
    if kind == "object":
        return st.dictionaries(
            st.sampled_from("01234"), st.sampled_from(sorted(NAMES["activation"])), max_size=2
        )
    return st.sampled_from(["a", "b c", "x-1", "\u00e4", "mine.csv", "class"])


def _plain(schema):
    return {
        name: {
            **inner,
            **next((kind for kind in inner.get("anyOf", []) if kind != {"type": "null"}), {}),
        }
        for name, inner in schema["properties"].items()
    }


def put(data, key, value):
    """Set a dotted key; what stands in its way becomes a table."""
    *parents, last = key.split(".")
    for name in parents:
        if not isinstance(data.get(name), dict):
            data[name] = {}
        data = data[name]
    data[last] = value


def take(data, key):
    """Remove a dotted key, or a table, if it is there."""
    *parents, last = key.split(".")
    for name in parents:
        data = data.get(name)
        if not isinstance(data, dict):
            return
    data.pop(last, None)


def _fits(data, key):
    """Whether a key goes with the kind of network, data set or device that data has."""
    table, _, name = key.rpartition(".")
    if table == "network":
        return name in KINDS[data["network"].get("kind", "mlp")].keys
    if table == "data":
        return name in ("seed", "noise", *DATASETS[data["data"]["name"]].keys)
    if key.startswith(("chip.weights.device", "weights.device", "reproduce", "sweep")):
        return False
    return (
        "model" not in data
        or table in data
        or (not table and name in ("name", "description", "range"))
    )


@st.composite
def changes(draw, data, keys, most, mistakes):
    """data with some keys changed to allowed values, and sometimes with mistakes."""
    data = copy.deepcopy(data)
    for key in draw(
        st.lists(st.sampled_from([key for key in sorted(keys) if _fits(data, key)]), max_size=most)
    ):
        put(data, key, draw(allowed(key, keys[key])))
    if mistakes and draw(st.booleans()):
        for _ in range(draw(st.integers(1, 2))):
            key = draw(st.sampled_from(sorted(keys)))
            what = draw(
                st.sampled_from(
                    ["odd", "odd", "odd", "misspelt", "missing", "table missing", "no table"]
                )
            )
            table = draw(st.sampled_from(sorted({key.partition(".")[0] for key in keys})))
            if what == "odd":
                put(data, key, draw(ODD))
            elif what == "misspelt":
                put(
                    data,
                    draw(st.sampled_from([key[:-1], key + "s", key.upper(), key + ".a"])) or "a",
                    draw(ODD),
                )
            elif what == "missing":
                take(data, key)
            elif what == "table missing":
                take(data, table)
            else:
                put(data, table, draw(ODD))
    return data


def devices(mistakes=True):
    """Contents of a device file."""
    models = st.sampled_from(
        [
            {"model": "digital", "bits": 4},
            {"model": "constant-step", "step": {"dw_min": 0.01}},
            {"model": "linear-step", "step": {"dw_min": 0.01}, "linear": {"gamma_up": 0.5}},
            {"model": "soft-bounds", "step": {"dw_min": 0.01}},
            {
                "model": "exponential-step",
                "step": {"dw_min": 0.01},
                "exponential": {"a": 0.2, "A_up": 0.1, "gamma_up": 1.0},
            },
            {"model": "power-step", "step": {"dw_min": 0.01}, "power": {"gamma_up": 2.0}},
            {
                "model": "piecewise-step",
                "step": {"dw_min": 0.01},
                "piecewise": {"up": [1.0, 0.5], "down": [0.5, 1.0, 1.5]},
            },
            {
                "model": "one-sided-pair",
                "step": {"dw_min": 0.01},
                "bounds": {"w_min": 0.0},
                "exponential": {"a": 0.2, "A_up": 0.1, "gamma_up": 1.0},
            },
        ]
    )
    tables = st.sampled_from(
        [
            {},
            {"programming": {"noise_us": [0.1, 0.2, 0.0], "g_max_us": 25.0}},
            {"flicker": {"q": 0.01}},
            {"leak": {"lifetime_s": 1e-3}},
            {"drift": {"t0_s": 1e-6, "nu": 0.05}},
            {"corrupt": {"fraction": 0.3}},
        ]
    )
    return st.tuples(models, tables).flatmap(
        lambda both: changes(both[0] | both[1], DEVICE, 5, mistakes)
    )


@st.composite
def chips(draw, mistakes=True):
    """Contents of a chip file."""
    data = draw(changes({"name": "random"}, CHIP, 6, mistakes))
    if draw(st.booleans()):
        put(data, "weights.device", draw(st.sampled_from(device_names()) | devices(mistakes)))
    return data


@st.composite
def experiments(draw, study=None, mistakes=True):
    """Contents of an experiment file."""
    network, data = draw(st.sampled_from(NETWORKS))
    methods = st.lists(st.sampled_from(sorted(METHODS)), min_size=1, max_size=3)
    base = {
        "name": "random",
        "network": network,
        "data": data,
        "study": study or draw(st.sampled_from(sorted(STUDIES))),
        "estimation": {"trials": 8},
        "dies": {"count": 2},
        "estimators": {"repeats": 2, "methods": draw(methods), "codes": ["walsh", "lfsr"]},
        "finite_difference": {"points": 4},
        "uses": {"budget": 20, "test_samples": 8, "decays": [0.01, 0.1]},
        "spectrum": {"k": 2},
        "training": {"runs": 2, "updates": 4, "records": 3, "tune_trials": 4},
        "run": {"seed": 1},
        "reproduce": {"claim": "lfsr"},
    }
    if draw(st.booleans()):
        base["chip"] = draw(chips(mistakes=False))
        base["chip"].pop("name")
        if draw(st.booleans()):
            base["chip"]["preset"] = draw(st.sampled_from(chip_names()))
    keys = {key: schema for key, schema in EXPERIMENT.items() if key != "study" or study is None}
    return draw(changes(base, keys, 8, mistakes))


STUDIES = [study for study in EXPERIMENT["study"]["enum"]]


@st.composite
def damaged(draw, content):
    """Bytes of a file, damaged."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        match draw(
            st.sampled_from(
                ["cut", "flip", "zero", "insert", "crlf", "bom", "utf-16", "latin-1", "twice"]
            )
        ):
            case "cut":
                del content[place:]
            case "flip" if content:
                content[place] ^= 1 << draw(st.integers(0, 7))
            case "zero" if content:
                content[place] = 0
            case "insert":
                content[place:place] = draw(st.binary(max_size=4))
            case "crlf":
                content = content.replace(b"\n", b"\r\n")
            case "bom":
                content[:0] = b"\xef\xbb\xbf"
            case "utf-16":
                content = bytearray(content.decode("latin-1").encode("utf-16"))
            case "latin-1":
                content[place:place] = "\u00e4".encode("latin-1")
            case "twice":
                content += content[place:]
    return bytes(content)


def text(data):
    """The TOML of it."""
    return tomli_w.dumps(data).encode()


@st.composite
def sweeps(draw):
    """Contents of an experiment file with a table [sweep]: lists, texts that stand for values,
    and mistakes.
    """
    data = draw(experiments("budget", mistakes=False))
    keys = {key: schema for key, schema in EXPERIMENT.items() if not key.startswith("sweep")}
    texts = st.sampled_from(
        [
            "linspace:0:1:3",
            "logspace:-2:0:3",
            "uniform:0:1",
            "loguniform:0.1:1",
            "uniform:1:0",
            "linspace:0:1",
            "linspace:0:1:0",
        ]
        + [
            "logspace:-999:0:2",
            "1,2",
            "a,,b",
            "",
            ",",
            "linspace:nan:1:2",
            "uniform:0:inf",
            "loguniform:-1:1",
            "[1,2],[3]",
            '"a',
        ]
    )
    for name in draw(st.lists(st.sampled_from(["vary", "zip"]), max_size=3)):
        key = draw(
            st.sampled_from([key for key in sorted(keys) if _fits(data, key)])
            | st.sampled_from(sorted(keys))
        )
        values = st.lists(allowed(key, keys[key]), min_size=1, max_size=3)
        put(
            data,
            f"sweep.{name}.{key}",
            draw(values | values | texts | st.lists(ODD, max_size=2) | ODD),
        )
    sweep = {
        key: schema
        for key, schema in EXPERIMENT.items()
        if key.startswith("sweep.") and key[6:] not in ("vary", "zip")
    }
    for key in draw(st.lists(st.sampled_from(sorted(sweep)), max_size=3)):
        put(data, key, draw(allowed(key, sweep[key])))
    return data
