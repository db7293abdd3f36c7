// Steps on one row of channels in float32: GELU, layer norm, and a branch's way into the sum.
#pragma once
#include "../native/abi.h"
#include "../native/simd.h"
#include "normal_tail.h"

#include <cmath>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }
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

#if defined(__AVX512F__)
// With two-register permutes a table of cubics is cheaper than the polynomial: 4 look-ups and 3 multiply-adds.
ALWAYS_INLINE __m512 gelu_table(__m512 x) {
    const auto look_up = [](const float* table, __m512i cell) {
        return _mm512_permutex2var_ps(_mm512_load_ps(table), cell, _mm512_load_ps(table + 16));
    };
    const __m512 cells = _mm512_set1_ps(kTailCells / kTailEnd), last = _mm512_set1_ps(kTailCells - 0.001f);
    const __m512 at = _mm512_min_ps(_mm512_mul_ps(_mm512_abs_ps(x), cells), last);  // NaN gives `last`
    const __m512i cell = _mm512_cvttps_epi32(at);
    const __m512 r = _mm512_sub_ps(at, _mm512_add_ps(_mm512_cvtepi32_ps(cell), _mm512_set1_ps(0.5f)));
    __m512 tail = _mm512_fmadd_ps(look_up(kTail3, cell), r, look_up(kTail2, cell));
    tail = _mm512_fmadd_ps(tail, r, look_up(kTail1, cell));
    tail = _mm512_fmadd_ps(tail, r, look_up(kTail0, cell));
    const __m512 u = _mm512_mul_ps(at, _mm512_set1_ps(kTailEnd / kTailCells));
    return _mm512_fnmadd_ps(u, tail, _mm512_max_ps(_mm512_setzero_ps(), x));  // max keeps the second operand's NaN
}

template <class Type>
ALWAYS_INLINE void gelu_run(typename Type::Store* values, int64_t count) {
    using V = Vec<float, 16>;
    int64_t i = 0;
    for (; i + 16 <= count; i += 16)
        store<Type, 16>(values + i, (V)gelu_table((__m512)load<Type, 16>(values + i)));
    for (; i < count; ++i) values[i] = encode(gelu(decode(values[i], Type{})), Type{});
}
#else
template <class Type>
ALWAYS_INLINE void gelu_run(typename Type::Store* RESTRICT values, int64_t count) {
    constexpr int64_t kBlock = 64;
    float block[kBlock];
    for (int64_t i = 0; i < count; i += kBlock) {
        const int64_t n = count - i < kBlock ? count - i : kBlock;
        decode_run<Type>(values + i, block, n);
        for (int64_t j = 0; j < n; ++j) block[j] = gelu(block[j]);
        encode_run<Type>(block, values + i, n);
    }
}
#endif

// Sum of (row[i] + shift)^power over a row, power 1 or 2, in a fixed order.
template <bool kSquare>
ALWAYS_INLINE float row_sum(const float* row, int64_t count, float shift) {
    constexpr int L = kLanes<float>;
    using V = Vec<float, L>;
    const V shifts = splat<L>(shift);
    V a = splat<L>(0.0f), b = a, c = a, d = a;
    int64_t i = 0;
    auto term = [&](int64_t at) {
        V v = load<Float32, L>(row + at) + shifts;
        return kSquare ? v * v : v;
    };
    for (; i + 4 * L <= count; i += 4 * L) {
        a += term(i), b += term(i + L), c += term(i + 2 * L), d += term(i + 3 * L);
    }
    for (; i + L <= count; i += L) a += term(i);
    const Vec<float, 4> sums = sum_each<float, L>(a, b, c, d);
    float parts[4];
    std::memcpy(parts, &sums, sizeof(parts));
    float total = (parts[0] + parts[1]) + (parts[2] + parts[3]);
    for (; i < count; ++i) {
        const float v = row[i] + shift;
        total += kSquare ? v * v : v;
    }
    return total;
}

// Layer norm of a row: to[i] = (from[i] - mean) / std * weight[i] + bias[i]; `to` may be `from`.
ALWAYS_INLINE void normalize(const float* from, float* to, const float* RESTRICT weight, const float* RESTRICT bias,
                             int64_t count, float eps) {
    const float mean = row_sum<false>(from, count, 0.0f) / float(count);
    const float variance = row_sum<true>(from, count, -mean) / float(count);
    const float scale = 1.0f / std::sqrt(variance + eps);
    for (int64_t i = 0; i < count; ++i) to[i] = (from[i] - mean) * scale * weight[i] + bias[i];
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

// The parameters of a branch in float32; null where a part is left out.
struct Branch {
    const float *gamma, *weight_a, *bias_a, *weight_b, *bias_b;
};

constexpr int64_t kBranchVectors = 6;  // of padded(channels) floats: the parameters and a row

template <class Type>
ALWAYS_INLINE Branch decode_branch(const ResidualArgs& a, int64_t channels, float*& scratch) {
    const float* gamma = as_float<Type>(a.gamma, scratch, channels);
    const float* weight_a = as_float<Type>(a.weight_a, scratch, channels);
    const float* bias_a = as_float<Type>(a.bias_a, scratch, channels);
    const float* weight_b = as_float<Type>(a.weight_b, scratch, channels);
    const float* bias_b = as_float<Type>(a.bias_b, scratch, channels);
    return {gamma, weight_a, bias_a, weight_b, bias_b};
}

// sum = shortcut + gamma * norm_a(values), then normed = norm_b(sum), on row `r`; `values` and `beside` are overwritten.
template <class Type>
ALWAYS_INLINE void join_row(const ResidualArgs& a, const Branch& branch, int64_t r, int64_t n, float* values,
                            float* beside) {
    using Store = typename Type::Store;
    const float eps = float(a.eps);
    if (branch.weight_a) normalize(values, values, branch.weight_a, branch.bias_a, n, eps);
    const Store* shortcut = static_cast<const Store*>(a.shortcut) + r * n;
    if (!a.shortcut) {
        for (int64_t i = 0; branch.gamma && i < n; ++i) values[i] = branch.gamma[i] * values[i];
    } else if (branch.gamma) {
        for (int64_t i = 0; i < n; ++i) values[i] = decode(shortcut[i], Type{}) + branch.gamma[i] * values[i];
    } else {
        for (int64_t i = 0; i < n; ++i) values[i] = decode(shortcut[i], Type{}) + values[i];
    }
    encode_run<Type>(values, static_cast<Store*>(a.sum) + r * n, n);
    if (branch.weight_b) {
        normalize(values, beside, branch.weight_b, branch.bias_b, n, eps);
        encode_run<Type>(beside, static_cast<Store*>(a.normed) + r * n, n);
    }
}

}  // namespace
