// The core that every operator shares: where a point lies, and the weighted sum of the four pixels around it.
//
// A point (px, py) counts if -1 < px < W and -1 < py < H; a corner outside the map contributes nothing.  Per axis the
// cell is clamped into the map and `step` is 0 where the second corner falls outside, so that every address is valid
// and no pixel is read that the definition does not read.  A point that does not count (NaN included) has index -1.
#pragma once
#include <cmath>

#include "simd.h"

namespace {

template <class Acc>
using IndexOf = std::conditional_t<sizeof(Acc) == 4, int32_t, int64_t>;

// Points of one tile, one array per quantity (structure of arrays, so that loops over points vectorize).
template <class Acc>
struct Points {
    using Index = IndexOf<Acc>;
    int64_t capacity;
    Acc *offset, *weight;           // raw input: (x, y) pairs, weights (softmaxed in place when asked)
    Acc *grid_x, *grid_y;           // position of each point relative to the tile, before its offset
    Acc* corner[4];                 // weight * bilinear factor of (y0,x0) (y0,x1) (y1,x0) (y1,x1)
    Acc *low_x, *high_x, *low_y, *high_y;  // bilinear factors per axis
    Acc *slope_x, *slope_y;         // derivative of low_*: -1, or +1 when only that corner lies inside
    Acc *dots;                      // capacity * 4: <grad_out, corner>
    Index *index, *step_x, *step_y; // in pixels

    static constexpr int64_t kBytesPerPoint = 20 * sizeof(Acc) + 3 * sizeof(Index);
    static int64_t bytes(int64_t capacity) { return (capacity * kBytesPerPoint + 23 * 64 + 63) / 64 * 64; }

    Points(void* memory, int64_t count) : capacity(count) {
        char* at = static_cast<char*>(memory);
        auto take = [&](auto*& array, int64_t length) {
            array = reinterpret_cast<std::remove_reference_t<decltype(array)>>(at);
            at += (length * int64_t(sizeof(*array)) + 63) / 64 * 64;
        };
        take(offset, 2 * count), take(weight, count), take(grid_x, count), take(grid_y, count);
        for (auto& array : corner) take(array, count);
        take(low_x, count), take(high_x, count), take(low_y, count), take(high_y, count);
        take(slope_x, count), take(slope_y, count), take(dots, 4 * count);
        take(index, count), take(step_x, count), take(step_y, count);
    }
};

// exp(x) for x <= 0, good to 2 units in the last place; a polynomial so that loops vectorize.
ALWAYS_INLINE float exp_of_negative(float x) {
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
ALWAYS_INLINE double exp_of_negative(double x) { return std::exp(x); }

// Softmax over each run of `points` weights, in place.
template <class Acc>
ALWAYS_INLINE void softmax_runs(Acc* weight, int64_t runs, int64_t points) {
    for (int64_t run = 0; run < runs; ++run, weight += points) {
        Acc top = weight[0];
        for (int64_t k = 1; k < points; ++k) top = weight[k] > top ? weight[k] : top;
        for (int64_t k = 0; k < points; ++k) weight[k] -= top;
    }
    weight -= runs * points;
    for (int64_t p = 0; p < runs * points; ++p) weight[p] = exp_of_negative(weight[p]);
    for (int64_t run = 0; run < runs; ++run, weight += points) {
        Acc total = 0;
        for (int64_t k = 0; k < points; ++k) total += weight[k];
        const Acc inverse = Acc(1) / total;
        for (int64_t k = 0; k < points; ++k) weight[k] *= inverse;
    }
}

// One axis: clamped cell, factors of the two corners, and whether the second corner exists.
template <class Acc>
struct AxisCell {
    IndexOf<Acc> cell;
    Acc low, high, slope;
    bool has_high;
};
template <class Acc>
ALWAYS_INLINE AxisCell<Acc> axis_cell(Acc position, Acc last) {
    AxisCell<Acc> axis;
    Acc inside = position > Acc(0) ? position : Acc(0);  // also turns NaN into 0
    inside = inside < last ? inside : last;
    axis.cell = IndexOf<Acc>(inside);
    const Acc distance = position - Acc(axis.cell);
    axis.has_high = (position >= Acc(0)) & (position < last);
    axis.low = Acc(1) - (distance < Acc(0) ? -distance : distance);
    axis.high = axis.has_high ? distance : Acc(0);
    axis.slope = position < Acc(0) ? Acc(1) : Acc(-1);
    return axis;
}

// Fill index, steps and corner weights of `count` points whose absolute positions are base + grid + scale * offset.
template <class Acc, bool kBackward>
ALWAYS_INLINE void locate(const Points<Acc>& points, int64_t count, Acc base_x, Acc base_y, Acc scale,
                          int64_t height, int64_t width) {
    using Index = IndexOf<Acc>;
    const Acc last_x = Acc(width - 1), last_y = Acc(height - 1);
    const Acc *RESTRICT offset = points.offset, *RESTRICT weight = points.weight;
    const Acc *RESTRICT grid_x = points.grid_x, *RESTRICT grid_y = points.grid_y;
    Acc *RESTRICT c00 = points.corner[0], *RESTRICT c01 = points.corner[1];
    Acc *RESTRICT c10 = points.corner[2], *RESTRICT c11 = points.corner[3];
    Acc *RESTRICT low_x = points.low_x, *RESTRICT high_x = points.high_x;
    Acc *RESTRICT low_y = points.low_y, *RESTRICT high_y = points.high_y;
    Acc *RESTRICT slope_x = points.slope_x, *RESTRICT slope_y = points.slope_y;
    Index *RESTRICT index = points.index, *RESTRICT step_x = points.step_x, *RESTRICT step_y = points.step_y;
    const Index pitch = Index(width);
    for (int64_t p = 0; p < count; ++p) {
        const Acc px = base_x + grid_x[p] + scale * offset[2 * p];
        const Acc py = base_y + grid_y[p] + scale * offset[2 * p + 1];
        const AxisCell<Acc> x = axis_cell(px, last_x), y = axis_cell(py, last_y);
        const bool counts = (px > Acc(-1)) & (px < last_x + Acc(1)) & (py > Acc(-1)) & (py < last_y + Acc(1));
        index[p] = counts ? y.cell * pitch + x.cell : Index(-1);
        step_x[p] = x.has_high ? Index(1) : Index(0);
        step_y[p] = y.has_high ? pitch : Index(0);
        const Acc low = weight[p] * y.low, high = weight[p] * y.high;
        c00[p] = low * x.low, c01[p] = low * x.high;
        c10[p] = high * x.low, c11[p] = high * x.high;
        if constexpr (kBackward) {
            low_x[p] = x.low, high_x[p] = x.high, slope_x[p] = x.slope;
            low_y[p] = y.low, high_y[p] = y.high, slope_y[p] = y.slope;
        }
    }
}

// Channels [0, L * NV) of one output: the sum over `count` points starting at `first`.
template <class Type, int L, int NV>
ALWAYS_INLINE void gather_chunk(const Points<typename Type::Acc>& points, int64_t first, int64_t count,
                                const typename Type::Store* x, int64_t stride, typename Type::Store* out) {
    using Acc = typename Type::Acc;
    using V = Vec<Acc, L>;
    V even[NV] = {}, odd[NV] = {};  // two chains per vector hide the latency of multiply-add
    V even_low[NV] = {}, odd_low[NV] = {};
    const auto* index = points.index + first;
    const auto *step_x = points.step_x + first, *step_y = points.step_y + first;
    const Acc *c00 = points.corner[0] + first, *c01 = points.corner[1] + first;
    const Acc *c10 = points.corner[2] + first, *c11 = points.corner[3] + first;
    for (int64_t p = 0; p < count; ++p) {
        if (index[p] < 0) continue;
        const auto* top = x + int64_t(index[p]) * stride;
        const auto* bottom = top + int64_t(step_y[p]) * stride;
        const int64_t right = int64_t(step_x[p]) * stride;
        for (int v = 0; v < NV; ++v) {
            even[v] += c00[p] * load<Type, L>(top + v * L);
            odd[v] += c01[p] * load<Type, L>(top + right + v * L);
            if constexpr (NV == 1) {
                even_low[v] += c10[p] * load<Type, L>(bottom + v * L);
                odd_low[v] += c11[p] * load<Type, L>(bottom + right + v * L);
            } else {
                even[v] += c10[p] * load<Type, L>(bottom + v * L);
                odd[v] += c11[p] * load<Type, L>(bottom + right + v * L);
            }
        }
    }
    for (int v = 0; v < NV; ++v) store<Type, L>(out + v * L, (even[v] + odd[v]) + (even_low[v] + odd_low[v]));
}

// The last channels, fewer than four.
template <class Type>
ALWAYS_INLINE void gather_tail(const Points<typename Type::Acc>& points, int64_t first, int64_t count,
                               const typename Type::Store* x, int64_t stride, typename Type::Store* out,
                               int64_t channels) {
    using Acc = typename Type::Acc;
    for (int64_t c = 0; c < channels; ++c) {
        Acc sum = 0;
        for (int64_t p = first; p < first + count; ++p) {
            if (points.index[p] < 0) continue;
            const auto* top = x + int64_t(points.index[p]) * stride + c;
            const auto* bottom = top + int64_t(points.step_y[p]) * stride;
            const int64_t right = int64_t(points.step_x[p]) * stride;
            sum += points.corner[0][p] * decode(top[0], Type{}) + points.corner[1][p] * decode(top[right], Type{}) +
                   points.corner[2][p] * decode(bottom[0], Type{}) + points.corner[3][p] * decode(bottom[right], Type{});
        }
        out[c] = encode(sum, Type{});
    }
}

// out[0..channels) = sum over points of their four weighted corners; `x` is the group's first channel of pixel 0.
template <class Type, int L = kLanes<typename Type::Acc>>
ALWAYS_INLINE void gather(const Points<typename Type::Acc>& points, int64_t first, int64_t count,
                          const typename Type::Store* x, int64_t stride, typename Type::Store* out, int64_t channels) {
    if constexpr (L == kLanes<typename Type::Acc>) {
        for (; channels >= 4 * L; channels -= 4 * L, x += 4 * L, out += 4 * L)
            gather_chunk<Type, L, 4>(points, first, count, x, stride, out);
        if (channels >= 2 * L) {
            gather_chunk<Type, L, 2>(points, first, count, x, stride, out);
            channels -= 2 * L, x += 2 * L, out += 2 * L;
        }
    }
    if (channels >= L) {
        gather_chunk<Type, L, 1>(points, first, count, x, stride, out);
        channels -= L, x += L, out += L;
    }
    if constexpr (L > 4) {
        if (channels > 0) gather<Type, L / 2>(points, first, count, x, stride, out, channels);
    } else if (channels > 0) {
        gather_tail<Type>(points, first, count, x, stride, out, channels);
    }
}

// Where grad_x is accumulated: pixels [first_pixel, end_pixel) of one group, `stride` accumulators apart.
template <class Acc>
struct Target {
    Acc* base;  // of pixel 0, even if the band does not hold it
    int64_t stride, first_pixel, end_pixel;
    bool whole;  // the band is the whole map: no row test
};

template <class V, class Acc, int L>
ALWAYS_INLINE void add_to(Acc* at, Acc factor, V value) {
    V sum;
    std::memcpy(&sum, at, sizeof(sum));
    sum += factor * value;
    std::memcpy(at, &sum, sizeof(sum));
}

// Channels [0, L * NV): dots[p] += <grad, corner> when kDots, and the corners' share of grad_x.
template <class Type, int L, int NV>
ALWAYS_INLINE void scatter_chunk(const Points<typename Type::Acc>& points, int64_t first, int64_t count,
                                 const typename Type::Store* x, int64_t stride,
                                 const typename Type::Store* grad_out, const Target<typename Type::Acc>& target,
                                 int64_t channel, bool wants_dots) {
    using Acc = typename Type::Acc;
    using V = Vec<Acc, L>;
    V grad[NV];
    for (int v = 0; v < NV; ++v) grad[v] = load<Type, L>(grad_out + v * L);
    for (int64_t p = first; p < first + count; ++p) {
        const int64_t pixel = points.index[p];
        if (pixel < 0) continue;
        const int64_t down = points.step_y[p], right = points.step_x[p];
        if (wants_dots) {
            const auto* top = x + pixel * stride;
            const auto* bottom = top + down * stride;
            V d00 = {}, d01 = {}, d10 = {}, d11 = {};
            for (int v = 0; v < NV; ++v) {
                d00 += grad[v] * load<Type, L>(top + v * L);
                d01 += grad[v] * load<Type, L>(top + right * stride + v * L);
                d10 += grad[v] * load<Type, L>(bottom + v * L);
                d11 += grad[v] * load<Type, L>(bottom + right * stride + v * L);
            }
            add_to<Vec<Acc, 4>, Acc, 4>(points.dots + 4 * p, Acc(1), sum_each<Acc, L>(d00, d01, d10, d11));
        }
        Acc* top = target.base + pixel * target.stride + channel;
        Acc* bottom = top + down * target.stride;
        const int64_t beside = right * target.stride;
        if (target.whole || (pixel >= target.first_pixel && pixel < target.end_pixel)) {
            for (int v = 0; v < NV; ++v) {
                add_to<V, Acc, L>(top + v * L, points.corner[0][p], grad[v]);
                add_to<V, Acc, L>(top + beside + v * L, points.corner[1][p], grad[v]);
            }
        }
        if (target.whole || (pixel + down >= target.first_pixel && pixel + down < target.end_pixel)) {
            for (int v = 0; v < NV; ++v) {
                add_to<V, Acc, L>(bottom + v * L, points.corner[2][p], grad[v]);
                add_to<V, Acc, L>(bottom + beside + v * L, points.corner[3][p], grad[v]);
            }
        }
    }
}

template <class Type>
ALWAYS_INLINE void scatter_tail(const Points<typename Type::Acc>& points, int64_t first, int64_t count,
                                const typename Type::Store* x, int64_t stride,
                                const typename Type::Store* grad_out, const Target<typename Type::Acc>& target,
                                int64_t channel, int64_t channels, bool wants_dots) {
    using Acc = typename Type::Acc;
    for (int64_t p = first; p < first + count; ++p) {
        const int64_t pixel = points.index[p];
        if (pixel < 0) continue;
        const int64_t corners[4] = {pixel, pixel + points.step_x[p], pixel + points.step_y[p],
                                    pixel + points.step_y[p] + points.step_x[p]};
        for (int corner = 0; corner < 4; ++corner) {
            const int64_t at = corners[corner];
            const bool owned = target.whole || (at >= target.first_pixel && at < target.end_pixel);
            for (int64_t c = 0; c < channels; ++c) {
                const Acc grad = decode(grad_out[c], Type{});
                if (wants_dots) points.dots[4 * p + corner] += grad * decode(x[at * stride + c], Type{});
                if (owned) target.base[at * target.stride + channel + c] += points.corner[corner][p] * grad;
            }
        }
    }
}

// Backward of `gather`: fills dots (set to zero by the caller) and adds to the target.
template <class Type, int L = kLanes<typename Type::Acc>>
ALWAYS_INLINE void scatter(const Points<typename Type::Acc>& points, int64_t first, int64_t count,
                           const typename Type::Store* x, int64_t stride, const typename Type::Store* grad_out,
                           const Target<typename Type::Acc>& target, int64_t channel, int64_t channels,
                           bool wants_dots) {
    if constexpr (L == kLanes<typename Type::Acc>) {
        for (; channels >= 2 * L; channels -= 2 * L, x += 2 * L, grad_out += 2 * L, channel += 2 * L)
            scatter_chunk<Type, L, 2>(points, first, count, x, stride, grad_out, target, channel, wants_dots);
    }
    if (channels >= L) {
        scatter_chunk<Type, L, 1>(points, first, count, x, stride, grad_out, target, channel, wants_dots);
        channels -= L, x += L, grad_out += L, channel += L;
    }
    if constexpr (L > 4) {
        if (channels > 0)
            scatter<Type, L / 2>(points, first, count, x, stride, grad_out, target, channel, channels, wants_dots);
    } else if (channels > 0) {
        scatter_tail<Type>(points, first, count, x, stride, grad_out, target, channel, channels, wants_dots);
    }
}

// From the dots of `count` points: gradients of weight and position.  `grad_offset` holds (x, y) pairs.
template <class Acc>
ALWAYS_INLINE void point_gradients(const Points<Acc>& points, int64_t first, int64_t count, Acc scale,
                                   Acc* RESTRICT grad_offset, Acc* RESTRICT grad_weight) {
    for (int64_t k = 0; k < count; ++k) {
        const int64_t p = first + k;
        const Acc* dot = points.dots + 4 * p;
        const Acc slope_high_x = points.step_x[p] > 0 ? Acc(1) : Acc(0);
        const Acc slope_high_y = points.step_y[p] > 0 ? Acc(1) : Acc(0);
        const Acc top = points.low_x[p] * dot[0] + points.high_x[p] * dot[1];
        const Acc bottom = points.low_x[p] * dot[2] + points.high_x[p] * dot[3];
        const Acc top_slope = points.slope_x[p] * dot[0] + slope_high_x * dot[1];
        const Acc bottom_slope = points.slope_x[p] * dot[2] + slope_high_x * dot[3];
        const Acc factor = points.index[p] < 0 ? Acc(0) : scale * points.weight[p];
        const bool counts = points.index[p] >= 0;
        grad_weight[k] = counts ? points.low_y[p] * top + points.high_y[p] * bottom : Acc(0);
        grad_offset[2 * k] = counts ? factor * (points.low_y[p] * top_slope + points.high_y[p] * bottom_slope) : Acc(0);
        grad_offset[2 * k + 1] = counts ? factor * (points.slope_y[p] * top + slope_high_y * bottom) : Acc(0);
    }
}

}  // namespace
