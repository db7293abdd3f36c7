// Where the points of an operator lie, and the weights of the four pixels around each.
//
// A point (px, py) counts if -1 < px < W and -1 < py < H; a corner outside the map contributes nothing.  Per axis the
// cell is clamped into the map and `step` is 0 where the second corner falls outside, so that every address is valid
// and no pixel is read that the definition does not read.  A point that does not count (NaN included) has pixel -1.
#pragma once
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
    return divide_up(count, kPointLanes<Acc>) * kPointLanes<Acc>;
}

// Points of one tile, one array per quantity (structure of arrays, so that loops over points vectorize).
template <class Acc>
struct Points {
    using Index = IndexOf<Acc>;
    Acc *offset, *weight;           // raw input: (x, y) pairs, weights (softmaxed in place when asked)
    Acc* corner;                    // 4 a point: weight * bilinear factor of (y0,x0) (y0,x1) (y1,x0) (y1,x1)
    uint32_t* corner_pairs;         // the same in bfloat16, for `gather_bfloat16`; forward pass only
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
        arena.take(corner_pairs, sizeof(Acc) == 4 && !backward ? 2 * count : 0);
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

}  // namespace
