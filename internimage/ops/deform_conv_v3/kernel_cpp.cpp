// The window operators on a CPU: dcnv3, and dcnv4, which differs only in the strides of its offsets and weights.
//
// Forward: a unit is a run of output pixels of one row; a tile of points (pixels x groups x K) is located at once and
// then each group gathers its channels.  Backward: a unit is one (image, group) slice of grad_x, or a band of its rows
// when there are few slices, so each accumulator has one owner and receives its terms in output order: no races, and
// the same bits for every number of threads.
#include "../native/bilinear.h"
#include "../native/abi.h"

namespace {

constexpr int64_t kTilePoints = 128;

int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }
int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// How a row of output is cut: `pixels` and `groups` handled per tile, `run` pixels per forward unit.
struct Plan {
    int64_t pixels, groups, run, runs_per_row, bands;
};
Plan forward_plan(const WindowArgs& a) {
    Plan plan{};
    const int64_t points_per_pixel = max_of(1, a.groups * a.points);
    plan.pixels = points_per_pixel > kTilePoints ? 1 : min_of(a.out_width, kTilePoints / points_per_pixel);
    plan.groups = plan.pixels > 1 ? a.groups : min_of(a.groups, max_of(1, kTilePoints / max_of(1, a.points)));
    plan.run = divide_up(max_of(plan.pixels, min_of(a.out_width, 64)), plan.pixels) * plan.pixels;
    plan.runs_per_row = divide_up(a.out_width, plan.run);
    return plan;
}
Plan backward_plan(const WindowArgs& a) {
    Plan plan{};
    plan.pixels = max_of(1, min_of(a.out_width, 256 / max_of(1, a.points)));
    plan.groups = 1;
    const int64_t slices = max_of(1, a.batch * a.groups);
    const bool balanced = slices % a.threads == 0 || slices >= 4 * a.threads;
    plan.bands = balanced ? 1 : max_of(1, min_of(a.height, divide_up(4 * a.threads, slices)));
    return plan;
}

// The fixed part of every position in a tile: grid point and pixel within the tile, not the tile's own place.
template <class Acc>
void fill_grid(const WindowArgs& a, const Plan& plan, Points<Acc>& points) {
    const int64_t half_h = (a.dilation_h * (a.kernel_h - 1)) >> 1, half_w = (a.dilation_w * (a.kernel_w - 1)) >> 1;
    int64_t p = 0;
    for (int64_t pixel = 0; pixel < plan.pixels; ++pixel)
        for (int64_t group = 0; group < plan.groups; ++group)
            for (int64_t i = 0; i < a.kernel_w; ++i)  // width outer, height inner
                for (int64_t j = 0; j < a.kernel_h; ++j) {
                    if (a.remove_center && i == a.kernel_w / 2 && j == a.kernel_h / 2) continue;
                    points.grid_x[p] = Acc(double(half_w - a.pad_w + pixel * a.stride_w) +
                                           a.offset_scale * double(i * a.dilation_w - half_w));
                    points.grid_y[p] = Acc(double(half_h - a.pad_h) + a.offset_scale * double(j * a.dilation_h - half_h));
                    ++p;
                }
}

// Read offsets and weights of a tile and locate its points.
template <class Type, bool kBackward>
ALWAYS_INLINE void prepare_tile(const WindowArgs& a, Points<typename Type::Acc>& points, int64_t image, int64_t row,
                                int64_t column, int64_t pixels, int64_t group, int64_t groups) {
    using Acc = typename Type::Acc;
    using Store = typename Type::Store;
    const int64_t pixel = (image * a.out_height + row) * a.out_width + column;
    const Store* offset = static_cast<const Store*>(a.offset) + pixel * a.offset_stride + group * a.offset_group;
    const Store* weight = static_cast<const Store*>(a.weight) + pixel * a.weight_stride + group * a.weight_group;
    const int64_t k = a.points;
    const bool packed = a.offset_group == 2 * k && a.weight_group == k;
    const int64_t runs = packed ? 1 : groups, length = packed ? groups * k : k;
    if (packed && a.offset_stride == 2 * length && a.weight_stride == length) {
        decode_run<Type>(offset, points.offset, 2 * pixels * length);
        decode_run<Type>(weight, points.weight, pixels * length);
    } else for (int64_t i = 0; i < pixels; ++i) {
        const int64_t at = i * groups * k;
        for (int64_t r = 0; r < runs; ++r) {
            decode_run<Type>(offset + i * a.offset_stride + r * a.offset_group, points.offset + 2 * (at + r * k), 2 * length);
            decode_run<Type>(weight + i * a.weight_stride + r * a.weight_group, points.weight + at + r * k, length);
        }
    }
    if (a.softmax) softmax_runs(points.weight, pixels * groups, k);
    locate<Acc, kBackward>(points, pixels * groups * k, Acc(column * a.stride_w), Acc(row * a.stride_h),
                           Acc(a.offset_scale), a.height, a.width);
}

template <class Type>
void forward_unit(const WindowArgs& a, int64_t unit, void* scratch) {
    using Acc = typename Type::Acc;
    using Store = typename Type::Store;
    const Plan plan = forward_plan(a);
    Points<Acc> points(scratch, plan.pixels * plan.groups * a.points);
    fill_grid(a, plan, points);
    // Down a strip of columns, then the next strip: the rows of x that a strip needs stay in the cache.
    const int64_t row = unit % a.out_height, strip = unit / a.out_height % plan.runs_per_row;
    const int64_t image = unit / (a.out_height * plan.runs_per_row), line = image * a.out_height + row;
    const int64_t begin = strip * plan.run, end = min_of(a.out_width, begin + plan.run);
    const Store* x = static_cast<const Store*>(a.x) + image * a.height * a.width * a.x_stride;
    Store* out = static_cast<Store*>(a.out) + line * a.out_width * a.groups * a.channels;
    for (int64_t column = begin; column < end; column += plan.pixels) {
        const int64_t pixels = min_of(plan.pixels, end - column);
        for (int64_t group = 0; group < a.groups; group += plan.groups) {
            const int64_t groups = min_of(plan.groups, a.groups - group);
            prepare_tile<Type, false>(a, points, image, row, column, pixels, group, groups);
            for (int64_t i = 0; i < pixels; ++i)
                for (int64_t g = 0; g < groups; ++g)
                    gather<Type>(points, (i * groups + g) * a.points, a.points, x + (group + g) * a.channels, a.x_stride,
                                 out + ((column + i) * a.groups + group + g) * a.channels, a.channels);
        }
    }
}

// The rows of grad_x and the rows of output that one backward unit owns.
struct Band {
    int64_t image, group, first_row, end_row, first_out_row, end_out_row;
};
Band band_of(const WindowArgs& a, const Plan& plan, int64_t unit) {
    const int64_t band = unit % plan.bands, slice = unit / plan.bands;
    return {slice / a.groups, slice % a.groups, a.height * band / plan.bands, a.height * (band + 1) / plan.bands,
            a.out_height * band / plan.bands, a.out_height * (band + 1) / plan.bands};
}

// Gradients of offsets and weights of one tile, from the dots that `scatter` left.
template <class Type>
ALWAYS_INLINE void write_point_gradients(const WindowArgs& a, const Points<typename Type::Acc>& points, int64_t pixel,
                                         int64_t pixels, int64_t group, typename Type::Acc* grad_offset,
                                         typename Type::Acc* grad_weight) {
    using Acc = typename Type::Acc;
    using Store = typename Type::Store;
    const int64_t k = a.points;
    point_gradients<Acc>(points, pixels * k, Acc(a.offset_scale), grad_offset, grad_weight);
    for (int64_t i = 0; i < pixels; ++i) {
        Acc* weight_grad = grad_weight + i * k;
        if (a.softmax) {
            const Acc* weight = points.weight + i * k;
            Acc mean = 0;
            for (int64_t p = 0; p < k; ++p) mean += weight[p] * weight_grad[p];
            for (int64_t p = 0; p < k; ++p) weight_grad[p] = weight[p] * (weight_grad[p] - mean);
        }
        encode_run<Type>(grad_offset + 2 * i * k, static_cast<Store*>(a.grad_offset) +
                         (pixel + i) * a.grad_offset_stride + group * a.grad_offset_group, 2 * k);
        encode_run<Type>(weight_grad, static_cast<Store*>(a.grad_weight) +
                         (pixel + i) * a.grad_weight_stride + group * a.grad_weight_group, k);
    }
}

template <class Type>
void backward_unit(const WindowArgs& a, int64_t unit, void* scratch) {
    using Acc = typename Type::Acc;
    using Store = typename Type::Store;
    constexpr bool kDirect = sizeof(Store) == sizeof(Acc);
    const Plan plan = backward_plan(a);
    const int64_t capacity = plan.pixels * a.points;
    Points<Acc> points(scratch, capacity);
    fill_grid(a, plan, points);
    Acc* grad_offset = reinterpret_cast<Acc*>(static_cast<char*>(scratch) + Points<Acc>::bytes(capacity));
    Acc* grad_weight = grad_offset + 2 * Points<Acc>::padded(capacity);
    Acc* buffer = grad_weight + Points<Acc>::padded(capacity);

    const Band band = band_of(a, plan, unit);
    const int64_t all_channels = a.groups * a.channels, d = a.channels;
    const int64_t first_pixel = band.first_row * a.width, end_pixel = band.end_row * a.width;
    Store* grad_x = static_cast<Store*>(a.grad_x) + band.image * a.height * a.width * all_channels + band.group * d;
    Target<Acc> target{nullptr, kDirect ? all_channels : d, first_pixel, end_pixel, plan.bands == 1};
    if constexpr (kDirect) {
        target.base = grad_x;
        for (int64_t p = first_pixel; p < end_pixel; ++p)
            for (int64_t c = 0; c < d; ++c) grad_x[p * all_channels + c] = 0;
    } else {
        target.base = buffer - first_pixel * d;
        std::memset(buffer, 0, size_t((end_pixel - first_pixel) * d) * sizeof(Acc));
    }
    const Store* x = static_cast<const Store*>(a.x) + band.image * a.height * a.width * a.x_stride + band.group * d;
    for (int64_t row = 0; row < a.out_height; ++row) {
        const bool owns_points = row >= band.first_out_row && row < band.end_out_row;
        for (int64_t column = 0; column < a.out_width; column += plan.pixels) {
            const int64_t pixels = min_of(plan.pixels, a.out_width - column);
            const int64_t pixel = (band.image * a.out_height + row) * a.out_width + column;
            prepare_tile<Type, true>(a, points, band.image, row, column, pixels, band.group, 1);
            if (owns_points) std::memset(points.dots, 0, size_t(pixels * a.points * 4) * sizeof(Acc));
            const Store* grad_out = static_cast<const Store*>(a.grad_out) + pixel * all_channels + band.group * d;
            for (int64_t i = 0; i < pixels; ++i)
                scatter<Type>(points, i * a.points, a.points, x, a.x_stride, grad_out + i * all_channels, target, 0, d,
                              owns_points);
            if (owns_points) write_point_gradients<Type>(a, points, pixel, pixels, band.group, grad_offset, grad_weight);
        }
    }
    if constexpr (!kDirect) {
        for (int64_t p = first_pixel; p < end_pixel; ++p)
            encode_run<Type>(buffer + (p - first_pixel) * d, grad_x + p * all_channels, d);
    }
}

int64_t forward_units(const WindowArgs& a) {
    return a.batch * a.out_height * forward_plan(a).runs_per_row;
}
int64_t backward_units(const WindowArgs& a) { return a.batch * a.groups * backward_plan(a).bands; }

template <class Type>
int64_t forward_scratch(const WindowArgs& a) {
    const Plan plan = forward_plan(a);
    return Points<typename Type::Acc>::bytes(plan.pixels * plan.groups * a.points);
}
template <class Type>
int64_t backward_scratch(const WindowArgs& a) {
    using Acc = typename Type::Acc;
    const Plan plan = backward_plan(a);
    const int64_t capacity = plan.pixels * a.points;
    const bool direct = sizeof(typename Type::Store) == sizeof(Acc);
    const int64_t rows = direct ? 0 : divide_up(a.height, plan.bands);
    return Points<Acc>::bytes(capacity) + int64_t(sizeof(Acc)) * (3 * Points<Acc>::padded(capacity) + rows * a.width * a.channels);
}

template <class Type>
Kernel<WindowArgs> kernel(bool backward) {
    return backward ? Kernel<WindowArgs>{backward_units, backward_scratch<Type>, backward_unit<Type>}
                    : Kernel<WindowArgs>{forward_units, forward_scratch<Type>, forward_unit<Type>};
}

}  // namespace

#define CONCATENATE(a, b) a##b
#define NAME_FOR(isa) CONCATENATE(window_kernel_, isa)

Kernel<WindowArgs> NAME_FOR(INTERNIMAGE_ISA)(int64_t data_type, bool backward) {
    switch (data_type) {
        case kFloat64: return kernel<Float64>(backward);
        case kFloat16: return kernel<Float16>(backward);
        case kBFloat16: return kernel<BFloat16>(backward);
        default: return kernel<Float32>(backward);
    }
}
