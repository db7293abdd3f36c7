// The matrix product of a unit of rows with packed weights, for AVX-512.
//
// A tile of sums, kTileRows rows by kTileBlocks blocks of 16 outputs, stays in registers while it runs over all inputs;
// the rows of a unit and the weights of a tile stay in the caches.  A row's sums do not depend on how rows are cut.
#pragma once
#include "row_steps.h"

// Arrays of vectors stay in registers only when all their indices are constants.
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

namespace {

constexpr int kBlock = 16;          // outputs of a block of weights
constexpr int64_t kUnitRows = 48;   // for so many rows the weights are read once
constexpr int64_t kRunSteps = 256;  // steps summed in a row before they join the total: errors grow with the length
constexpr int kTileRows = 6, kTileBlocks = 4;  // 24 sums, 4 weights and an input in 32 registers
constexpr int64_t kTileSums = kTileRows * kTileBlocks * kBlock;
using Sums = Vec<float, kBlock>;

template <class Type>
constexpr int64_t kStep = sizeof(float) / sizeof(typename Type::Store);  // inputs that share 32 bits

// sums += a * b, where each lane of a and b holds the inputs of a step.
template <class Type>
ALWAYS_INLINE Sums multiply_add(Sums sums, Sums a, Sums b) {
#if defined(__AVX512BF16__)
    if constexpr (std::is_same_v<Type, BFloat16>) return (Sums)_mm512_dpbf16_ps((__m512)sums, (__m512bh)a, (__m512bh)b);
#endif
    if constexpr (kStep<Type> == 1) {
        return sums + a * b;
    } else {
        using Pairs = Vec<uint32_t, kBlock>;  // the first one in the lower half
        sums += (Sums)((Pairs)a << 16) * (Sums)((Pairs)b << 16);
        return sums + (Sums)((Pairs)a & 0xffff0000u) * (Sums)((Pairs)b & 0xffff0000u);
    }
}

ALWAYS_INLINE Sums relu(Sums sums) {  // max keeps the second operand's NaN
    return (Sums)_mm512_max_ps(_mm512_setzero_ps(), (__m512)sums);
}

// The sums of kRows rows, `pitch` inputs apart, and kBlocks blocks.
template <class Type, int kRows, int kBlocks>
struct Tile {
    Sums sums[kRows][kBlocks];

    ALWAYS_INLINE void start(const float* bias) {
        for (int v = 0; v < kBlocks; ++v) {
            const Sums value = load<Float32, kBlock>(bias + v * kBlock);
            for (int r = 0; r < kRows; ++r) sums[r][v] = value;
        }
    }

    // `weights` and `block` count 32-bit steps; `block` is the size of a block.
    ALWAYS_INLINE void add(const typename Type::Store* rows, int64_t pitch, const float* weights, int64_t block,
                           int64_t steps) {
        for (int64_t k = 0; k < steps; ++k) {
            Sums b[kBlocks];
            for (int v = 0; v < kBlocks; ++v) b[v] = load<Float32, kBlock>(weights + v * block + k * kBlock);
            for (int r = 0; r < kRows; ++r) {
                float inputs;
                std::memcpy(&inputs, rows + r * pitch + k * kStep<Type>, sizeof(inputs));
                const Sums a = splat<kBlock>(inputs);
                for (int v = 0; v < kBlocks; ++v) sums[r][v] = multiply_add<Type>(sums[r][v], a, b[v]);
            }
        }
    }

    // Move the sums to `total`, or add them to it.
    ALWAYS_INLINE void set_aside(float* total, bool add) {
        UNROLL
        for (int r = 0; r < kRows; ++r) {
            UNROLL
            for (int v = 0; v < kBlocks; ++v) {
                float* at = total + (r * kBlocks + v) * kBlock;
                store<Float32, kBlock>(at, add ? load<Float32, kBlock>(at) + sums[r][v] : sums[r][v]);
                sums[r][v] = splat<kBlock>(0.0f);
            }
        }
    }
    ALWAYS_INLINE void join(const float* total) {
        UNROLL
        for (int r = 0; r < kRows; ++r) {
            UNROLL
            for (int v = 0; v < kBlocks; ++v) {
                sums[r][v] += load<Float32, kBlock>(total + (r * kBlocks + v) * kBlock);
            }
        }
    }

    // Activate and write the first `count` outputs of each row.
    template <class Out>
    ALWAYS_INLINE void finish(int64_t activation, typename Out::Store* out, int64_t pitch, int64_t count) const {
        if (activation == kGeluOf) write<Out>(out, pitch, count, [](Sums value) { return gelu_lanes<Out, kBlock>(value); });
        else if (activation == kRelu) write<Out>(out, pitch, count, relu);
        else write<Out>(out, pitch, count, [](Sums value) { return value; });
    }

    template <class Out, class Activate>
    ALWAYS_INLINE void write(typename Out::Store* out, int64_t pitch, int64_t count, Activate activate) const {
        const bool whole = count >= kBlocks * kBlock;
        UNROLL
        for (int r = 0; r < kRows; ++r) {
            UNROLL
            for (int v = 0; v < kBlocks; ++v) {
                typename Out::Store* at = out + r * pitch + v * kBlock;
                const Sums value = activate(sums[r][v]);
                store_first<Out, kBlock>(at, value, whole ? kBlock : count - v * kBlock);
            }
        }
    }
};

// One product of a unit: its rows times the blocks [first, end) of the weights.
template <class Type, class Out>
struct Product {
    const typename Type::Store* rows;
    int64_t count, inputs;
    const float* weights;
    const float* bias;
    int64_t outputs, first, end, activation;
    typename Out::Store* out;
    int64_t out_pitch;
    float* aside;  // kTileSums floats; sums of an array here would take registers from those of the tile

    template <int kRows, int kBlocks>
    void tile(int64_t row, int64_t block) const {
        const int64_t steps = inputs / kStep<Type>;
        const typename Type::Store* x = rows + row * inputs;
        const float* w = weights + block * kBlock * steps;
        Tile<Type, kRows, kBlocks> tile;
        tile.start(bias + block * kBlock);
        // A bfloat16 result does not show the errors of a long sum.
        const int64_t run = kStep<Type> == 1 ? kRunSteps : steps;
        for (int64_t k = 0;; k += run) {
            tile.add(x + k * kStep<Type>, inputs, w + k * kBlock, kBlock * steps, min_of(steps - k, run));
            if (k + run >= steps) break;
            tile.set_aside(aside, k > 0);
        }
        if (steps > run) tile.join(aside);
        tile.template finish<Out>(activation, out + row * out_pitch + block * kBlock, out_pitch,
                                  outputs - block * kBlock);
    }

    // All rows, in groups of nearly equal size.
    template <int kBlocks>
    void column(int64_t block) const {
        const int64_t groups = divide_up(count, kTileRows);
        for (int64_t g = 0, row = 0; g < groups; ++g) {
            const int64_t n = divide_up(count - row, groups - g);
            if (n == kTileRows) tile<kTileRows, kBlocks>(row, block);
            else if (n == 1) tile<1, kBlocks>(row, block);
            else if (n == 2) tile<2, kBlocks>(row, block);
            else if (n == 3) tile<3, kBlocks>(row, block);
            else if (n == 4) tile<4, kBlocks>(row, block);
            else tile<5, kBlocks>(row, block);
            row += n;
        }
    }

    void run() const {
        const int64_t columns = divide_up(end - first, kTileBlocks);
        for (int64_t c = 0, block = first; c < columns; ++c) {
            const int64_t n = divide_up(end - block, columns - c);
            if (n == kTileBlocks) column<kTileBlocks>(block);
            else if (n == 3) column<3>(block);
            else if (n == 2) column<2>(block);
            else column<1>(block);
            block += n;
        }
    }
};

}  // namespace
