"""Vectors inside Numba: sixteen float32, eight uint64 or sixteen bits at a time.

Numba leaves vectors to LLVM's loop vectoriser, which falls back to scalars without a word; here
they are types of their own. LLVM splits them where the processor has narrower registers, so the
code runs anywhere. Loads and stores are unchecked and take flat C arrays, or pointers to them, with
an index counted in elements.
"""

import operator

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from perturb.compiled import compiled

LANES = 16
EXACT = {
    "error_model": "numpy",
    "fastmath": {"contract"},
}  # of kernels: IEEE arithmetic, but for fused multiply-adds


class Vector(types.Type):
    def __init__(self, name: str, element: ir.Type, lanes: int):
        self.element, self.lanes = element, lanes
        super().__init__(name=name)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, ir.VectorType(fe_type.element, fe_type.lanes))


F32, I64, I8, I1 = ir.FloatType(), ir.IntType(64), ir.IntType(8), ir.IntType(1)
f32x16 = Vector("f32x16", F32, 16)
f32x8 = Vector("f32x8", F32, 8)
f64x8 = Vector("f64x8", ir.DoubleType(), 8)
u64x8 = Vector("u64x8", I64, 8)
u8x64 = Vector("u8x64", I8, 64)
mask16 = Vector("mask16", I1, 16)
mask8 = Vector("mask8", I1, 8)
INDEX = ir.IntType(32)


def _llvm(kind):
    return ir.VectorType(kind.element, kind.lanes)


def _splat(builder, value, lanes):
    # one lane is filled, and a shuffle repeats it: LLVM knows this as a broadcast
    one = builder.insert_element(
        ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined), value, INDEX(0)
    )
    return builder.shuffle_vector(
        one, one, ir.Constant(ir.VectorType(INDEX, lanes), [INDEX(0)] * lanes)
    )


def _shuffle(builder, a, b, order):
    return builder.shuffle_vector(
        a, b, ir.Constant(ir.VectorType(INDEX, len(order)), [INDEX(i) for i in order])
    )


def _constants(element, values):
    return ir.Constant(ir.VectorType(element, len(values)), [element(value) for value in values])


def _pointer(context, builder, array_type, array, index, kind):
    # arrays come from outer functions, pointers are what inner ones take
    data = (
        array
        if isinstance(array_type, types.CPointer)
        else context.make_array(array_type)(context, builder, array).data
    )
    at = builder.gep(data, [index], source_etype=context.get_data_type(array_type.dtype))
    return builder.bitcast(at, ir.PointerType(kind))


def _operation(method):
    """A function of two vectors of one kind, from the method of an IRBuilder."""

    @intrinsic
    def operation(typingctx, a, b):
        return a(a, a), lambda context, builder, sig, args: getattr(builder, method)(*args)

    return operation


add, sub, mul, div = (_operation(name) for name in ("fadd", "fsub", "fmul", "fdiv"))
add_u, mul_u, and_u, or_u, xor_u, shr_u, shl_u = (
    _operation(name) for name in ("add", "mul", "and_", "or_", "xor", "lshr", "shl")
)


def _written(symbol, method):
    """a `symbol` b in Python's signs, of eight float64 and as many or one: rules that are written
    for numbers are compiled for vectors too.
    """
    cases = [signature(f64x8, f64x8, f64x8)]
    cases += [signature(f64x8, f64x8, types.float64), signature(f64x8, types.float64, f64x8)]
    infer_global(symbol)(type(f"Vectors_{method}", (ConcreteTemplate,), {"cases": cases}))

    def lower(context, builder, sig, args):
        spread = [
            value if kind == f64x8 else _splat(builder, value, 8)
            for kind, value in zip(sig.args, args, strict=True)
        ]
        return getattr(builder, method)(*spread)

    for case in cases:
        lower_builtin(symbol, *case.args)(lower)


for _symbol, _method in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _written(_symbol, _method)


def _load(kind):
    @intrinsic
    def load(typingctx, array, index):
        def codegen(context, builder, sig, args):
            pointer = _pointer(context, builder, sig.args[0], *args, _llvm(kind))
            value = builder.load(pointer, typ=_llvm(kind))
            # aligned to elements only, so that any index may be loaded
            value.align = context.get_abi_sizeof(kind.element)
            return value

        return kind(array, types.int64), codegen

    return load


load, load8, load_d, load_u = _load(f32x16), _load(f32x8), _load(f64x8), _load(u64x8)


@intrinsic
def store(typingctx, array, index, vector):
    """array[index : index + lanes] = vector"""

    def codegen(context, builder, sig, args):
        done = builder.store(
            args[2], _pointer(context, builder, sig.args[0], args[0], args[1], args[2].type)
        )
        # aligned to elements only, so that any index may be stored at
        done.align = context.get_abi_sizeof(context.get_data_type(sig.args[0].dtype))
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), codegen


@intrinsic
def pointer(typingctx, array):
    """Where an array's numbers lie: what inner functions take, because arrays are costly to
    pass. See `keep`.
    """

    def codegen(context, builder, sig, args):
        return context.make_array(sig.args[0])(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), codegen


@intrinsic
def keep(typingctx, array):
    """Does nothing, but after the last use of an array's pointer, so that the array lives until
    then.
    """
    return types.void(array), lambda context, builder, sig, args: context.get_dummy_value()


@intrinsic
def peek(typingctx, array, index):
    """array[index], without a check and without counting from the end."""

    def codegen(context, builder, sig, args):
        kind = context.get_data_type(sig.args[0].dtype)
        return builder.load(_pointer(context, builder, sig.args[0], *args, kind), typ=kind)

    return array.dtype(array, types.int64), codegen


@intrinsic
def splat(typingctx, value):
    """A float32 in every lane."""
    return f32x16(types.float32), lambda context, builder, sig, args: _splat(builder, args[0], 16)


@intrinsic
def splat_d(typingctx, value):
    """A float64 in every lane."""
    return f64x8(types.float64), lambda context, builder, sig, args: _splat(builder, args[0], 8)


@intrinsic
def narrow(typingctx, a, b):
    """Two vectors of float64 as one of float32."""

    def codegen(context, builder, sig, args):
        return _shuffle(builder, *(builder.fptrunc(part, _llvm(f32x8)) for part in args), range(16))

    return f32x16(f64x8, f64x8), codegen


@intrinsic
def widen(typingctx, a):
    """Eight float32 as float64."""
    return f64x8(f32x8), lambda context, builder, sig, args: builder.fpext(args[0], _llvm(f64x8))


@intrinsic
def splat_u(typingctx, value):
    return u64x8(types.uint64), lambda context, builder, sig, args: _splat(builder, args[0], 8)


@intrinsic
def iota_u(typingctx):
    """0 to 7."""
    return u64x8(), lambda context, builder, sig, args: _constants(I64, range(8))


def _llvm_function(builder, name, kind, args):
    # of vectors of one kind; its name says which
    vector = _llvm(kind)
    full = f"llvm.{name}.v{kind.lanes}f{32 if kind.element == F32 else 64}"
    return builder.call(
        cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * len(args)), full
        ),
        args,
    )


@intrinsic
def fma(typingctx, a, b, c):
    """a b + c, in one rounding where the processor can."""
    return a(a, a, a), lambda context, builder, sig, args: _llvm_function(
        builder, "fmuladd", sig.return_type, args
    )


def _unary(name):
    @intrinsic
    def function(typingctx, a):
        return a(a), lambda context, builder, sig, args: _llvm_function(
            builder, name, sig.return_type, args
        )

    return function


root, magnitude, down = (_unary(name) for name in ("sqrt", "fabs", "floor"))


@intrinsic
def greater(typingctx, a, b):
    """a > b, false where either is not a number."""
    mask = mask16 if a == f32x16 else mask8
    return mask(a, a), lambda context, builder, sig, args: builder.fcmp_ordered(">", *args)


@intrinsic
def choose(typingctx, mask, a, b):
    """a where the mask is set, b elsewhere."""
    return a(mask, a, a), lambda context, builder, sig, args: builder.select(*args)


@intrinsic
def anywhere(typingctx, mask):
    """Whether the mask is set in any lane."""

    def codegen(context, builder, sig, args):
        # the lanes as bits of one number
        bits = ir.IntType(mask.lanes)
        return builder.icmp_unsigned("!=", builder.bitcast(args[0], bits), bits(0))

    return types.boolean(mask), codegen


@intrinsic
def bits16(typingctx, word):
    """The lowest sixteen bits of a word as a mask, the lowest first."""

    def codegen(context, builder, sig, args):
        return builder.bitcast(builder.trunc(args[0], ir.IntType(16)), _llvm(mask16))

    return mask16(types.uint64), codegen


@intrinsic
def bit_of_each(typingctx, a, b, bit):
    """Whether the bit is set in each of the words of a, then of b."""

    def codegen(context, builder, sig, args):
        a, b, bit = args
        chosen = _splat(builder, builder.shl(I64(1), bit), 8)
        halves = [
            builder.icmp_unsigned("!=", builder.and_(words, chosen), _constants(I64, [0] * 8))
            for words in (a, b)
        ]
        return _shuffle(builder, *halves, range(16))

    return mask16(u64x8, u64x8, types.int64), codegen


@intrinsic
def from_bits64(typingctx, word, value):
    """Sixty-four bytes: `value` where the word's bit is set, else 0."""

    def codegen(context, builder, sig, args):
        word, value = args
        mask = builder.bitcast(word, ir.VectorType(I1, 64))
        return builder.select(
            mask, _splat(builder, builder.trunc(value, I8), 64), _constants(I8, [0] * 64)
        )

    return u8x64(types.uint64, types.int64), codegen


@intrinsic
def total(typingctx, a):
    """Sum of the lanes, as a tree of halves."""

    def codegen(context, builder, sig, args):
        # always the same pairs: the order of a sum does not depend on the processor
        value, width = args[0], sig.args[0].lanes
        while width > 1:
            width //= 2
            low, high = (
                _shuffle(builder, value, value, range(start, start + width)) for start in (0, width)
            )
            value = builder.fadd(low, high)
        return builder.extract_element(value, INDEX(0))

    return (types.float64 if a == f64x8 else types.float32)(a), codegen


@intrinsic
def totals16(typingctx, vectors):
    """Of sixteen vectors, one vector of their sums."""

    def codegen(context, builder, sig, args):
        rows = [builder.extract_value(args[0], i) for i in range(16)]
        width = 1  # after each step every row holds the partial sums of twice as many vectors
        while len(rows) > 1:
            # a pair side by side: lanes without the bit keep the sums of the first, lanes with it
            # those of the second
            first = [(i if not i & width else i - width + 16) for i in range(16)]
            second = [(i + width if not i & width else i + 16) for i in range(16)]
            rows = [
                builder.fadd(_shuffle(builder, a, b, first), _shuffle(builder, a, b, second))
                for a, b in zip(rows[::2], rows[1::2], strict=True)
            ]
            width *= 2
        return rows[0]

    return f32x16(types.UniTuple(f32x16, 16)), codegen


@intrinsic
def exponent(typingctx, a):
    """(e, m) with a = 2^e m and m in [sqrt(1/2), sqrt(2)), for a > 0 (frexp without special
    cases).
    """

    def codegen(context, builder, sig, args):
        i32 = ir.IntType(32)
        kind = ir.VectorType(i32, 16)
        bits = builder.bitcast(args[0], kind)
        # these are the bits of sqrt(1/2): what is subtracted puts the border of exponents there
        shifted = builder.sub(bits, _constants(i32, [0x3F3504F3] * 16))
        e = builder.ashr(shifted, _constants(i32, [23] * 16))
        m = builder.sub(bits, builder.shl(e, _constants(i32, [23] * 16)))
        parts = [builder.sitofp(e, _llvm(f32x16)), builder.bitcast(m, _llvm(f32x16))]
        return context.make_tuple(builder, sig.return_type, parts)

    return types.UniTuple(f32x16, 2)(f32x16), codegen


@intrinsic
def scale(typingctx, a, n):
    """a 2^n for whole numbers n in float32, by adding to the exponent."""

    def codegen(context, builder, sig, args):
        i32 = ir.IntType(32)
        kind = ir.VectorType(i32, 16)
        # to where the exponent of a float32 begins, bit 23
        n = builder.shl(builder.fptosi(args[1], kind), _constants(i32, [23] * 16))
        return builder.bitcast(builder.add(builder.bitcast(args[0], kind), n), _llvm(f32x16))

    return f32x16(f32x16, f32x16), codegen


def _low_halves(builder, parts):
    i32 = ir.IntType(32)
    return _shuffle(
        builder, *(builder.trunc(part, ir.VectorType(i32, 8)) for part in parts), range(16)
    )


@intrinsic
def small(typingctx, a, b):
    """Whole numbers below 2^31 as float32."""

    def codegen(context, builder, sig, args):
        return builder.sitofp(_low_halves(builder, args), _llvm(f32x16))

    return f32x16(u64x8, u64x8), codegen


@intrinsic
def fractions(typingctx, a, b):
    """From sixteen words k < 2^32: (k + 1/2)/2^32 and 1 minus that, each to its own relative
    accuracy.
    """

    def codegen(context, builder, sig, args):
        words, parts = _low_halves(builder, args), []
        # a word with all bits turned is 2^32 - 1 - k, which gives 1 minus the fraction
        for k in (words, builder.xor(words, _constants(ir.IntType(32), [2**32 - 1] * 16))):
            value = builder.fadd(builder.uitofp(k, _llvm(f32x16)), _constants(F32, [0.5] * 16))
            parts.append(builder.fmul(value, _constants(F32, [2.0**-32] * 16)))
        return context.make_tuple(builder, sig.return_type, parts)

    return types.UniTuple(f32x16, 2)(u64x8, u64x8), codegen


@intrinsic
def quarters(typingctx, a, b):
    """From sixteen words k < 2^32: 4 (k + 1/2)/2^32 = q + 1/2 + t with q = 0..3 and |t| < 1/2.
    Returns t and whether q is odd, is 1 or 2, is 2 or 3.
    """

    def codegen(context, builder, sig, args):
        i32 = ir.IntType(32)
        words = _low_halves(builder, args)
        # less half while it is a whole number, so that t is precise near 0
        rest = builder.sub(
            builder.and_(words, _constants(i32, [2**30 - 1] * 16)), _constants(i32, [2**29] * 16)
        )
        t = builder.fadd(builder.sitofp(rest, _llvm(f32x16)), _constants(F32, [0.5] * 16))
        t = builder.fmul(t, _constants(F32, [2.0**-30] * 16))
        low, high = (
            builder.icmp_unsigned(
                "!=", builder.and_(words, _constants(i32, [bit] * 16)), _constants(i32, [0] * 16)
            )
            for bit in (2**30, 2**31)
        )
        return context.make_tuple(builder, sig.return_type, [t, low, builder.xor(low, high), high])

    return types.Tuple((f32x16, mask16, mask16, mask16))(u64x8, u64x8), codegen


@intrinsic
def interleave4(typingctx, a, b):
    """a = (p0..p7, r0..r7), b = (q0..q7, s0..s7): (p0, q0, r0, s0, p1, ...) as two vectors."""

    def codegen(context, builder, sig, args):
        halves = [
            _shuffle(
                builder,
                *args,
                [lane for k in range(start, start + 4) for lane in (k, 16 + k, 8 + k, 24 + k)],
            )
            for start in (0, 4)
        ]
        return context.make_tuple(builder, sig.return_type, halves)

    return types.UniTuple(f32x16, 2)(f32x16, f32x16), codegen


@compiled()
def aligned(count):
    """An empty float32 array at a boundary of cache lines."""
    whole = np.empty(count + 16, np.float32)
    # bytes to the next line of 64, in numbers of 4 bytes
    skip = (64 - whole.ctypes.data % 64) % 64 // 4
    return whole[skip : skip + count]
