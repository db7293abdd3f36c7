// What stands between the matrix products of a block, on the channel rows of a channels-last map: GELU, residual sums
// with norms, and the depth-wise convolution with norm and GELU.  Forward only.
//
// A unit is a run of rows (pixels); a row stays in the first-level cache from the first step to the last.
#include "row_steps.h"

namespace {

constexpr int64_t kUnitElements = 16384;

// --- residual sums, norms and GELU on rows --------------------------------------------------------------------------

int64_t rows_per_unit(const RowArgs& a) { return max_of(1, kUnitElements / max_of(1, a.channels)); }
int64_t row_units(const RowArgs& a) { return divide_up(a.rows, rows_per_unit(a)); }
int64_t row_scratch(const RowArgs& a) {
    return int64_t(sizeof(float)) * (kRowGroup + kResidualVectors) * padded(a.channels);
}

template <class Type>
void gelu_unit(const RowArgs& a, int64_t unit, void*) {
    const int64_t first = unit * rows_per_unit(a), end = min_of(a.rows, first + rows_per_unit(a));
    gelu_run<Type>(static_cast<typename Type::Store*>(a.y) + first * a.channels, (end - first) * a.channels);
}

template <class Type>
void residual_unit(const RowArgs& a, int64_t unit, void* memory) {
    const int64_t n = a.channels, first = unit * rows_per_unit(a), end = min_of(a.rows, first + rows_per_unit(a));
    float *rows = static_cast<float*>(memory), *scratch = rows + kRowGroup * padded(n);
    const Residual residual = decode_residual<Type>(a.residual, n, scratch);
    const auto* y = static_cast<const typename Type::Store*>(a.y) + first * n;
    for_row_groups(end - first, [&](int64_t r, auto group) {
        for (int i = 0; i < group(); ++i) decode_run<Type>(y + (r + i) * n, rows + i * padded(n), n);
        add_residual_group<Type, group()>(a.residual, residual, first + r, n, rows);
    });
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
        for_row_groups(min_of(kStrip, a.width - column), [&](int64_t p, auto group) {
            normalize<Type, group(), true>(sums + p * padded(a.channels), padded(a.channels),
                                           out + (column + p) * a.channels, a.channels, weight, bias, a.channels,
                                           float(a.eps));
        });
    }
}

template <class Type>
Kernel<DepthwiseArgs> depthwise_kernel() {
    return {depthwise_units, depthwise_scratch, depthwise_unit<Type>};
}

}  // namespace

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
