// What stands between the matrix products of a block, on the channel rows of a channels-last map: GELU, residual sums
// with norms, and the depth-wise convolution with norm and GELU.  Forward only.
//
// A unit is a run of rows (pixels); a row stays in the first-level cache from the first step to the last.
#include "../native/abi.h"
#include "../native/simd.h"
#include "normal_tail.h"

#include <cmath>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

constexpr int64_t kUnitElements = 16384;

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

template <int L>
ALWAYS_INLINE Vec<float, L> splat(float value) {
    float lanes[L];
    for (int i = 0; i < L; ++i) lanes[i] = value;
    Vec<float, L> v;
    std::memcpy(&v, lanes, sizeof(v));
    return v;
}

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

// --- residual sums, norms and GELU on rows --------------------------------------------------------------------------

int64_t rows_per_unit(const RowArgs& a) { return max_of(1, kUnitElements / max_of(1, a.channels)); }
int64_t row_units(const RowArgs& a) { return divide_up(a.rows, rows_per_unit(a)); }
int64_t row_scratch(const RowArgs& a) { return int64_t(sizeof(float)) * 8 * padded(a.channels); }

template <class Type>
void gelu_unit(const RowArgs& a, int64_t unit, void*) {
    const int64_t first = unit * rows_per_unit(a), end = min_of(a.rows, first + rows_per_unit(a));
    gelu_run<Type>(static_cast<typename Type::Store*>(a.y) + first * a.channels, (end - first) * a.channels);
}

// sum = shortcut + gamma * norm_a(y), then normed = norm_b(sum); gamma and the norms are optional.
template <class Type>
void residual_unit(const RowArgs& a, int64_t unit, void* memory) {
    using Store = typename Type::Store;
    const int64_t n = a.channels, first = unit * rows_per_unit(a), end = min_of(a.rows, first + rows_per_unit(a));
    float* scratch = static_cast<float*>(memory);
    float *row = scratch, *beside = scratch + padded(n);
    scratch += 2 * padded(n);
    const float* gamma = as_float<Type>(a.gamma, scratch, n);
    const float* weight_a = as_float<Type>(a.weight_a, scratch, n);
    const float* bias_a = as_float<Type>(a.bias_a, scratch, n);
    const float* weight_b = as_float<Type>(a.weight_b, scratch, n);
    const float* bias_b = as_float<Type>(a.bias_b, scratch, n);
    const float eps = float(a.eps);
    for (int64_t r = first; r < end; ++r) {
        decode_run<Type>(static_cast<const Store*>(a.y) + r * n, row, n);
        if (weight_a) normalize(row, row, weight_a, bias_a, n, eps);
        const Store* shortcut = static_cast<const Store*>(a.shortcut) + r * n;
        if (gamma) {
            for (int64_t i = 0; i < n; ++i) row[i] = decode(shortcut[i], Type{}) + gamma[i] * row[i];
        } else {
            for (int64_t i = 0; i < n; ++i) row[i] = decode(shortcut[i], Type{}) + row[i];
        }
        encode_run<Type>(row, static_cast<Store*>(a.sum) + r * n, n);
        if (weight_b) {
            normalize(row, beside, weight_b, bias_b, n, eps);
            encode_run<Type>(beside, static_cast<Store*>(a.normed) + r * n, n);
        }
    }
}

template <class Type>
Kernel<RowArgs> row_kernel(int64_t operation) {
    return operation == kGelu ? Kernel<RowArgs>{row_units, row_scratch, gelu_unit<Type>}
                              : Kernel<RowArgs>{row_units, row_scratch, residual_unit<Type>};
}

// --- depth-wise convolution, norm, GELU -----------------------------------------------------------------------------

constexpr int64_t kStrip = 4;  // output pixels that share each loaded weight

int64_t strips_per_row(const DepthwiseArgs& a) { return divide_up(a.width, kStrip); }
int64_t strips_per_unit(const DepthwiseArgs& a) {
    return min_of(strips_per_row(a), max_of(1, kUnitElements / (kStrip * max_of(1, a.channels))));
}
int64_t runs_per_row(const DepthwiseArgs& a) { return divide_up(strips_per_row(a), strips_per_unit(a)); }
int64_t depthwise_units(const DepthwiseArgs& a) { return a.batch * a.height * runs_per_row(a); }
int64_t depthwise_scratch(const DepthwiseArgs& a) { return int64_t(sizeof(float)) * (kStrip + 2) * padded(a.channels); }

// Channels [c, c + L) of `kStrip` pixels from column `column`; pixels beyond the row are computed and not used.
template <class Type, int L, bool kInside, int kSize>
ALWAYS_INLINE void strip_channels(const DepthwiseArgs& a, const typename Type::Store* image, int64_t row,
                                  int64_t column, int64_t c, float* out) {
    using Store = typename Type::Store;
    using V = Vec<float, L>;
    const Store* weight = static_cast<const Store*>(a.weight);
    const int64_t size = kSize ? kSize : a.kernel, half = size / 2, pitch = padded(a.channels), step = a.channels;
    V sums[kStrip];
    for (auto& sum : sums) sum = load<Type, L>(static_cast<const Store*>(a.bias) + c);
    for (int64_t ky = 0; ky < size; ++ky) {
        const int64_t y = row + ky - half;
        if (y < 0 || y >= a.height) continue;
        const Store* line = image + (y * a.width + column - half) * step + c;
        const Store* taps = weight + ky * size * step + c;
        for (int64_t kx = 0; kx < size; ++kx, line += step, taps += step) {
            const V tap = load<Type, L>(taps);
            for (int64_t p = 0; p < kStrip; ++p) {
                const int64_t x = column + p + kx - half;
                if (!kInside && (x < 0 || x >= a.width)) continue;
                sums[p] += tap * load<Type, L>(line + p * step);
            }
        }
    }
    for (int64_t p = 0; p < kStrip; ++p) store<Float32, L>(out + p * pitch + c, sums[p]);
}

template <class Type>
ALWAYS_INLINE void strip_tail(const DepthwiseArgs& a, const typename Type::Store* image, int64_t row, int64_t column,
                              int64_t c, float* out) {
    using Store = typename Type::Store;
    const Store* weight = static_cast<const Store*>(a.weight);
    const int64_t half = a.kernel / 2;
    for (int64_t p = 0; p < kStrip; ++p) {
        float sum = decode(static_cast<const Store*>(a.bias)[c], Type{});
        for (int64_t ky = 0; ky < a.kernel; ++ky)
            for (int64_t kx = 0; kx < a.kernel; ++kx) {
                const int64_t y = row + ky - half, x = column + p + kx - half;
                if (y < 0 || y >= a.height || x < 0 || x >= a.width) continue;
                sum += decode(weight[(ky * a.kernel + kx) * a.channels + c], Type{}) *
                       decode(image[(y * a.width + x) * a.channels + c], Type{});
            }
        out[p * padded(a.channels) + c] = sum;
    }
}

template <class Type, bool kInside, int kSize>
ALWAYS_INLINE void strip(const DepthwiseArgs& a, const typename Type::Store* image, int64_t row, int64_t column,
                         float* out) {
    constexpr int L = kLanes<float>;
    int64_t c = 0;
    for (; c + L <= a.channels; c += L) strip_channels<Type, L, kInside, kSize>(a, image, row, column, c, out);
    for (; c + 4 <= a.channels; c += 4) strip_channels<Type, 4, kInside, kSize>(a, image, row, column, c, out);
    for (; c < a.channels; ++c) strip_tail<Type>(a, image, row, column, c, out);
}

template <class Type>
void depthwise_unit(const DepthwiseArgs& a, int64_t unit, void* memory) {
    using Store = typename Type::Store;
    const int64_t runs = runs_per_row(a), run = unit % runs, row = unit / runs % a.height, n = unit / runs / a.height;
    const int64_t first = run * strips_per_unit(a), end = min_of(strips_per_row(a), first + strips_per_unit(a));
    const Store* image = static_cast<const Store*>(a.x) + n * a.height * a.width * a.channels;
    Store* out = static_cast<Store*>(a.out) + (n * a.height + row) * a.width * a.channels;
    float* sums = static_cast<float*>(memory);
    float* scratch = sums + kStrip * padded(a.channels);
    const float* weight = as_float<Type>(a.norm_weight, scratch, a.channels);
    const float* bias = as_float<Type>(a.norm_bias, scratch, a.channels);
    const int64_t half = a.kernel / 2;
    for (int64_t s = first; s < end; ++s) {
        const int64_t column = s * kStrip;
        const bool inside = column >= half && column + kStrip + half <= a.width;
        if (!inside) strip<Type, false, 0>(a, image, row, column, sums);
        else if (a.kernel == 3) strip<Type, true, 3>(a, image, row, column, sums);
        else if (a.kernel == 5) strip<Type, true, 5>(a, image, row, column, sums);
        else strip<Type, true, 0>(a, image, row, column, sums);
        for (int64_t p = 0; p < min_of(kStrip, a.width - column); ++p) {
            float* pixel = sums + p * padded(a.channels);
            normalize(pixel, pixel, weight, bias, a.channels, float(a.eps));
            gelu_run<Float32>(pixel, a.channels);
            encode_run<Type>(pixel, out + (column + p) * a.channels, a.channels);
        }
    }
}

template <class Type>
Kernel<DepthwiseArgs> depthwise_kernel() {
    return {depthwise_units, depthwise_scratch, depthwise_unit<Type>};
}

}  // namespace

#define CONCATENATE(a, b) a##b
#define NAME_FOR(stem, isa) CONCATENATE(stem, isa)

Kernel<RowArgs> NAME_FOR(row_kernel_, INTERNIMAGE_ISA)(int64_t data_type, int64_t operation) {
    switch (data_type) {
        case kFloat16: return row_kernel<Float16>(operation);
        case kBFloat16: return row_kernel<BFloat16>(operation);
        default: return row_kernel<Float32>(operation);
    }
}

Kernel<DepthwiseArgs> NAME_FOR(depthwise_kernel_, INTERNIMAGE_ISA)(int64_t data_type) {
    switch (data_type) {
        case kFloat16: return depthwise_kernel<Float16>();
        case kBFloat16: return depthwise_kernel<BFloat16>();
        default: return depthwise_kernel<Float32>();
    }
}
