// Forward of every operator: sums over points of the four weighted pixels around each.
#pragma once
#include "points.h"

namespace {

// Channels [0, L * NV) of one output: the sum over `count` points starting at `first`.
template <class Type, int L, int NV>
ALWAYS_INLINE void gather_chunk(const Points<typename Type::Acc>& points, int64_t first, int64_t count,
                                const typename Type::Store* x, int64_t stride, typename Type::Store* out) {
    using Acc = typename Type::Acc;
    using V = Vec<Acc, L>;
    V even[NV] = {}, odd[NV] = {};  // two chains per vector hide the latency of multiply-add
    V even_low[NV] = {}, odd_low[NV] = {};
    const auto* pixels = points.pixel + first;
    const auto* rights = points.right + first;
    const auto* downs = points.down + first;
    const Acc* corners = points.corner + 4 * first;
#if defined(__GNUC__)
#pragma GCC unroll 3
#endif
    for (int64_t p = 0; p < count; ++p) {
        if (pixels[p] < 0) continue;
        const auto *top = x + pixels[p] * stride, *bottom = top + downs[p];
        const int64_t right = rights[p];
        V c00, c01, c10, c11;
        spread4<Acc, L>(corners + 4 * p, c00, c01, c10, c11);
        for (int v = 0; v < NV; ++v) {
            even[v] += c00 * load<Type, L>(top + v * L);
            odd[v] += c01 * load<Type, L>(top + right + v * L);
            if constexpr (NV == 1) {
                even_low[v] += c10 * load<Type, L>(bottom + v * L);
                odd_low[v] += c11 * load<Type, L>(bottom + right + v * L);
            } else {
                even[v] += c10 * load<Type, L>(bottom + v * L);
                odd[v] += c11 * load<Type, L>(bottom + right + v * L);
            }
        }
    }
    for (int v = 0; v < NV; ++v) store<Type, L>(out + v * L, (even[v] + odd[v]) + (even_low[v] + odd_low[v]));
}

#if defined(__AVX512BF16__) && defined(HAS_VECTOR_BFLOAT16)
// Round the corner weights of `count` points to bfloat16.
ALWAYS_INLINE void pair_corners(const Points<float>& points, int64_t count) {
    for (int64_t p = 0; p < count; p += 8) {
        const __m512 first = _mm512_loadu_ps(points.corner + 4 * p), second = _mm512_loadu_ps(points.corner + 4 * p + 16);
        _mm512_storeu_si512(points.corner_pairs + 2 * p, (__m512i)_mm512_cvtne2ps_pbh(second, first));
    }
}

// `gather_chunk` for 16 channels of bfloat16, with corner weights in bfloat16: one instruction adds the products with
// two neighbors, whose channels stand side by side.
ALWAYS_INLINE void gather_bfloat16(const Points<float>& points, int64_t first, int64_t count, const uint16_t* x,
                                   int64_t stride, uint16_t* out) {
    struct Sums {
        __m256 low = _mm256_setzero_ps(), high = low, low_below = low, high_below = low;
    };
    const auto read = [](const uint16_t* p) { return _mm256_loadu_si256((const __m256i*)p); };
    const auto add = [&](Sums& sums, int64_t p) {
        if (points.pixel[p] < 0) return;
        const uint16_t *top = x + points.pixel[p] * stride, *bottom = top + points.down[p];
        const int64_t right = points.right[p];
        const auto above = (__m256bh)_mm256_set1_epi32(int(points.corner_pairs[2 * p]));
        const auto below = (__m256bh)_mm256_set1_epi32(int(points.corner_pairs[2 * p + 1]));
        const __m256i a = read(top), b = read(top + right), c = read(bottom), d = read(bottom + right);
        sums.low = _mm256_dpbf16_ps(sums.low, (__m256bh)_mm256_unpacklo_epi16(a, b), above);
        sums.high = _mm256_dpbf16_ps(sums.high, (__m256bh)_mm256_unpackhi_epi16(a, b), above);
        sums.low_below = _mm256_dpbf16_ps(sums.low_below, (__m256bh)_mm256_unpacklo_epi16(c, d), below);
        sums.high_below = _mm256_dpbf16_ps(sums.high_below, (__m256bh)_mm256_unpackhi_epi16(c, d), below);
    };
    Sums even, odd;  // of the points, so that fewer sums wait for each other
    int64_t p = first;
    for (; p + 2 <= first + count; p += 2) add(even, p), add(odd, p + 1);
    if (p < first + count) add(even, p);
    const __m256 low = _mm256_add_ps(even.low, odd.low) + _mm256_add_ps(even.low_below, odd.low_below);
    const __m256 high = _mm256_add_ps(even.high, odd.high) + _mm256_add_ps(even.high_below, odd.high_below);
    // Channels 0..3 and 8..11 are in one half, the others in the other.
    const __m128i lower = (__m128i)_mm256_cvtneps_pbh(low), upper = (__m128i)_mm256_cvtneps_pbh(high);
    _mm_storeu_si128((__m128i*)out, _mm_unpacklo_epi64(lower, upper));
    _mm_storeu_si128((__m128i*)(out + 8), _mm_unpackhi_epi64(lower, upper));
}
#define HAS_GATHER_BFLOAT16 1
#endif

// The last channels, fewer than four.
template <class Type>
ALWAYS_INLINE void gather_tail(const Points<typename Type::Acc>& points, int64_t first, int64_t count,
                               const typename Type::Store* x, int64_t stride, typename Type::Store* out,
                               int64_t channels) {
    using Acc = typename Type::Acc;
    for (int64_t c = 0; c < channels; ++c) {
        Acc sum = 0;
        for (int64_t p = first; p < first + count; ++p) {
            if (points.pixel[p] < 0) continue;
            const auto *top = x + points.pixel[p] * stride + c, *bottom = top + points.down[p];
            const int64_t right = points.right[p];
            const Acc* corner = points.corner + 4 * p;
            sum += corner[0] * decode(top[0], Type{}) + corner[1] * decode(top[right], Type{}) +
                   corner[2] * decode(bottom[0], Type{}) + corner[3] * decode(bottom[right], Type{});
        }
        out[c] = encode(sum, Type{});
    }
}

// What `gather` needs besides `locate`.
template <class Type>
ALWAYS_INLINE void prepare_gather(const Points<typename Type::Acc>& points, int64_t count) {
#if defined(HAS_GATHER_BFLOAT16)
    if constexpr (std::is_same_v<Type, BFloat16>) pair_corners(points, count);
#endif
    (void)points, (void)count;
}

// out[0..channels) = sum over points of their four weighted corners; `x` is the group's first channel of pixel 0.
template <class Type, int L>
ALWAYS_INLINE void gather(const Points<typename Type::Acc>& points, int64_t first, int64_t count,
                          const typename Type::Store* x, int64_t stride, typename Type::Store* out, int64_t channels) {
#if defined(HAS_GATHER_BFLOAT16)
    if constexpr (std::is_same_v<Type, BFloat16> && L == 16)
        for (; channels >= L; channels -= L, x += L, out += L) gather_bfloat16(points, first, count, x, stride, out);
#endif
    if constexpr (L == kLanes<typename Type::Acc>) {
        for (; channels >= 4 * L; channels -= 4 * L, x += 4 * L, out += 4 * L)
            gather_chunk<Type, L, 4>(points, first, count, x, stride, out);
        if (channels >= 2 * L) {
            gather_chunk<Type, L, 2>(points, first, count, x, stride, out);
            channels -= 2 * L, x += 2 * L, out += 2 * L;
        }
    }
    if (channels >= L) {
        if (count == 9) gather_chunk<Type, L, 1>(points, first, 9, x, stride, out);  // 3x3: unrolled evenly
        else gather_chunk<Type, L, 1>(points, first, count, x, stride, out);
        channels -= L, x += L, out += L;
    }
    if constexpr (L > 4) {
        if (channels > 0) gather<Type, L / 2>(points, first, count, x, stride, out, channels);
    } else if (channels > 0) {
        gather_tail<Type>(points, first, count, x, stride, out, channels);
    }
}

}  // namespace
