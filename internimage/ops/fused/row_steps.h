// Steps on one row of channels in float32: GELU, layer norm, and residual sums.
#pragma once
#include "../runtime/cpp/abi.h"
#include "../runtime/cpp/simd.h"
#include "normal_tail.h"

#include <cmath>
#if defined(HAS_AVX512_VECTORS)
#include <immintrin.h>
#endif

namespace {

int64_t padded(int64_t floats) { return divide_up(floats, 16) * 16; }

// GELU is x * Phi(x) = max(x, 0) - |x| * Phi(-|x|).  Here Phi(-u) on [0, 5.5] is a polynomial of degree 16, fitted so
// that the result is good to 2.2e-7.  Written without branches so that the loop vectorizes; NaN stays NaN.
ALWAYS_INLINE float gelu(float x) {
    const float magnitude = std::fabs(x);
    const float u = magnitude < 5.5f ? magnitude : 5.5f;
    const float s = u * (2.0f / 5.5f) - 1.0f;
    float tail = 2.202640288e-03f;
    tail = tail * s - 7.730266079e-03f;
    tail = tail * s - 1.877258299e-03f;
    tail = tail * s + 3.714307770e-02f;
    tail = tail * s - 3.417335451e-02f;
    tail = tail * s - 5.812703446e-02f;
    tail = tail * s + 1.271153539e-01f;
    tail = tail * s - 2.904855646e-02f;
    tail = tail * s - 1.609575450e-01f;
    tail = tail * s + 2.164218724e-01f;
    tail = tail * s - 5.176461488e-02f;
    tail = tail * s - 1.768177152e-01f;
    tail = tail * s + 2.719178200e-01f;
    tail = tail * s - 2.068339586e-01f;
    tail = tail * s + 9.455730021e-02f;
    tail = tail * s - 2.500751801e-02f;
    tail = tail * s + 2.979774959e-03f;
    return (x < 0.0f ? 0.0f : x) - u * tail;
}

#if defined(HAS_AVX512_VECTORS)
// A table of cubics is cheaper than the polynomial.  The one for bfloat16 results has cells for one register a row.
template <class Out>
ALWAYS_INLINE __m512 gelu_table(__m512 x) {
    constexpr bool kShort = std::is_same_v<Out, BFloat16>;
    const auto look_up = [](int row, __m512i cell) {
        if constexpr (kShort) return _mm512_permutexvar_ps(cell, _mm512_load_ps(kTail16[row]));
        else return _mm512_permutex2var_ps(_mm512_load_ps(kTail32[row]), cell, _mm512_load_ps(kTail32[row] + 16));
    };
    constexpr int kSmallerSize = 10;  // the smaller absolute value, without a sign; `end` where x is NaN
    const __m512 end = _mm512_set1_ps(kTailEnd), cells = _mm512_set1_ps(((kShort ? 16 : 32) - 0.51f) / kTailEnd);
    const __m512 round = _mm512_set1_ps(kRound<float>);  // its lower bits are zero, those of the sum the cell
    const __m512 u = _mm512_range_ps(x, end, kSmallerSize), rounded = _mm512_fmadd_ps(u, cells, round);
    const __m512 r = _mm512_fmsub_ps(u, cells, _mm512_sub_ps(rounded, round));
    const __m512i cell = _mm512_castps_si512(rounded);
    __m512 tail = _mm512_fmadd_ps(look_up(3, cell), r, look_up(2, cell));
    tail = _mm512_fmadd_ps(tail, r, look_up(1, cell));
    tail = _mm512_fmadd_ps(tail, r, look_up(0, cell));
    return _mm512_fnmadd_ps(u, tail, _mm512_max_ps(_mm512_setzero_ps(), x));  // max keeps the second operand's NaN
}
#endif

// GELU of each lane, as exact as results of type Out show.
template <class Out, int L>
ALWAYS_INLINE Vec<float, L> gelu_lanes(Vec<float, L> x) {
#if defined(HAS_AVX512_VECTORS)
    if constexpr (L == 16) return (Vec<float, L>)gelu_table<Out>((__m512)x);
#endif
    float lanes[L];
    std::memcpy(lanes, &x, sizeof(x));
    for (int i = 0; i < L; ++i) lanes[i] = gelu(lanes[i]);
    std::memcpy(&x, lanes, sizeof(x));
    return x;
}

template <class Type>
ALWAYS_INLINE void gelu_run(typename Type::Store* values, int64_t count) {
    constexpr int L = kLanes<float>;
    for_runs<L>(count, [&](int64_t i, int64_t lanes) {
        store_first<Type, L>(values + i, gelu_lanes<Type, L>(load_first<Type, L>(values + i, lanes)), lanes);
    });
}

// Up to this many rows are normalized together: their sums are folded at once, and none waits for another's.
constexpr int kRowGroup = 4;

// Minus the mean, and 1 / std, of kRows rows that lie `pitch` floats apart.
template <int kRows>
struct Moments {
    static constexpr int L = kLanes<float>;
    using V = Vec<float, L>;
    float shift[kRowGroup], scale[kRowGroup];

    ALWAYS_INLINE Moments(const float* rows, int64_t pitch, int64_t count, float eps) {
        each_sum<false>(rows, pitch, count, shift);
        for (int r = 0; r < kRows; ++r) shift[r] = -shift[r] / float(count);
        each_sum<true>(rows, pitch, count, scale);
        for (int r = 0; r < kRows; ++r) scale[r] = 1.0f / std::sqrt(scale[r] / float(count) + eps);
    }

  private:
    // Of each row the sum of its values or of (value + shift)^2, in an order that is the same for every kRows.
    template <bool kSquare>
    ALWAYS_INLINE void each_sum(const float* rows, int64_t pitch, int64_t count, float* totals) const {
        V sums[kRowGroup];
        for (V& sum : sums) sum = splat<L>(0.0f);
        for_runs<L>(count, [&](int64_t i, int64_t lanes) {
            for (int r = 0; r < kRows; ++r) {
                V v = load<Float32, L>(rows + r * pitch + i);
                if (kSquare) v = v + splat<L>(shift[r]), v = v * v;
                sums[r] += keep_first<L>(v, lanes);
            }
        });
        const Vec<float, 4> each = sum_each<float, L>(sums[0], sums[1], sums[2], sums[3]);
        std::memcpy(totals, &each, sizeof(each));
    }
};

// Layer norm of kRows rows in scratch memory, with GELU behind it if asked; `to` may be `from`.
template <class Type, int kRows, bool kGelu>
ALWAYS_INLINE void normalize(const float* from, int64_t pitch, typename Type::Store* to, int64_t to_pitch,
                             const float* weight, const float* bias, int64_t count, float eps) {
    constexpr int L = kLanes<float>;
    const Moments<kRows> moments(from, pitch, count, eps);
    for_runs<L>(count, [&](int64_t i, int64_t lanes) {
        const auto factor = load_first<Float32, L>(weight + i, lanes), offset = load_first<Float32, L>(bias + i, lanes);
        for (int r = 0; r < kRows; ++r) {
            auto v = load<Float32, L>(from + r * pitch + i) + splat<L>(moments.shift[r]);
            v = v * splat<L>(moments.scale[r]) * factor + offset;
            store_first<Type, L>(to + r * to_pitch + i, kGelu ? gelu_lanes<Type, L>(v) : v, lanes);
        }
    });
}

// Call step(row, number of rows as a constant) for [0, rows) in groups.
template <class Step>
ALWAYS_INLINE void for_row_groups(int64_t rows, const Step& step) {
    int64_t r = 0;
    for (; r + kRowGroup <= rows; r += kRowGroup) step(r, std::integral_constant<int, kRowGroup>{});
    for (; r < rows; ++r) step(r, std::integral_constant<int, 1>{});
}

// A parameter vector in float32: the caller's memory for float32, else a decoded copy.
template <class Type>
ALWAYS_INLINE const float* as_float(const void* values, float*& scratch, int64_t count) {
    if (!values) return nullptr;
    if constexpr (sizeof(typename Type::Store) == sizeof(float)) {
        return static_cast<const float*>(values);
    } else {
        float* at = scratch;
        decode_run<Type>(static_cast<const typename Type::Store*>(values), at, count);
        scratch += padded(count);
        return at;
    }
}

// The parameters of a residual in float32; null where a part is left out.
struct Residual {
    const float *gamma, *weight_a, *bias_a, *weight_b, *bias_b;
};

constexpr int64_t kResidualVectors = 5;  // of padded(channels) floats

template <class Type>
ALWAYS_INLINE Residual decode_residual(const ResidualArgs& a, int64_t channels, float*& scratch) {
    const float* gamma = as_float<Type>(a.gamma, scratch, channels);
    const float* weight_a = as_float<Type>(a.weight_a, scratch, channels);
    const float* bias_a = as_float<Type>(a.bias_a, scratch, channels);
    const float* weight_b = as_float<Type>(a.weight_b, scratch, channels);
    const float* bias_b = as_float<Type>(a.bias_b, scratch, channels);
    return {gamma, weight_a, bias_a, weight_b, bias_b};
}

// sum = shortcut + gamma * norm_a(values), then normed = norm_b(sum), on the rows from `first`; `values` lie
// padded(n) floats apart and are overwritten.
template <class Type, int kRows>
ALWAYS_INLINE void add_residual_group(const ResidualArgs& a, const Residual& residual, int64_t first, int64_t n,
                                      float* values) {
    using Store = typename Type::Store;
    constexpr int L = kLanes<float>;
    const int64_t pitch = padded(n);
    const float eps = float(a.eps);
    if (residual.weight_a)
        normalize<Float32, kRows, false>(values, pitch, values, pitch, residual.weight_a, residual.bias_a, n, eps);
    const Store* shortcut = a.shortcut ? static_cast<const Store*>(a.shortcut) + first * n : nullptr;
    Store* sum = static_cast<Store*>(a.sum) + first * n;
    for_runs<L>(n, [&](int64_t i, int64_t lanes) {
        const auto gamma = residual.gamma ? load_first<Float32, L>(residual.gamma + i, lanes) : splat<L>(1.0f);
        if (i * int64_t(sizeof(Store)) % 64 == 0 && shortcut)
            for (int r = 0; r < kRows; ++r) fetch<false>(shortcut + (r + kRows) * n + i, 1);
        for (int r = 0; r < kRows; ++r) {
            auto v = gamma * load<Float32, L>(values + r * pitch + i);
            if (shortcut) v = v + load_first<Type, L>(shortcut + r * n + i, lanes);
            store<Float32, L>(values + r * pitch + i, v);
            store_first<Type, L>(sum + r * n + i, v, lanes);
        }
    });
    if (residual.weight_b)
        normalize<Type, kRows, false>(values, pitch, static_cast<Store*>(a.normed) + first * n, n, residual.weight_b,
                                      residual.bias_b, n, eps);
}

template <class Type>
ALWAYS_INLINE void add_residual_rows(const ResidualArgs& a, const Residual& residual, int64_t first, int64_t rows,
                                     int64_t n, float* values) {
    for_row_groups(rows, [&](int64_t r, auto group) {
        add_residual_group<Type, group()>(a, residual, first + r, n, values + r * padded(n));
    });
}

}  // namespace
