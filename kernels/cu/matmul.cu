// out = x · wᵀ on tensor cores: rows of bf16 with the matrix of their expert, in any format of weights; alone, or a gate and
// an up matrix with the activation behind both.
//
// Rows of one expert are neighbours (rows.cu makes them so), and a block computes a tile of some of them. Rows of a tile do not
// meet, and the order of additions along k is that of product.cuh whatever the tile: a row has the same bits alone and among
// others, in the narrow tiles of decoding and in the wide ones of a prefill.
#include "large.cuh"
#include "narrow.cuh"

template <class W>
using Narrow = NarrowTile<W, false>;
template <class W>
using NarrowPair = NarrowTile<W, true>;
template <class W>
using Large = LargeTile<W, false, 4, 4, 2, 4, 3>;
template <class W>
using LargePair = LargeTile<W, true, 4, 2, 2, 4, 3>;

KERNEL(matmul_bf16_narrow, 256, Product) { Narrow<Bf16>::run(p); }
KERNEL(matmul_bf16_large, 256, Product) { Large<Bf16>::run(p); }
KERNEL(matmul_bf16_pair_narrow, 256, Product) { NarrowPair<Bf16>::run(p); }
KERNEL(matmul_bf16_pair_large, 256, Product) { LargePair<Bf16>::run(p); }
KERNEL(matmul_int8_narrow, 256, Product) { Narrow<Int8>::run(p); }
KERNEL(matmul_int8_large, 256, Product) { Large<Int8>::run(p); }
KERNEL(matmul_int8_pair_narrow, 256, Product) { NarrowPair<Int8>::run(p); }
KERNEL(matmul_int8_pair_large, 256, Product) { LargePair<Int8>::run(p); }
KERNEL(matmul_fp8_narrow, 256, Product) { Narrow<Fp8>::run(p); }
KERNEL(matmul_fp8_large, 256, Product) { Large<Fp8>::run(p); }
KERNEL(matmul_fp8_pair_narrow, 256, Product) { NarrowPair<Fp8>::run(p); }
KERNEL(matmul_fp8_pair_large, 256, Product) { LargePair<Fp8>::run(p); }
KERNEL(matmul_int4_narrow, 256, Product) { Narrow<Int4>::run(p); }
KERNEL(matmul_int4_large, 256, Product) { Large<Int4>::run(p); }
KERNEL(matmul_int4_pair_narrow, 256, Product) { NarrowPair<Int4>::run(p); }
KERNEL(matmul_int4_pair_large, 256, Product) { LargePair<Int4>::run(p); }
KERNEL(matmul_mxfp4_narrow, 256, Product) { Narrow<Mxfp4>::run(p); }
KERNEL(matmul_mxfp4_large, 256, Product) { Large<Mxfp4>::run(p); }
KERNEL(matmul_mxfp4_pair_narrow, 256, Product) { NarrowPair<Mxfp4>::run(p); }
KERNEL(matmul_mxfp4_pair_large, 256, Product) { LargePair<Mxfp4>::run(p); }
