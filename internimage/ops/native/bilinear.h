// The core that every operator shares: where a point lies, and the weighted sum of the four pixels around it.
//
// A point (px, py) counts if -1 < px < W and -1 < py < H; a corner outside the map contributes nothing.  Per axis the
// cell is clamped into the map and `step` is 0 where the second corner falls outside, so that every address is valid
// and no pixel is read that the definition does not read.  A point that does not count (NaN included) has pixel -1.
#pragma once
#include <cmath>

#include "simd.h"

namespace {

template <class Acc>
using IndexOf = std::conditional_t<sizeof(Acc) == 4, int32_t, int64_t>;

// Cuts one block of memory into arrays; on a null block it only counts.
struct Arena {
    char* base;
    int64_t used = 0;
    template <class T>
    void take(T*& array, int64_t length) {
        array = base ? reinterpret_cast<T*>(base + used) : nullptr;
        used += (length * int64_t(sizeof(T)) + 63) / 64 * 64;
    }
};

template <class Acc>
constexpr int64_t padded(int64_t count) {
    return (count + kPointLanes<Acc> - 1) / kPointLanes<Acc> * kPointLanes<Acc>;
}

// Points of one tile, one array per quantity (structure of arrays, so that loops over points vectorize).
template <class Acc>
struct Points {
    using Index = IndexOf<Acc>;
    Acc *offset, *weight;           // raw input: (x, y) pairs, weights (softmaxed in place when asked)
    Acc* corner;                    // 4 a point: weight * bilinear factor of (y0,x0) (y0,x1) (y1,x0) (y1,x1)
    uint32_t* corner_pairs;         // the same in bfloat16, for `gather_bfloat16`
    Index* pixel;                   // of the first corner; -1: does not count
    Index *right, *down;            // elements of x from a corner to the one beside and below it, 0 where there is none
    // for the backward pass only
    Acc *low_x, *high_x, *low_y, *high_y;  // bilinear factors per axis
    Acc *slope_x, *slope_y;                // derivative of low_*: -1, or +1 when only that corner lies inside
    Acc* dots;                             // 4 a point: <grad_out, corner>
    Acc *grad_offset, *grad_weight;

    Points(Arena& arena, int64_t capacity, bool backward) {
        const int64_t count = padded<Acc>(capacity);
        arena.take(offset, 2 * count), arena.take(weight, count), arena.take(corner, 4 * count);
        arena.take(corner_pairs, sizeof(Acc) == 4 ? 2 * count : 0);
        arena.take(pixel, count), arena.take(right, count), arena.take(down, count);
        const int64_t more = backward ? count : 0;
        for (Acc** array : {&low_x, &high_x, &low_y, &high_y, &slope_x, &slope_y, &grad_weight})
            arena.take(*array, more);
        arena.take(dots, 4 * more), arena.take(grad_offset, 2 * more);
    }
};

// One coordinate of the points: a whole number and the rest, which may be of any size and sign.
template <class Lane>
struct Position {
    typename Lane::V whole, rest;
};

// Where the points of a window lie: base + grid + scale * offset in one map.
template <class Acc>
struct WindowPlace {
    using Lane = Lanes<Acc, kPointLanes<Acc>>;
    using V = typename Lane::V;
    using I = typename Lane::I;
    Acc *grid_x, *grid_y;  // position of each point relative to the tile, before its offset
    Acc base_x, base_y, scale, final_x, final_y;
    typename Lane::Index width;

    WindowPlace(Arena& arena, int64_t capacity) {
        arena.take(grid_x, padded<Acc>(capacity)), arena.take(grid_y, padded<Acc>(capacity));
    }
    Position<Lane> x(int64_t p, V offset) const { return {Lane::all(base_x), Lane::read(grid_x + p) + scale * offset}; }
    Position<Lane> y(int64_t p, V offset) const { return {Lane::all(base_y), Lane::read(grid_y + p) + scale * offset}; }
    V last_x(int64_t) const { return Lane::all(final_x); }
    V last_y(int64_t) const { return Lane::all(final_y); }
    V scale_x(int64_t) const { return Lane::all(scale); }
    V scale_y(int64_t) const { return Lane::all(scale); }
    I pitches(int64_t) const { return Lane::all_index(width); }
    int64_t pitch(int64_t) const { return width; }
    I start(int64_t) const { return Lane::all_index(0); }
};

// Where the points of several levels lie: location * size - 0.5 in the map of the point's level.
template <class Acc>
struct LevelPlace {
    using Lane = Lanes<Acc, kPointLanes<Acc>>;
    using V = typename Lane::V;
    using I = typename Lane::I;
    Acc *size_x, *size_y, *final_x, *final_y;
    IndexOf<Acc> *width, *first;

    LevelPlace(Arena& arena, int64_t capacity) {
        const int64_t count = padded<Acc>(capacity);
        arena.take(size_x, count), arena.take(size_y, count), arena.take(final_x, count), arena.take(final_y, count);
        arena.take(width, count), arena.take(first, count);
    }
    Position<Lane> x(int64_t p, V location) const {
        const V size = Lane::read(size_x + p), whole = Lane::nearest(size * location);
        return {whole, (size * location - whole) - Acc(0.5)};
    }
    Position<Lane> y(int64_t p, V location) const {
        const V size = Lane::read(size_y + p), whole = Lane::nearest(size * location);
        return {whole, (size * location - whole) - Acc(0.5)};
    }
    V last_x(int64_t p) const { return Lane::read(final_x + p); }
    V last_y(int64_t p) const { return Lane::read(final_y + p); }
    V scale_x(int64_t p) const { return Lane::read(size_x + p); }
    V scale_y(int64_t p) const { return Lane::read(size_y + p); }
    I pitches(int64_t p) const { return Lane::read(width + p); }
    int64_t pitch(int64_t p) const { return width[p]; }
    I start(int64_t p) const { return Lane::read(first + p); }
};

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
#if defined(HAS_MASKS)
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

// One axis: factors of the two corners, slope of the first, clamped cell; `step` where the second corner exists, else
// 0; all ones where the point counts.
template <class Lane>
struct AxisCell {
    typename Lane::V low, high, slope;
    typename Lane::I cell, step, counts;
};
template <class Lane>
ALWAYS_INLINE AxisCell<Lane> axis_cell(Position<Lane> at, typename Lane::V last, typename Lane::I step) {
    using V = typename Lane::V;
    const V zero = Lane::all(0), one = Lane::all(1);
    AxisCell<Lane> axis;
    const V floor = Lane::floor(at.rest), fraction = at.rest - floor, cell = at.whole + floor;
    const auto has_low = cell >= zero, has_high = (cell >= zero) & (cell < last);
    axis.low = has_low ? one - fraction : fraction;  // in the cell before the map, the second corner comes first
    axis.high = has_high ? fraction : zero;
    axis.slope = has_low ? -one : one;
    axis.step = has_high ? step : Lane::all_index(0);
    const V inside = Lane::at_least(cell, zero);
    axis.cell = Lane::truncate(inside < last ? inside : last);
    const V first = fraction > zero ? -one : zero;  // in the cell before the map only what lies past its first corner
    axis.counts = (cell >= first) & (cell <= last);
    return axis;
}

// Fill pixels, steps and corner weights of `count` points from their offsets and weights; pixels of x are `stride`
// elements apart.
template <class Acc, bool kBackward, class Place>
ALWAYS_INLINE void locate(const Points<Acc>& points, int64_t count, const Place& place, int64_t stride) {
    using Lane = typename Place::Lane;
    using V = typename Lane::V;
    const auto right = Lane::all_index(typename Lane::Index(stride));
    for (int64_t p = 0; p < count; p += kPointLanes<Acc>) {
        V dx, dy;
        Lane::read_pairs(points.offset + 2 * p, dx, dy);
        const auto pitches = place.pitches(p);
        const auto x = axis_cell<Lane>(place.x(p, dx), place.last_x(p), right);
        const auto y = axis_cell<Lane>(place.y(p, dy), place.last_y(p), pitches * right);
        const auto pixel = place.start(p) + y.cell * pitches + x.cell;
        Lane::write(points.pixel + p, (x.counts & y.counts) ? pixel : Lane::all_index(-1));
        Lane::write(points.right + p, x.step), Lane::write(points.down + p, y.step);
        const V weight = Lane::read(points.weight + p);
        const V low = weight * y.low, high = weight * y.high;
        Lane::write_fours(points.corner + 4 * p, low * x.low, low * x.high, high * x.low, high * x.high);
        if constexpr (kBackward) {
            Lane::write(points.low_x + p, x.low), Lane::write(points.high_x + p, x.high);
            Lane::write(points.low_y + p, y.low), Lane::write(points.high_y + p, y.high);
            Lane::write(points.slope_x + p, x.slope), Lane::write(points.slope_y + p, y.slope);
        }
    }
}

// Channels [0, L * NV) of one output: the sum over `count` points starting at `first`.
template <class Type, int L, int NV, class Place>
ALWAYS_INLINE void gather_chunk(const Points<typename Type::Acc>& points, const Place& place, int64_t first, int64_t count,
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
template <class Type, class Place>
ALWAYS_INLINE void gather_tail(const Points<typename Type::Acc>& points, const Place& place, int64_t first, int64_t count,
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
template <class Type, int L, class Place>
ALWAYS_INLINE void gather(const Points<typename Type::Acc>& points, const Place& place, int64_t first, int64_t count,
                          const typename Type::Store* x, int64_t stride, typename Type::Store* out, int64_t channels) {
#if defined(HAS_GATHER_BFLOAT16)
    if constexpr (std::is_same_v<Type, BFloat16> && L == 16)
        for (; channels >= L; channels -= L, x += L, out += L) gather_bfloat16(points, first, count, x, stride, out);
#endif
    if constexpr (L == kLanes<typename Type::Acc>) {
        for (; channels >= 4 * L; channels -= 4 * L, x += 4 * L, out += 4 * L)
            gather_chunk<Type, L, 4>(points, place, first, count, x, stride, out);
        if (channels >= 2 * L) {
            gather_chunk<Type, L, 2>(points, place, first, count, x, stride, out);
            channels -= 2 * L, x += 2 * L, out += 2 * L;
        }
    }
    if (channels >= L) {
        if (count == 9) gather_chunk<Type, L, 1>(points, place, first, 9, x, stride, out);  // 3x3: unrolled evenly
        else gather_chunk<Type, L, 1>(points, place, first, count, x, stride, out);
        channels -= L, x += L, out += L;
    }
    if constexpr (L > 4) {
        if (channels > 0) gather<Type, L / 2>(points, place, first, count, x, stride, out, channels);
    } else if (channels > 0) {
        gather_tail<Type>(points, place, first, count, x, stride, out, channels);
    }
}

// Where the gradient of a slice is accumulated: its pixels [first_pixel, end_pixel).
template <class Acc>
struct Target {
    Acc* base;  // of pixel 0, even if the band does not hold it
    int64_t first_pixel, end_pixel;
    bool whole;  // the band is the whole map

    bool owns(int64_t pixel) const { return pixel >= first_pixel && pixel < end_pixel; }
};

// The channels of one group or head, pixels side by side and in the type that is computed in: where they come from they
// lie apart by powers of two, which share a few sets of the first cache, and each is read and added to some 36 times.
template <class Acc>
struct Slice {
    static constexpr int64_t kAhead = 16;  // pixels that are asked for before they are copied
    Acc *x, *grad_x;                       // of all pixels; of the band that the unit owns
    Acc* grad_out;                         // of the pixels of a tile
    int64_t channels;

    Slice(Arena& arena, int64_t pixels, int64_t band_pixels, int64_t tile_pixels, int64_t channels) : channels(channels) {
        arena.take(x, pixels * channels), arena.take(grad_x, band_pixels * channels);
        arena.take(grad_out, pixels ? tile_pixels * channels : 0);
    }
    template <class Type>
    void read(const typename Type::Store* from, int64_t stride, int64_t pixels) {
        for (int64_t p = 0; p < pixels; ++p) {
            if (p + kAhead < pixels) fetch<false>(from + (p + kAhead) * stride, channels);
            decode_run<Type>(from + p * stride, x + p * channels, channels);
        }
    }
    template <class Type>
    void read_grad(const typename Type::Store* from, int64_t stride, int64_t pixels) {
        for (int64_t p = 0; p < pixels; ++p) decode_run<Type>(from + p * stride, grad_out + p * channels, channels);
    }
    Target<Acc> target(int64_t first_pixel, int64_t end_pixel, bool whole) {
        std::memset(grad_x, 0, size_t((end_pixel - first_pixel) * channels) * sizeof(Acc));
        return {grad_x - first_pixel * channels, first_pixel, end_pixel, whole};
    }
    template <class Type>
    void write(typename Type::Store* to, int64_t stride, const Target<Acc>& target) {
        for (int64_t p = target.first_pixel; p < target.end_pixel; ++p) {
            if (p + kAhead < target.end_pixel) fetch<true>(to + (p + kAhead) * stride, channels);
            encode_run<Type>(target.base + p * channels, to + p * stride, channels);
        }
    }
};

template <class V, class Acc>
ALWAYS_INLINE void add_to(Acc* at, V factor, V value) {
    V sum;
    std::memcpy(&sum, at, sizeof(sum));
    sum += factor * value;
    std::memcpy(at, &sum, sizeof(sum));
}

// Channels [channel, channel + L * NV) of one output: the corners' share of grad_x where the unit owns them, and when
// kDots the products <grad_out, corner>, which the first channels write and later ones add to.
template <bool kDots, bool kWhole, int L, int NV, class Acc, class Place>
ALWAYS_INLINE void scatter_chunk(const Points<Acc>& points, const Place& place, int64_t first, int64_t count,
                                 const Slice<Acc>& slice, const Acc* grad_out, const Target<Acc>& target, int64_t channel) {
    using Type = AccType<Acc>;
    using V = Vec<Acc, L>;
    V grad[NV];
    for (int v = 0; v < NV; ++v) grad[v] = load<Type, L>(grad_out + channel + v * L);
    for (int64_t p = first; p < first + count; ++p) {
        const int64_t pixel = points.pixel[p];
        if (pixel < 0) continue;
        const int64_t at = pixel * slice.channels + channel, right = points.right[p], down = points.down[p];
        if constexpr (kDots) {
            const Acc *top = slice.x + at, *bottom = top + down;
            V d00 = {}, d01 = {}, d10 = {}, d11 = {};
            for (int v = 0; v < NV; ++v) {
                d00 += grad[v] * load<Type, L>(top + v * L);
                d01 += grad[v] * load<Type, L>(top + right + v * L);
                d10 += grad[v] * load<Type, L>(bottom + v * L);
                d11 += grad[v] * load<Type, L>(bottom + right + v * L);
            }
            Vec<Acc, 4> sums = sum_each<Acc, L>(d00, d01, d10, d11);
            if (channel > 0) {
                Vec<Acc, 4> before;
                std::memcpy(&before, points.dots + 4 * p, sizeof(before));
                sums += before;
            }
            std::memcpy(points.dots + 4 * p, &sums, sizeof(sums));
        }
        V c00, c01, c10, c11;
        spread4<Acc, L>(points.corner + 4 * p, c00, c01, c10, c11);
        Acc *top = target.base + at, *bottom = top + down;
        const int64_t beside = pixel + (right != 0), below = down != 0 ? place.pitch(p) : 0;
        if (kWhole || target.owns(pixel))
            for (int v = 0; v < NV; ++v) add_to<V, Acc>(top + v * L, c00, grad[v]);
        if (kWhole || target.owns(beside))
            for (int v = 0; v < NV; ++v) add_to<V, Acc>(top + right + v * L, c01, grad[v]);
        if (kWhole || target.owns(pixel + below))
            for (int v = 0; v < NV; ++v) add_to<V, Acc>(bottom + v * L, c10, grad[v]);
        if (kWhole || target.owns(beside + below))
            for (int v = 0; v < NV; ++v) add_to<V, Acc>(bottom + right + v * L, c11, grad[v]);
    }
}

// The last channels, fewer than four.
template <bool kDots, bool kWhole, class Acc, class Place>
ALWAYS_INLINE void scatter_tail(const Points<Acc>& points, const Place& place, int64_t first, int64_t count,
                                const Slice<Acc>& slice, const Acc* grad_out, const Target<Acc>& target, int64_t channel) {
    for (int64_t p = first; p < first + count; ++p) {
        const int64_t pixel = points.pixel[p];
        if (pixel < 0) continue;
        const int64_t right = points.right[p] != 0, down = points.down[p] != 0 ? place.pitch(p) : 0;
        const int64_t corners[4] = {pixel, pixel + right, pixel + down, pixel + down + right};
        for (int corner = 0; corner < 4; ++corner) {
            const bool owned = kWhole || target.owns(corners[corner]);
            Acc dot = 0;
            for (int64_t c = channel; c < slice.channels; ++c) {
                const int64_t at = corners[corner] * slice.channels + c;
                if (kDots) dot += grad_out[c] * slice.x[at];
                if (owned) target.base[at] += points.corner[4 * p + corner] * grad_out[c];
            }
            if (kDots) points.dots[4 * p + corner] = channel > 0 ? points.dots[4 * p + corner] + dot : dot;
        }
    }
}

template <bool kDots, bool kWhole, int L, class Acc, class Place>
ALWAYS_INLINE void scatter(const Points<Acc>& points, const Place& place, int64_t first, int64_t count,
                           const Slice<Acc>& slice, const Acc* grad_out, const Target<Acc>& target, int64_t channel) {
    const int64_t channels = slice.channels;
    if constexpr (L == kLanes<Acc>) {
        for (; channels - channel >= 2 * L; channel += 2 * L)
            scatter_chunk<kDots, kWhole, L, 2>(points, place, first, count, slice, grad_out, target, channel);
    }
    if (channels - channel >= L) {
        scatter_chunk<kDots, kWhole, L, 1>(points, place, first, count, slice, grad_out, target, channel);
        channel += L;
    }
    if constexpr (L > 4) {
        if (channels > channel)
            scatter<kDots, kWhole, L / 2>(points, place, first, count, slice, grad_out, target, channel);
    } else if (channels > channel) {
        scatter_tail<kDots, kWhole>(points, place, first, count, slice, grad_out, target, channel);
    }
}

// Backward of `gather` for the `pixels` outputs of a tile with `count` points each: adds to the target and, when
// asked, fills dots of the points that count; `next(i)` fetches what the next tile needs for its pixel i.
template <class Acc, class Place, class Next>
ALWAYS_INLINE void scatter_tile(const Points<Acc>& points, const Place& place, const Slice<Acc>& slice,
                                const Target<Acc>& target, int64_t pixels, int64_t count, bool wants_dots,
                                const Next& next) {
    constexpr int L = kLanes<Acc>;
    for (int64_t i = 0; i < pixels; ++i) {
        next(i);
        const Acc* grad_out = slice.grad_out + i * slice.channels;
        if (wants_dots && target.whole)
            scatter<true, true, L>(points, place, i * count, count, slice, grad_out, target, 0);
        else if (wants_dots)
            scatter<true, false, L>(points, place, i * count, count, slice, grad_out, target, 0);
        else if (target.whole)
            scatter<false, true, L>(points, place, i * count, count, slice, grad_out, target, 0);
        else
            scatter<false, false, L>(points, place, i * count, count, slice, grad_out, target, 0);
    }
}

// From the dots of `count` points: grad_offset, as (x, y) pairs, and grad_weight.
template <class Acc, class Place>
ALWAYS_INLINE void point_gradients(const Points<Acc>& points, int64_t count, const Place& place) {
    using Lane = typename Place::Lane;
    using V = typename Lane::V;
    constexpr int L = kPointLanes<Acc>;
    const V zero = Lane::all(0), one = Lane::all(1);
    for (int64_t p = 0; p < count; p += L) {
        V a, b, c, d, dot00, dot01, dot10, dot11;
        Lane::read_pairs(points.dots + 4 * p, a, b);
        Lane::read_pairs(points.dots + 4 * p + 2 * L, c, d);
        Lane::split(a, c, dot00, dot10);
        Lane::split(b, d, dot01, dot11);
        const V low_x = Lane::read(points.low_x + p), high_x = Lane::read(points.high_x + p);
        const V low_y = Lane::read(points.low_y + p), high_y = Lane::read(points.high_y + p);
        const V slope_x = Lane::read(points.slope_x + p), slope_y = Lane::read(points.slope_y + p);
        const V next_x = Lane::read(points.right + p) != 0 ? one : zero;
        const V next_y = Lane::read(points.down + p) != 0 ? one : zero;
        const V weight = Lane::read(points.weight + p);
        const V top = low_x * dot00 + high_x * dot01, bottom = low_x * dot10 + high_x * dot11;
        const V slant_top = slope_x * dot00 + next_x * dot01, slant_bottom = slope_x * dot10 + next_x * dot11;
        const auto counts = Lane::read(points.pixel + p) >= 0;
        const V along_x = weight * place.scale_x(p) * (low_y * slant_top + high_y * slant_bottom);
        const V along_y = weight * place.scale_y(p) * (slope_y * top + next_y * bottom);
        Lane::write(points.grad_weight + p, counts ? low_y * top + high_y * bottom : zero);
        Lane::write_pairs(points.grad_offset + 2 * p, counts ? along_x : zero, counts ? along_y : zero);
    }
}

// Gradient of the softmax, in place on grad_weight.
template <class Acc>
ALWAYS_INLINE void softmax_gradients(const Points<Acc>& points, int64_t runs, int64_t length) {
    for (int64_t first = 0; first < runs * length; first += length) {
        const Acc* weight = points.weight + first;
        Acc* grad = points.grad_weight + first;
        Acc mean = 0;
        for (int64_t k = 0; k < length; ++k) mean += weight[k] * grad[k];
        for (int64_t k = 0; k < length; ++k) grad[k] = weight[k] * (grad[k] - mean);
    }
}

}  // namespace
