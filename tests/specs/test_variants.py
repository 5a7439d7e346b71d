"""The variant grammar."""

from __future__ import annotations

import re

import pytest

from effx.errors import UsageError
from effx.specs import variants
from effx.specs.optimize import OptimizeSettings
from effx.structure import Structure


def test_parts_may_be_in_any_order() -> None:
    parsed = variants.parse("tokens+int8+exit+seq64")
    assert (parsed.scheme, parsed.precision, parsed.length) == ("int8", "int8", 64)
    assert (parsed.exits, parsed.tokens, parsed.buckets) == ("exit", True, False)


def test_spaces_are_no_part_of_a_name() -> None:
    assert variants.parse("int8 + seq16").text == "int8+seq16"
    assert variants.parse(" seq16+int8 ").text == "seq16+int8"  # the order is that of existing folders
    assert variants.parse("int8 + seq16") == variants.parse("int8+seq16")


def test_spaces_are_no_part_of_what_a_search_builds() -> None:
    settings = OptimizeSettings.of(variant="int8 ", also=("exits", "threads1 + buckets8"))
    assert (settings.variant, settings.also) == ("int8", ("exits", "threads1+buckets8"))


def test_variants_that_are_built_alike_are_the_first_of_them() -> None:
    texts = ["seq16+int8", "int8 +seq16", "fp32", "int8", "seq16", "seq16 + fp32", "int8-static+seq16"]
    expected = ["seq16+int8", "fp32", "int8", "seq16", "int8-static+seq16"]
    assert [variant.text for variant in variants.distinct(texts)] == expected


def test_precision_is_that_of_the_scheme() -> None:
    assert variants.parse("fp32").precision == variants.parse("buckets").precision == "fp32"
    assert variants.parse("int8-static").precision == "int8"
    quantized = {name for name in variants.PRECISIONS if variants.parse(name).is_quantized}
    assert quantized == {"int8", "int8-dynamic", "int8-static", "fp8", "auto"}


def test_lengths_that_inputs_are_padded_to() -> None:
    assert variants.parse("buckets").lengths(100) == [16, 32, 64, 100]
    assert variants.parse("buckets24").lengths(100) == [24, 48, 72, 96, 100]
    assert variants.parse("buckets24").lengths(48) == [24, 48]
    assert variants.parse("buckets24").lengths(20) == [20]
    assert variants.parse("seq30").lengths(100) == [30]
    assert variants.parse("int8").lengths(100) is None


def test_more_buckets_than_can_be_compiled_are_refused() -> None:
    variant, structure = variants.parse("buckets4+int8"), Structure(layers=())
    variant.check(structure, 512, "sst2")
    with pytest.raises(UsageError, match=r"which are 129 buckets; 128 are possible.*e\.g\. buckets5"):
        variant.check(structure, 513, "sst2")
    variants.parse("buckets5").check(structure, 513, "sst2")


def test_threads_are_a_number() -> None:
    variant = variants.parse("threads2+int8+seq32")
    assert (variant.threads, variant.precision, variant.length) == (2, "int8", 32)
    assert variants.parse("int8").threads is None


def test_the_stride_of_windows_is_checked() -> None:
    variant = variants.parse("int8+stride64")
    assert (variant.stride, variant.precision, variant.length) == (64, "int8", None)
    assert variants.parse("int8").stride is None
    structure = Structure(layers=())
    variant.check(structure, 512, "squad", window=384)
    variant.check(structure, 512, "squad", window=134)
    with pytest.raises(UsageError, match="windows of 133 tokens have at most 63 in common"):
        variant.check(structure, 512, "squad", window=133)
    with pytest.raises(UsageError, match="sst2: its rows are not divided into windows"):
        variant.check(structure, 512, "sst2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int9", "unknown variant 'int9'. Did you mean 'int8'"),
        ("int8+exits", "unknown variant 'exits'. Did you mean 'exit'"),
        ("int8+fp32", "int8 and fp32 exclude each other"),
        ("seq64+buckets", "seq64 and buckets exclude each other"),
        ("buckets+buckets8", "buckets and buckets8 exclude each other"),
        ("buckets3", "expected a length >= 4"),
        ("stride64+stride32", "stride64 and stride32 exclude each other"),
        ("threads1+threads2", "threads1 and threads2 exclude each other"),
        ("threads0", "unknown variant 'threads0'. Did you mean 'threads1'"),
        ("stride0", "unknown variant 'stride0'. Did you mean 'stride64'"),
        ("seq3", "expected a length >= 4"),
        ("seq0", "unknown variant 'seq0'"),
        ("", "unknown variant ''"),
    ],
)
def test_invalid_variants_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        variants.parse(text)
