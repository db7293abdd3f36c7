// Backward of every operator: what each point adds to the gradient of x, and the products for its own gradients.
#pragma once
#include "abi.h"
#include "points.h"

namespace {

// Bands into which each of `slices` slices of `rows` rows is cut, so that all threads have work.
int64_t bands_of(int64_t slices, int64_t rows, int64_t threads) {
    slices = max_of(1, slices);
    const bool balanced = slices % threads == 0 || slices >= 4 * threads;
    return balanced ? 1 : max_of(1, min_of(rows, divide_up(4 * threads, slices)));
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

}  // namespace

// What the file of an operator ends with: the kernels of both directions, made of its Workspace, `*_plan`, `*_units` and
// `*_unit`, for the type of a call.
#define DEFINE_KERNELS(Args, stem)                                                                         \
    namespace {                                                                                            \
    template <class Type, bool kBackward>                                                                  \
    int64_t scratch(const Args& a) {                                                                       \
        Arena arena{nullptr};                                                                              \
        Workspace<typename Type::Acc>(arena, a, kBackward ? backward_plan(a) : forward_plan(a), kBackward); \
        return arena.used;                                                                                 \
    }                                                                                                      \
    template <class Type>                                                                                  \
    Kernel<Args> kernel(bool backward) {                                                                   \
        return backward ? Kernel<Args>{backward_units, scratch<Type, true>, backward_unit<Type>}           \
                        : Kernel<Args>{forward_units, scratch<Type, false>, forward_unit<Type>};           \
    }                                                                                                      \
    }                                                                                                      \
    Kernel<Args> NAME_FOR(stem, INTERNIMAGE_ISA)(int64_t data_type, bool backward) {                       \
        switch (data_type) {                                                                               \
            case kFloat64: return kernel<Float64>(backward);                                               \
            case kFloat16: return kernel<Float16>(backward);                                               \
            case kBFloat16: return kernel<BFloat16>(backward);                                             \
            default: return kernel<Float32>(backward);                                                     \
        }                                                                                                  \
    }
