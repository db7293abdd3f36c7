// Softmax over runs of weights, in the type that is computed in.
#pragma once
#include <cmath>

#include "simd.h"

namespace {

// exp(x) for x <= kSafeExponent, good to 2 units in the last place; a polynomial so that loops vectorize.
ALWAYS_INLINE float exp_to(float x) {
    const float clamped = x < -87.0f ? -87.0f : x;
    const float shifted = clamped * 1.44269504f + 12582912.0f;  // adding 1.5 * 2^23 rounds to an integer
    const float n = shifted - 12582912.0f;
    const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const float scale = bits<float>((bits<int32_t>(shifted) + (127 - 0x4b400000)) << 23);
    const float value = p * scale;
    return x < -87.0f ? 0.0f : value;
}
ALWAYS_INLINE double exp_to(double x) { return std::exp(x); }

constexpr float kSafeExponent = 60.0f;  // exp of it, or the sum of some, is far from the largest float

// Whether no weight is so large that its exponential could overflow, or all of a run vanish; false where one is NaN.
ALWAYS_INLINE bool all_safe(const float* weight, int64_t count) {
    int32_t largest = 0;  // as integers, sizes are ordered alike, and the loop vectorizes
    for (int64_t p = 0; p < count; ++p) {
        const int32_t size = bits<int32_t>(weight[p]) & 0x7fffffff;
        largest = size > largest ? size : largest;
    }
    return largest <= bits<int32_t>(kSafeExponent);
}
ALWAYS_INLINE bool all_safe(const double*, int64_t) { return false; }

// Divide each run by its sum.
template <class Acc>
ALWAYS_INLINE void divide_runs(Acc* weight, int64_t runs, int64_t points) {
    int64_t run = 0;
#if defined(HAS_AVX512_VECTORS)
    constexpr int L = 16;
    if constexpr (std::is_same_v<Acc, float>) {
        if (points <= L) {
            for (; run + 4 <= runs; run += 4, weight += 4 * points) {
                Vec<float, L> v[4];
                for (int r = 0; r < 4; ++r) v[r] = load_first<Float32, L>(weight + r * points, points);
                const Vec<float, 4> inverse = 1.0f / sum_each<float, L>(v[0], v[1], v[2], v[3]);
                for (int r = 0; r < 4; ++r)
                    store_first<Float32, L>(weight + r * points, v[r] * splat<L>(inverse[r]), points);
            }
        }
    }
#endif
    for (; run < runs; ++run, weight += points) {
        Acc total = 0;
        for (int64_t k = 0; k < points; ++k) total += weight[k];
        const Acc inverse = Acc(1) / total;
        for (int64_t k = 0; k < points; ++k) weight[k] *= inverse;
    }
}

// Softmax over each run of `points` weights, in place, but for the division by the run's sum: `divide_runs` is called
// after other work, so that it need not wait for what is written here.
template <class Acc>
ALWAYS_INLINE void exp_runs(Acc* weight, int64_t runs, int64_t points) {
    if (!all_safe(weight, runs * points)) {
        Acc* at = weight;
        for (int64_t run = 0; run < runs; ++run, at += points) {
            Acc top = at[0];
            for (int64_t k = 1; k < points; ++k) top = at[k] > top ? at[k] : top;
            for (int64_t k = 0; k < points; ++k) at[k] -= top;
        }
    }
    for (int64_t p = 0; p < runs * points; ++p) weight[p] = exp_to(weight[p]);
}

// Gradient of the softmax over each run of `points` weights, in place on that of the weights.
template <class Acc>
ALWAYS_INLINE void softmax_gradients(const Acc* weight, Acc* grad, int64_t runs, int64_t points) {
    for (int64_t run = 0; run < runs; ++run, weight += points, grad += points) {
        Acc mean = 0;
        for (int64_t k = 0; k < points; ++k) mean += weight[k] * grad[k];
        for (int64_t k = 0; k < points; ++k) grad[k] = weight[k] * (grad[k] - mean);
    }
}

}  // namespace
